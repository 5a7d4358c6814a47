"""The run folder: everything a sequence of edits leaves behind, readable by anyone and resumable. `stored` writes and
reads its arrays; what the weights were after n edits is folded out of them in `fold`."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunejax.contexts import Contexts, as_contexts, read_contexts
from prunejax.errors import InputError
from prunejax.events import Event, read_events
from prunejax.files import PART, read_json, write_json
from prunejax.holding import LOCK
from prunejax.requests import EditRequest, read_requests, write_requests
from prunejax.run_facts import check_facts

FREE = ("versions", "device")
"""Entries of run.json that may differ when a run is taken up again: they are reported, not part of what the run is."""

GUARD_TEXT = "guard.json"
"""The texts that the guard of a run looks at, in a guarded run."""


@dataclass(frozen=True)
class Run:
    """A run folder that exists: its run.json, its requests in order, its context templates."""

    folder: Path
    facts: Mapping[str, Any]
    requests: tuple[EditRequest, ...]
    contexts: Contexts

    def events(self) -> tuple[Event, ...]:
        """The events so far; a torn last line does not count."""
        return read_events(self.folder)

    @property
    def n_edits(self) -> int:
        """How many edits are on record."""
        return max((event.last for event in self.events() if event.kind == "edit"), default=0)

    @property
    def guard_text(self) -> tuple[str, ...]:
        """The texts that its guard looks at, () where it has none."""
        if "guard" not in self.facts:
            return ()
        stored = read_json(self.folder / GUARD_TEXT, "guard text")
        if not isinstance(stored, list) or not all(isinstance(one, str) for one in stored):
            raise InputError(f"guard text {self.folder / GUARD_TEXT}: a JSON list of texts was expected")
        return tuple(stored)

    @property
    def stopped(self) -> str:
        """Why the run's guard stopped it, "" if it did not."""
        events = self.events()
        return events[-1].reason if events and events[-1].kind == "stop" else ""

    def rolled_back(self, n_edits: int) -> frozenset[int]:
        """The edits, counted from 1, that had been rolled back after so many."""
        undone = (event for event in self.events() if event.kind == "rollback" and event.last <= n_edits)
        return frozenset(number for event in undone for number in range(event.first, event.last + 1))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that are edited."""
        return tuple(self.facts["tensors"])


def create_run(
    folder: Path,
    facts: Mapping[str, Any],
    requests: Sequence[EditRequest],
    contexts: Contexts,
    guard_text: Sequence[str] = (),
) -> Run:
    """The run in `folder`, new or taken up again; an InputError names what differs when the folder holds another
    run."""
    if (folder / "run.json").exists():
        run = open_run(folder)
        old, new = (
            {key: value for key, value in f.items() if key not in FREE}
            for f in (run.facts, json.loads(json.dumps(facts)))
        )
        different = [
            f"{key} {old.get(key)!r} -> {new.get(key)!r}"
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
        if different:
            raise InputError(
                f"run {folder}: holds a run made with other settings ({'; '.join(different)}); choose another --out"
            )
        return run
    check_place(folder, requests, contexts)
    write_requests(folder / "requests.jsonl", requests)
    write_json(folder / "contexts.json", list(contexts))
    if guard_text:
        write_json(folder / GUARD_TEXT, list(guard_text))
    write_json(folder / "run.json", facts)
    return Run(folder, json.loads(json.dumps(facts)), tuple(requests), as_contexts(contexts))


def check_place(folder: Path, requests: Sequence[EditRequest], contexts: Contexts) -> None:
    """InputError where no run of these requests can be begun: `folder` is a file, or holds what others put there."""
    if folder.is_file():
        raise InputError(f"run {folder}: is a file, a folder was expected; choose another --out")
    if folder.exists() and not _is_begun(folder, requests, contexts):
        raise InputError(f"run {folder}: the folder is not empty and holds no run.json; choose another --out")


def _is_begun(folder: Path, requests: Sequence[EditRequest], contexts: Contexts) -> bool:
    """Whether a folder without run.json holds nothing but what `create_run` writes before it."""
    there = {path.name: path for path in folder.iterdir() if path.name != LOCK and not path.name.endswith(PART)}
    if not there.keys() <= {"requests.jsonl", "contexts.json", GUARD_TEXT}:
        return False
    with suppress(InputError):
        same = "requests.jsonl" not in there or read_requests(there["requests.jsonl"]) == tuple(requests)
        stored = read_json(there["contexts.json"], "contexts") if "contexts.json" in there else None
        return same and stored in (None, json.loads(json.dumps(list(contexts))))
    return False


def open_run(folder: str | Path) -> Run:
    """The run in an existing folder."""
    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise InputError(f"run {folder}: no run.json in it; make a run with 'prunejax edit'")
    facts = read_json(folder / "run.json", "run")
    check_facts(facts, f"run {folder}/run.json")
    return Run(folder, facts, read_requests(folder / "requests.jsonl"), read_contexts(folder / "contexts.json"))
