"""The editors, one row each: its settings and the factory that closes over them."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

from prunejax.contexts import Contexts, no_contexts, sample_contexts, sample_groups
from prunejax.editors.editor import Editor
from prunejax.editors.memit import MemitSettings, memit
from prunejax.editors.mend import MendSettings, mend
from prunejax.editors.rome import RomeSettings, rome
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model


class EditorRow(NamedTuple):
    """An editor's name in one line, its settings type, the factory, and how its authors sample contexts."""

    summary: str
    settings: type
    make: Callable[..., Editor]
    contexts: Callable[[Model, int], Contexts] = sample_contexts


EDITORS: Mapping[str, EditorRow] = {
    "rome": EditorRow("rank-one model editing as published, bare-prompt key in the denominator", RomeSettings, rome),
    "r-rome": EditorRow("ROME with the context-averaged key throughout", RomeSettings, partial(rome, consistent=True)),
    "memit": EditorRow("a batch of facts spread over several layers", MemitSettings, memit, sample_groups),
    "mend": EditorRow("a gradient step that a trained hypernetwork has turned", MendSettings, mend, no_contexts),
}


def editor_row(name: str) -> EditorRow:
    """The row of an editor, or an InputError that lists those that exist."""
    if name not in EDITORS:
        raise InputError(f"editor {name!r}: there are {', '.join(EDITORS)}")
    return EDITORS[name]


def settings_of(name: str, values: Mapping[str, Any]) -> Any:
    """An editor's settings from names and values (text or typed); InputError for an unknown name or a value of the
    wrong type."""
    kind = editor_row(name).settings
    known = {field.name: field.type for field in fields(kind)}
    typed = {}
    for key, value in values.items():
        if key not in known:
            raise InputError(f"hyper-parameter {key!r}: {name} has {', '.join(known)}")
        try:
            typed[key] = parse_setting(known[key], value)
        except (OverflowError, TypeError, ValueError):
            wanted = getattr(known[key], "__name__", known[key])
            raise InputError(f"hyper-parameter {key}={value}: a value of type {wanted} was expected") from None
    return kind(**typed)


def parse_setting(kind: Any, value: Any) -> Any:
    """A setting's value from text ("5,6" for layers) or from JSON."""
    if kind in (int, float, str):
        if kind is int and isinstance(value, str):
            return int(value)
        number = kind(value)
        if kind is not str and (isinstance(value, bool) or number != number or (kind is int and number != value)):
            raise ValueError(value)
        return number
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    return tuple(parse_setting(int, part) for part in parts)
