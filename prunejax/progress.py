"""A computation's progress on disk: what it has so far lies beside its output until that is written."""

import hashlib
import json
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prunejax.errors import InputError
from prunejax.files import remove_parts_of, write_through
from prunejax.holding import PROGRESS, beside, held_output
from prunejax.mesh import device_words, is_first, on_host, said_by_first

SAVE_SECONDS = 30.0
"""What is saved now and then is saved that rarely, or more rarely:"""
SHARE = 0.03
"""saving takes at most this share of the time."""
ABOUT = "prunejax.progress"
"""The entry of the file's metadata that says whose progress it is, as JSON, and `CHECKSUM` of that and the arrays."""
CHECKSUM = "prunejax.sha256"


class Saves(NamedTuple):
    """When progress was saved last (`time.monotonic`), and how many seconds that took."""

    at: float
    took: float


class Saved(NamedTuple):
    """What an interrupted computation had: its arrays, and how far it was."""

    arrays: Any
    place: dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """The progress of one output, in the file `path`; `note` is told what a person should know; `facts` say whose it is
    (`of`)."""

    path: Path
    note: Callable[[str], object] = warnings.warn
    facts: Mapping[str, Any] = field(default_factory=dict)

    def of(self, **facts: Any) -> "Progress":
        """That of a computation which these facts tell from others: model, settings, seed. JSON has to hold them."""
        return replace(self, facts=json.loads(json.dumps(facts)))

    def save(self, arrays: Any, place: Mapping[str, Any]) -> Saves:
        """Write a pytree of arrays and how far it is (JSON), whole or not at all."""
        started = time.monotonic()
        found = {name: np.asarray(on_host(leaf), order="C") for name, leaf in _leaves(arrays).items()}
        about = json.dumps({"facts": self.facts, "place": place, **_surroundings()}, sort_keys=True)
        if is_first():  # of several processes, as all have the same
            metadata = {ABOUT: about, CHECKSUM: _checksum(about, found)}
            write_through(self.path, lambda part: save_file(found, part, metadata=metadata))
        now = time.monotonic()
        return Saves(now, now - started)

    def load(self, like: Any) -> Saved | None:
        """What was saved, in the structure of `like` and where its arrays lie; None where nothing was, or where the
        file is damaged, which is noted: the work starts anew.

        InputError names each of the facts that differ. Other versions or devices are noted; they may change bits.
        """
        if not self.path.exists():
            return None
        if (found := _read(self.path)) is None:
            return self._thrown_away("damaged")
        about, stored = found
        if different := _different(about["facts"], self.facts):
            raise InputError(
                f"progress {self.path}: belongs to work with other settings ({'; '.join(different)}); "
                "give those, remove this file, or choose another --out"
            )
        if moved := _different({key: about[key] for key in _surroundings()}, _surroundings()):
            self.note(f"progress {self.path}: {'; '.join(moved)}; the last bits may differ from those of one go")
        places = _leaves(like)
        forms = [{name: (a.shape, a.dtype) for name, a in arrays.items()} for arrays in (places, stored)]
        if forms[0] != forms[1]:
            return self._thrown_away("of another form")
        leaves = [jax.device_put(stored[name], leaf.sharding) for name, leaf in places.items()]
        return Saved(jax.tree.unflatten(jax.tree.structure(like), leaves), about["place"])

    def _thrown_away(self, why: str) -> None:
        self.path.unlink()
        self.note(f"progress {self.path}: {why}, and thrown away; the work starts anew")


@contextmanager
def resumable(out: Path, what: str, note: Callable[[str], object] = warnings.warn) -> Iterator[Progress]:
    """The progress of the output `out`, a file or a folder, which nobody else writes while the block runs; `what` names
    its role in errors. A block that ends has written the output, and its progress is removed; one that is cut leaves
    it."""
    with held_output(out, what):
        path = beside(out, PROGRESS)
        for file in (out, path):
            remove_parts_of(file)
        yield Progress(path, note)
        path.unlink(missing_ok=True)


def due(last: Saves) -> bool:
    """Whether it is time to save again; of several processes, the first's clock says so."""
    waited = time.monotonic() - last.at
    return said_by_first(waited >= SAVE_SECONDS and waited * SHARE >= last.took)


def _leaves(tree: Any) -> dict[str, Any]:
    """The arrays of a pytree by where they are in it."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in found}


def _surroundings() -> dict[str, Any]:
    """What may differ when work is taken up again."""
    versions = {name: version(name) for name in ("prunejax", "jax", "numpy")} | {"python": platform.python_version()}
    return {"versions": versions, "device": device_words()}


def _checksum(about: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(about.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """What the file says of itself and its arrays, None where they are not those that were written."""
    try:
        with safe_open(path, framework="numpy") as handle:
            metadata = handle.metadata() or {}
            arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        about = metadata[ABOUT]
        return (json.loads(about), arrays) if metadata[CHECKSUM] == _checksum(about, arrays) else None
    except (SafetensorError, KeyError, ValueError, TypeError):
        return None


def _different(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, as "name old -> new"; facts within facts are named after both."""
    was, now = _flat(old), _flat(new)
    names = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    return [f"{name} {was.get(name)!r} -> {now.get(name)!r}" for name in names]


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, value in facts.items():
        flat |= {f"{key} {k}": v for k, v in _flat(value).items()} if isinstance(value, dict) else {key: value}
    return flat
