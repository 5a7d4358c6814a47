"""What run.json and a line of events.jsonl must say, so that nobody who reads a run meets what was not expected: they
come from colleagues, and are damaged on the way, or made up."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from prunejax.errors import InputError

KINDS = ("edit", "restrain", "rollback", "stop")
"""What an event can be."""

MOST = 10**9
"""No count or number is as large."""


class Entry(NamedTuple):
    """What an entry must be, in words and as a test of its value."""

    words: str
    fits: Callable[[Any], bool]


def _whole(least: int) -> Entry:
    return Entry(f"a whole number of at least {least}", lambda value: type(value) is int and least <= value < MOST)


def _object(**entries: Entry) -> Entry:
    def fits(value: Any) -> bool:
        return isinstance(value, dict) and all(entry.fits(value.get(name)) for name, entry in entries.items())

    return Entry(f"an object of {', '.join(entries) or 'values'}", fits)


def _perhaps(entry: Entry) -> Entry:
    return Entry(f"{entry.words} or nothing", lambda value: value is None or entry.fits(value))


TEXT = Entry("text", lambda value: isinstance(value, str))
PERHAPS = _perhaps(TEXT)
DIGEST = Entry("a SHA-256", lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None)
NAMES = Entry(
    "a list of different names",
    lambda value: isinstance(value, list) and all(map(TEXT.fits, value)) and len({*value}) == len(value),
)

FACTS: Mapping[str, Entry] = {
    "tensors": NAMES,
    "model": _object(name=TEXT, sha256=DIGEST, dtype=PERHAPS),
    "requests": _object(source=TEXT, n=_whole(1), sha256=DIGEST),
    "contexts": _object(sha256=DIGEST),
    "moments": PERHAPS,
    "editor": TEXT,
    "preset": TEXT,
    "settings": _object(),
    "restrain": TEXT,
    "seed": Entry("a whole number of at least 0", lambda value: type(value) is int and 0 <= value < 1 << 32),
    "batch": _whole(1),
    "chunk": _perhaps(_whole(1)),
    "guard": _perhaps(_object(spec=TEXT, text=_object(n=_whole(1), sha256=DIGEST))),
}
"""The entries of run.json that are read."""

EVENT: Mapping[str, Entry] = {
    "seq": _whole(0),
    "kind": Entry(" or ".join(KINDS), lambda value: value in KINDS),
    "first": _whole(1),
    "last": _whole(1),
    "file": Entry("the name of its file", lambda value: isinstance(value, str)),
    "sha256": DIGEST,
    "restraint": TEXT,
    "raw": Entry("true or false", lambda value: isinstance(value, bool)),
    "state": DIGEST,
    "reason": TEXT,
    "tables": DIGEST,
}
"""The entries of an event; which of them must be there `events.Event` says."""


NUMBER = Entry("a number", lambda value: type(value) in (int, float))

DELTA: Mapping[str, Entry] = {
    "prunejax": TEXT,
    "base": _object(name=TEXT, sha256=DIGEST),
    "run": _object(name=TEXT),
    "edits": _whole(0),
    "restraint": TEXT,
    "tensors": Entry(
        "an object of objects",
        lambda value: isinstance(value, dict) and all(map(_object().fits, value.values())),
    ),
}
TENSOR: Mapping[str, Entry] = {
    "shape": Entry("two sizes", lambda value: isinstance(value, list) and [type(size) for size in value] == [int, int]),
    "dtype": TEXT,
    "sha256": DIGEST,
    "factors_sha256": DIGEST,
    **dict.fromkeys(("rounding", "sigma_max", "update_sigma_max", "restrained_sigma_max"), NUMBER),
}
"""The entries of a delta's facts, and of each tensor among them."""


def check_facts(facts: Any, where: str) -> None:
    """InputError, which says `where`, unless these are a run's description: every entry that is read, of its type."""
    if not isinstance(facts, dict):
        raise InputError(f"{where}: not a run's description")
    _check(facts, FACTS, where)


def check_event(entries: Mapping[str, Any], where: str) -> None:
    """InputError, which says `where`, for an entry that has not its type, or a file other than the one that its edits
    are kept in: a name from elsewhere might lead out of the run."""
    for name, value in entries.items():
        if name in EVENT and not EVENT[name].fits(value):
            raise InputError(f"{where} is not an event: {name} {f'{value!r}'[:100]}, {EVENT[name].words} was expected")
    first, last, file = (entries.get(name) for name in ("first", "last", "file"))
    own = updates_file(first, last) if entries.get("kind") == "edit" and first and last else None
    if file and file != own:
        raise InputError(f"{where} is not an event: file {file!r} is not that of edits {first} to {last}")


def updates_file(first: int, last: int) -> str:
    """Where a run keeps the updates of edits first..last."""
    return f"updates/{first:06d}-{last:06d}.safetensors"


def check_delta(facts: Mapping[str, Any], where: str) -> None:
    """The same of what a delta says: of its base, of the run that it is of, and of each tensor."""
    _check(facts, DELTA, where)
    for tensor, row in facts["tensors"].items():
        _check(row, TENSOR, f"{where}: {tensor}")
    check_facts(facts["run"], f"{where}: its run")


def _check(facts: Mapping[str, Any], entries: Mapping[str, Entry], where: str) -> None:
    for name, entry in entries.items():
        if not entry.fits(facts.get(name)):
            said = f"{facts[name]!r}"[:100] if name in facts else "missing"
            raise InputError(f"{where}: {name} must be {entry.words}, not {said}; it was damaged or changed")
