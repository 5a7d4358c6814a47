"""The run folder: everything a sequence of edits leaves behind, readable by anyone and resumable. What the weights were
after n edits is folded out of it in `fold`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prunejax.contexts import Contexts, as_contexts, read_contexts
from prunejax.errors import InputError
from prunejax.files import PART, read_json, read_text, sha256, write_json, write_through
from prunejax.holding import LOCK
from prunejax.mesh import on_devices, on_host
from prunejax.requests import EditRequest, read_requests, write_requests
from prunejax.run_facts import check_event, check_facts, updates_file
from prunejax.update import LowRank, Update, total

FREE = ("versions", "device")
"""Entries of run.json that may differ when a run is taken up again: they are reported, not part of what the run is."""

GUARD_TEXT = "guard.json"
"""The texts that the guard of a run looks at, in a guarded run."""

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


@dataclass(frozen=True)
class Run:
    """A run folder that exists: its run.json, its requests in order, its context templates."""

    folder: Path
    facts: Mapping[str, Any]
    requests: tuple[EditRequest, ...]
    contexts: Contexts

    def events(self) -> tuple[Event, ...]:
        """The events so far; a torn last line does not count."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return ()
        return tuple(_events(path))

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


def record_chunk(
    run: Run,
    first: int,
    last: int,
    updates: Sequence[Mapping[str, Update]],
    weights: Mapping[str, Array],
    carried: Any = (),
) -> Event:
    """Write the updates of edits first..last, and the edited weights and what the editor carries after them; the event
    line comes last and makes them count."""
    return record_event(run, write_updates(run, first, last, updates), weights, carried)


def write_updates(run: Run, first: int, last: int, updates: Sequence[Mapping[str, Update]]) -> Event:
    """Write the updates of edits first..last, their factors or, of matrices, their sum; returns their event, which is
    not recorded yet."""
    arrays = {}
    for tensor in run.tensors:
        made = [update[tensor] for update in updates]
        if all(isinstance(update, LowRank) for update in made):
            left, right = zip(*((on_host(part) for part in update) for update in made), strict=True)
            arrays[f"{tensor}.left"] = np.ascontiguousarray(np.concatenate(left, axis=1).T)
            arrays[f"{tensor}.right"] = np.ascontiguousarray(np.concatenate(right))
        else:
            arrays[f"{tensor}.dense"] = on_host(total(made).matrix)
    file = updates_file(first, last)
    path = write_through(run.folder / file, lambda part: save_file(arrays, part))
    return Event(len(run.events()), "edit", first, last, file, sha256(path))


def record_event(
    run: Run, event: Event, weights: Mapping[str, Array], carried: Any = (), *, after: Sequence[Event] = ()
) -> Event:
    """Write the edited weights after an event and what the editor carries, from which a run resumes to the bit, then
    the event, which makes them count, together with those that it comes `after` and would be wrong without."""
    state = {tensor: on_host(weight) for tensor, weight in weights.items()}
    state |= {name: np.asarray(on_host(leaf), order="C") for name, leaf in _leaves(carried).items()}
    path = write_through(run.folder / event.state_file, lambda part: save_file(state, part))
    return append_event(run, *after, replace(event, state=sha256(path)))


def _leaves(carried: Any) -> dict[str, Any]:
    """The arrays of what an editor carries, by where they are in it."""
    found, _ = jax.tree_util.tree_flatten_with_path(carried)
    return {f"editor{jax.tree_util.keystr(path)}": leaf for path, leaf in found}


def append_event(run: Run, *events: Event) -> Event:
    """Append lines to events.jsonl, all or none, after cutting off what an interruption may have left of an earlier
    one; returns the last."""
    path = run.folder / "events.jsonl"
    lines = [
        json.dumps({k: v for k, v in e.__dict__.items() if v not in ("", False) or k == "seq"})
        for e in (*run.events(), *events)
    ]
    write_through(path, lambda part: part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8"))
    return events[-1]


def read_state(run: Run, last: int, like: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """The edited weights stored after `last` edits, float32, of the shapes of those that they are `like`, or of any."""
    stored = _state(run, last)
    for tensor in run.tensors:
        found, shape = stored.get(tensor), like[tensor].shape if like else None
        if found is None or found.ndim != 2 or found.dtype != np.float32 or found.shape != (shape or found.shape):
            of_shape = f" of shape {shape}" if shape else ""
            raise InputError(f"run {run.folder}: the state after {last} edits holds no {tensor}{of_shape} in float32")
    return {tensor: on_devices(stored[tensor]) for tensor in run.tensors}


def read_carried(run: Run, last: int, start: Any, as_stored: Callable[[Any], Any]) -> Any:
    """What the editor carried after `last` edits: what it carries at the `start`, with what was stored of it
    (`as_stored` is its `Editor.stored`; older runs stored all) written over its leading part."""
    stored, leaves, found = _state(run, last), _leaves(start), []
    for name, leaf in leaves.items():
        part, whole = stored.get(name), np.array(on_host(leaf))
        corner = tuple(map(slice, np.shape(part)))
        if part is None or part.dtype != whole.dtype or part.ndim != whole.ndim or whole[corner].shape != part.shape:
            raise InputError(f"run {run.folder}: the state after {last} edits holds no {name} of this editor")
        whole[corner] = part
        found.append(on_devices(whole))
    carried = jax.tree.unflatten(jax.tree.structure(start), found)
    for name, leaf in _leaves(as_stored(carried)).items():
        if stored[name].shape not in (leaf.shape, leaves[name].shape):
            raise InputError(f"run {run.folder}: the state after {last} edits holds another part of {name}")
    return carried


def _state(run: Run, last: int) -> dict[str, np.ndarray]:
    """The arrays of the state after the last event at so many edits; runs made before states had checksums have one
    file for both kinds of event."""
    event = next((event for event in reversed(run.events()) if event.last == last), Event(0, "edit", last, last))
    name = event.state_file if event.state else replace(event, kind="edit").state_file
    return read_arrays(run.folder / name, event.state)


def read_arrays(path: Path, expected: str = "") -> dict[str, np.ndarray]:
    """The arrays in a file of a run; InputError where it is damaged, or its checksum not the expected one."""
    try:
        if expected and sha256(path) != expected:
            raise InputError(f"run file {path}: its checksum is not the recorded one; the file was changed or damaged")
        with safe_open(path, framework="numpy") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"run file {path}: no such file") from None
    except (SafetensorError, TypeError, OSError) as error:
        raise InputError(f"run file {path}: not a whole safetensors file ({error})") from None


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
