"""The run folder: everything a sequence of edits leaves behind, readable by anyone, resumable, and folded into any
state n."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prunejax.contexts import Contexts, as_contexts
from prunejax.errors import InputError
from prunejax.files import read_json, read_text, sha256, write_json, write_through
from prunejax.mesh import on_devices, on_host
from prunejax.requests import EditRequest, read_requests, write_requests
from prunejax.restraint import parse, restrain
from prunejax.spectra import sigma_max
from prunejax.update import LowRank, total

FREE = ("versions", "device")
"""Entries of run.json that may differ when a run is taken up again: they are reported, not part of what the run is."""


@dataclass(frozen=True)
class Event:
    """A line of events.jsonl: edits first..last (counted from 1) in a file of factors, or a restraint after `last`
    edits."""

    seq: int
    kind: str
    first: int
    last: int
    file: str = ""
    sha256: str = ""
    restraint: str = ""
    raw: bool = False


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
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that are edited."""
        return tuple(self.facts["tensors"])


def create_run(folder: Path, facts: Mapping[str, Any], requests: Sequence[EditRequest], contexts: Contexts) -> Run:
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
    if folder.is_file():
        raise InputError(f"run {folder}: is a file, a folder was expected; choose another --out")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"run {folder}: the folder is not empty and holds no run.json; choose another --out")
    write_requests(folder / "requests.jsonl", requests)
    write_json(folder / "contexts.json", list(contexts))
    write_json(folder / "run.json", facts)
    return open_run(folder)


def open_run(folder: str | Path) -> Run:
    """The run in an existing folder."""
    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise InputError(f"run {folder}: no run.json in it; make a run with 'prunejax edit'")
    facts = read_json(folder / "run.json", "run")
    if not isinstance(facts, dict) or not isinstance(facts.get("tensors"), list):
        raise InputError(f"run {folder}/run.json: not a run's description")
    contexts = read_json(folder / "contexts.json", "contexts")
    return Run(folder, facts, read_requests(folder / "requests.jsonl"), as_contexts(contexts))


def record_chunk(
    run: Run, first: int, last: int, updates: Sequence[Mapping[str, LowRank]], weights: Mapping[str, Array]
) -> Event:
    """Write the factors of edits first..last and the edited weights after them; the event line comes last and makes
    them count."""
    arrays = {}
    for tensor in run.tensors:
        joined = total([update[tensor] for update in updates])
        arrays[f"{tensor}.left"] = np.ascontiguousarray(on_host(joined.left).T)
        arrays[f"{tensor}.right"] = on_host(joined.right)
    file = f"updates/{first:06d}-{last:06d}.safetensors"
    path = write_through(run.folder / file, lambda part: save_file(arrays, part))
    record_state(run, last, weights)
    return append_event(run, Event(len(run.events()), "edit", first, last, file, sha256(path)))


def record_state(run: Run, last: int, weights: Mapping[str, Array]) -> Path:
    """Write the edited weights after `last` edits, from which a run resumes to the bit."""
    state = {tensor: on_host(weight) for tensor, weight in weights.items()}
    return write_through(run.folder / f"state/{last:06d}.safetensors", lambda part: save_file(state, part))


def append_event(run: Run, event: Event) -> Event:
    """Append one line to events.jsonl, after cutting off what an interruption may have left of an earlier one."""
    path = run.folder / "events.jsonl"
    lines = [
        json.dumps({k: v for k, v in e.__dict__.items() if v not in ("", False) or k == "seq"})
        for e in (*run.events(), event)
    ]
    write_through(path, lambda part: part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8"))
    return event


def read_state(run: Run, last: int) -> dict[str, Array]:
    """The edited weights stored after `last` edits."""
    return {name: on_devices(array) for name, array in _arrays(run.folder / f"state/{last:06d}.safetensors").items()}


def accumulated(run: Run, n_edits: int, weights: Mapping[str, Array]) -> dict[str, LowRank]:
    """W_n - W_0 of every edited tensor after n edits. `weights` are the unedited W_0."""
    restrained = any(event.kind == "restrain" and event.last <= n_edits and not event.raw for event in run.events())
    m = {tensor: sigma_max(weights[tensor]) for tensor in run.tensors} if restrained else {}
    return next(accumulated_along(run, [n_edits], weights, m))


def accumulated_along(
    run: Run, counts: Sequence[int], weights: Mapping[str, Array], m: Mapping[str, float]
) -> Iterator[dict[str, LowRank]]:
    """W_n - W_0 of every edited tensor after each of the ascending `counts`: the fold over the events, gone through
    once. `weights` are the unedited W_0, `m` their sigma_max.

    A restraint during the run replaces what had accumulated by its restrained form, unless it was `raw`: then what
    accumulates stays unrestrained.
    """
    shapes = {tensor: weights[tensor].shape for tensor in run.tensors}
    sums = {
        t: LowRank(np.zeros((d, 0), np.float32), np.zeros((0, d_out), np.float32)) for t, (d, d_out) in shapes.items()
    }
    for done, n in pairwise([0, *counts]):
        if 0 <= n < done:
            raise ValueError(f"counts {list(counts)} do not ascend")
        if not 0 <= n <= run.n_edits:
            raise InputError(f"run {run.folder}: has {run.n_edits} edits, {n} were asked for")
        if n % run.facts["batch"] and n != run.n_edits:
            raise InputError(f"run {run.folder}: {n} edits end within a batch of {run.facts['batch']}")
        for event in run.events():
            if event.kind == "edit" and event.first <= n and event.last > done:
                added = _edits(run, event, max(event.first, done + 1), min(event.last, n))
                sums = {t: _joined(update, added[t]) for t, update in sums.items()}
            elif event.kind == "restrain" and done < event.last <= n and not event.raw:
                restraint = parse(event.restraint)
                sums = {t: restrain(restraint, _on_devices(update), m[t]) for t, update in sums.items()}
        yield {t: _on_devices(update) for t, update in sums.items()}


def one_edit(run: Run, number: int) -> dict[str, LowRank]:
    """The update of the edit `number` (from 1) of every edited tensor."""
    for event in run.events():
        if event.kind == "edit" and event.first <= number <= event.last:
            return {t: _on_devices(update) for t, update in _edits(run, event, number, number).items()}
    raise InputError(f"run {run.folder}: has {run.n_edits} edits, edit {number} was asked for")


def _edits(run: Run, event: Event, first: int, last: int) -> dict[str, LowRank]:
    """The updates of edits first..last of one event, one after another, of every edited tensor, on this host."""
    arrays, edits, found = _arrays(run.folder / event.file, event.sha256), event.last - event.first + 1, {}
    for tensor in run.tensors:
        left, right = arrays[f"{tensor}.left"], arrays[f"{tensor}.right"]
        rank = len(left) // edits
        rows = slice((first - event.first) * rank, (last - event.first + 1) * rank)
        found[tensor] = LowRank(left[rows].T, right[rows])
    return found


def _joined(first: LowRank, second: LowRank) -> LowRank:
    """Their sum on this host, where no length of it has to be compiled for."""
    return LowRank(
        np.concatenate([on_host(first.left), second.left], axis=1),
        np.concatenate([on_host(first.right), second.right], axis=0),
    )


def _on_devices(update: LowRank) -> LowRank:
    return LowRank(on_devices(update.left), on_devices(update.right))


def _arrays(path: Path, expected: str = "") -> dict[str, np.ndarray]:
    try:
        if expected and sha256(path) != expected:
            raise InputError(f"run file {path}: its checksum is not the recorded one; the file was changed or damaged")
        with safe_open(path, framework="numpy") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"run file {path}: no such file") from None
    except SafetensorError as error:
        raise InputError(f"run file {path}: not a whole safetensors file ({error})") from None


def _events(path: Path) -> Iterator[Event]:
    text = read_text(path, "events")
    lines = text.split("\n")[:-1]  # what follows the last line end is a torn line, or nothing
    for number, line in enumerate(lines, 1):
        try:
            yield Event(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            raise InputError(f"events {path}: line {number} is not an event") from None
