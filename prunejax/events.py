"""The events of a run: a line each in events.jsonl, which is only ever appended to, and by which its files count."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prunejax.errors import InputError
from prunejax.files import read_text, write_through
from prunejax.run_facts import check_event

STATES = {"restrain": "-restrained", "rollback": "-rolled-back", "stop": "-stopped"}
"""How the names of states after other events than edits end."""


@dataclass(frozen=True)
class Event:
    """A line of events.jsonl: edits first..last (counted from 1) in a file of factors; a restraint after `last` edits;
    the rollback of the edits first..last of the event before it; or the stop of a run after these, with the reason.
    `state` is the SHA-256 of the state after it."""

    seq: int
    kind: str
    first: int
    last: int
    file: str = ""
    sha256: str = ""
    restraint: str = ""
    raw: bool = False
    state: str = ""
    reason: str = ""

    @property
    def state_file(self) -> str:
        """The file of the state after it: the edited tensors, and what the editor carries."""
        return f"state/{self.last:06d}{STATES.get(self.kind, '')}.safetensors"


def read_events(folder: Path) -> tuple[Event, ...]:
    """The events of the run in a folder so far; a torn last line does not count."""
    path = folder / "events.jsonl"
    return tuple(_events(path)) if path.exists() else ()


def append_events(folder: Path, *events: Event) -> Event:
    """Append lines to events.jsonl, all or none, after cutting off what an interruption may have left of an earlier
    one; returns the last."""
    path = folder / "events.jsonl"
    lines = [
        json.dumps({k: v for k, v in e.__dict__.items() if v not in ("", False) or k == "seq"})
        for e in (*read_events(folder), *events)
    ]
    write_through(path, lambda part: part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8"))
    return events[-1]


def _events(path: Path) -> Iterator[Event]:
    text = read_text(path, "events")
    lines = text.split("\n")[:-1]  # what follows the last line end is a torn line, or nothing
    for number, line in enumerate(lines, 1):
        where = f"events {path}: line {number}"
        try:
            entries = json.loads(line)
            event = Event(**entries)
        except (RecursionError, TypeError, ValueError):
            raise InputError(f"{where} is not an event") from None
        check_event(entries, where)
        if event.seq != number - 1:
            raise InputError(f"events {path}: line {event.seq + 1} does not follow the one before it")
        yield event
