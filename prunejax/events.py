"""The events of a run: a line each in events.jsonl, added and never changed, by which its files count."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prunejax.errors import InputError
from prunejax.files import read_text, write_through
from prunejax.run_facts import check_event

STATES = {"restrain": "-restrained", "rollback": "-rolled-back", "stop": "-stopped"}
"""How the names of states after other events than edits end."""

TABLES = ("diagnostics.csv", "guard.csv")
"""What is noted of edits: a head, and rows that begin with the number of an edit."""


@dataclass(frozen=True)
class Event:
    """A line of events.jsonl: edits first..last (counted from 1) in a file of factors; a restraint after `last` edits;
    the rollback of the edits first..last of the event before it; or the stop of a run after these, with the reason.
    `state` is the SHA-256 of the state after it, `tables` that of what is noted of the edits up to `last`
    (`tables_digest`)."""

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
    tables: str = ""

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


def tables_digest(folder: Path, last: int) -> str:
    """SHA-256 of the rows of TABLES up to edit `last`, each table's with its head; "" where nothing is noted.
    InputError for a table whose rows do not begin with numbers."""
    noted = ""
    for path in (path for name in TABLES if (path := folder / name).exists()):
        head, *rows = read_text(path, "table").removesuffix("\n").split("\n")
        try:
            kept = [row for row in rows if int(row.partition(",")[0]) <= last]
        except ValueError:
            raise InputError(f"table {path}: a row does not begin with the number of an edit") from None
        noted += "\n".join([head, *kept, ""]) * bool(kept)
    return hashlib.sha256(noted.encode()).hexdigest() if noted else ""


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
