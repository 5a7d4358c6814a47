"""The editors, one row each: its settings and the factory that closes over them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from prunejax.contexts import Contexts, no_contexts, sample_contexts, sample_groups
from prunejax.editors.alphaedit import AlphaEditSettings, alphaedit
from prunejax.editors.editor import Editor
from prunejax.editors.emmet import EmmetSettings, emmet
from prunejax.editors.encore import EncoreSettings, encore
from prunejax.editors.fine_tuning import FineTuningSettings, fine_tuning
from prunejax.editors.memit import MemitSettings, memit
from prunejax.editors.mend import MendSettings, mend
from prunejax.editors.nse import NseSettings, nse
from prunejax.editors.pmet import PmetSettings, pmet
from prunejax.editors.points import refused
from prunejax.editors.rome import RomeSettings, rome
from prunejax.editors.settings import LocateSettings
from prunejax.editors.ultraedit import UltraEditSettings, ultraedit
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model


class EditorRow(NamedTuple):
    """An editor's name in one line, its settings type, the factory, how its authors sample contexts, the regimes that
    it has not, each with the reason, and whether its diagnostics hold a denominator."""

    summary: str
    settings: type
    make: Callable[..., Editor]
    contexts: Callable[[Model, int], Contexts] = sample_contexts
    refuses: Mapping[str, str] = MappingProxyType({})
    divides: bool = False

    @property
    def reads_moments(self) -> bool:
        """Whether it reads second moments of keys, if its settings ask for them."""
        return issubclass(self.settings, LocateSettings)

    def refused(self, regime: str) -> str:
        """Why it has not this regime, "" if it works."""
        return self.refuses.get(regime, "")


def no_batches(reason: str) -> Mapping[str, str]:
    """The regimes that an editor of one request at a time refuses."""
    return MappingProxyType({"batched": reason, "sequential-batched": reason})


ONE_KEY = no_batches("ROME edits one request at a time; its form for batches is emmet")
ONE_GRADIENT = no_batches("MEND edits one request at a time, its network has learned the gradients of single edits")
FEW_TOKENS = MappingProxyType(
    {"single": "it divides by a deviation over the tokens so far, and one short answer has none; edit a batch"}
)
FT_L, FT_M = (partial(fine_tuning, forced=forced) for forced in (False, True))

EDITORS: Mapping[str, EditorRow] = {
    "ft-l": EditorRow(
        "fine-tuning in a box on one distribution for all of a target", FineTuningSettings, FT_L, no_contexts
    ),
    "ft-m": EditorRow("fine-tuning in a box, target token by token", FineTuningSettings, FT_M, no_contexts),
    "rome": EditorRow(
        "rank-one model editing as published, bare-prompt key in the denominator",
        *(RomeSettings, rome),
        refuses=ONE_KEY,
        divides=True,
    ),
    "r-rome": EditorRow(
        "ROME with the context-averaged key throughout",
        *(RomeSettings, partial(rome, consistent=True)),
        refuses=ONE_KEY,
        divides=True,
    ),
    "memit": EditorRow("a batch of facts spread over several layers", MemitSettings, memit, sample_groups),
    "memit-seq": EditorRow(
        "MEMIT that spares the keys of earlier edits", MemitSettings, partial(memit, sequential=True), sample_groups
    ),
    "emmet": EditorRow("a batch of facts stored exactly", EmmetSettings, emmet, sample_groups),
    "alphaedit": EditorRow(
        "sequential MEMIT in the null space of a text's keys", AlphaEditSettings, alphaedit, sample_groups
    ),
    "nse": EditorRow(
        "sequential MEMIT on the loudest neurons, target values of the unedited model", NseSettings, nse, sample_groups
    ),
    "encore": EditorRow("sequential MEMIT, stopped early and kept small", EncoreSettings, encore, sample_groups),
    "pmet": EditorRow("MEMIT with attention moving in the value step", PmetSettings, pmet, sample_groups),
    "ultraedit": EditorRow(
        "one normalised gradient and one ridge solve a batch", UltraEditSettings, ultraedit, no_contexts, FEW_TOKENS
    ),
    "mend": EditorRow(
        "a gradient step that a trained hypernetwork has turned", MendSettings, mend, no_contexts, ONE_GRADIENT
    ),
}


def editor_row(name: str) -> EditorRow:
    """The row of an editor, or an InputError that lists those that exist."""
    if name not in EDITORS:
        raise InputError(f"editor {name!r}: there are {', '.join(EDITORS)}")
    return EDITORS[name]


def settings_of(name: str, values: Mapping[str, Any]) -> Any:
    """An editor's settings from names and values (text or typed); InputError for an unknown name or a value of the
    wrong type."""
    return parsed_settings(name, editor_row(name), values)


def parsed_settings(name: str, row: EditorRow, values: Mapping[str, Any]) -> Any:
    """`settings_of` for a row that need not stand in the table."""
    kind = row.settings
    known = {field.name: field.type for field in fields(kind)}
    typed = {}
    for key, value in values.items():
        if key not in known:
            reason = refused(kind, key)
            raise InputError(f"hyper-parameter {key!r}: {name} has {', '.join(known)}{reason and f'; {reason}'}")
        try:
            typed[key] = parse_setting(known[key], value)
        except OverflowError:
            raise InputError(f"hyper-parameter {key}={value}: too large a number") from None
        except (KeyError, TypeError, ValueError):
            wanted = getattr(known[key], "__name__", known[key])
            raise InputError(f"hyper-parameter {key}={value}: a value of type {wanted} was expected") from None
    return kind(**typed)


def parse_setting(kind: Any, value: Any) -> Any:
    """A setting's value from text ("5,6" for layers) or from JSON."""
    if kind is bool:
        return {"true": True, "false": False}[str(value).lower()]
    if kind in (int, float, str):
        number = kind(value)
        if kind is not str and abs(number) >= (1 << 31 if kind is int else math.inf):
            raise OverflowError(value)
        if kind is int and isinstance(value, str):
            return number
        if kind is not str and (isinstance(value, bool) or number != number or (kind is int and number != value)):
            raise ValueError(value)
        return number
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    return tuple(parse_setting(int, part) for part in parts)
