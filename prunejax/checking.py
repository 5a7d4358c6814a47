"""Whether a run folder can be trusted: what it says of itself, file by file, and any chunk of it edited once more."""

import shutil
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from prunejax.contexts import contexts_digest
from prunejax.course import Plan
from prunejax.diagnostics import read_diagnostics
from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import Moments
from prunejax.errors import InputError
from prunejax.events import Event, append_events, tables_digest
from prunejax.fold import accumulated
from prunejax.models.checkpoints import Model
from prunejax.records import read_records
from prunejax.requests import digest
from prunejax.resume import go_on
from prunejax.run import GUARD_TEXT, Run, open_run
from prunejax.stored import read_arrays, read_state
from prunejax.update import dense
from prunejax.watching import read_looks, text_digest, watch_of

AGREES = 1e-3
"""How far, beside its norm, the sum of a run's updates may be from its stored state: float32 adds in another order."""


def problems(run: Run, model: Model | None = None) -> list[str]:
    """What is wrong with a run, a line each; none if all that it holds is whole, in order and as recorded.

    Checked are requests and contexts against their digests, the order of events, every file of updates and state
    (checksum, names, shapes, finite), diagnostics, a guard's looks, and records; with the model that it was made from,
    also that the stored state is W_0 and what accumulated.
    Misleads: a checksum tells damage and careless changes; whoever rewrites events.jsonl too is found by `redone`.
    """
    found: list[str] = []
    for look in (_described, _ordered, _states, _updates, _noted, _guarded, _recorded):
        try:
            found += look(run)
        except InputError as error:
            found += [] if str(error) in found else [str(error)]
    if model is not None and not found and run.n_edits:
        found += _folded(run, model)
    return found


def redone(run: Run, model: Model, moments: Moments | None, number: int) -> bool:
    """Whether chunk `number` (from 1), edited again from the last state before it that the run keeps, has the recorded
    bits, and the same is noted of its edits. They are those of one machine and versions; InputError for a chunk that is
    not on record."""
    edits = [event for event in run.events() if event.kind == "edit"]
    if not 1 <= number <= len(edits):
        raise InputError(f"run {run.folder}: has chunks 1 to {len(edits)}, {number} was asked for")
    wanted, facts = edits[number - 1], run.facts
    settings = settings_of(facts["editor"], facts["settings"])
    plan = Plan(
        *(facts["editor"], settings, facts["preset"], facts["restrain"], facts["seed"]),
        *(facts["requests"]["source"], facts["batch"], facts.get("guard", {}).get("spec", "")),
    )
    editor = editor_row(plan.editor).make(plan.settings)
    with tempfile.TemporaryDirectory() as folder:
        again = _until(run, wanted, Path(folder) / "run")
        state = editor.init(model, moments, len(run.requests))
        batches = editor.prepare(model, run.requests, run.contexts, plan.batch)
        watch = None
        if plan.guarded:
            watch = watch_of(plan.guarded, model, run.requests, run.tensors, run.guard_text)
        go_on(again, editor, model, plan, state, batches, watch, until=wanted.last)
        made = next(event for event in again.events() if event.file == wanted.file)
        noted = _rows(again, wanted) == _rows(run, wanted)
    return noted and (made.sha256, made.state) == (wanted.sha256, wanted.state or made.state)


def _rows(run: Run, event: Event) -> list[list[str]]:
    """What is noted of the edits of an event."""
    rows = read_diagnostics(run)
    return rows[rows["edit"].astype(int).between(event.first, event.last)].to_numpy().tolist()


def _until(run: Run, wanted: Event, folder: Path) -> Run:
    """A copy of a run that goes to the last event before `wanted` whose state is kept."""
    before = run.events()[: wanted.seq]
    while before and not (run.folder / before[-1].state_file).exists():
        before = before[:-1]
    names = ["run.json", "requests.jsonl", "contexts.json", *([GUARD_TEXT] if run.guard_text else [])]
    names += [*(event.file for event in before if event.file)]
    names += [event.state_file for event in before[-1:]]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(run.folder / name, folder / name)
    copy = open_run(folder)
    for event in before:
        append_events(copy.folder, event)
    return copy


def _described(run: Run) -> Iterator[str]:
    requests, contexts = run.facts["requests"], run.facts["contexts"]
    if (len(run.requests), digest(run.requests)) != (requests["n"], requests["sha256"]):
        yield f"{run.folder}/requests.jsonl: not the requests that run.json names"
    if contexts_digest(run.contexts) != contexts["sha256"]:
        yield f"{run.folder}/contexts.json: not the contexts that run.json names"
    if "guard" in run.facts and text_digest(run.guard_text) != run.facts["guard"]["text"]["sha256"]:
        yield f"{run.folder}/{GUARD_TEXT}: not the text that run.json names"


def _ordered(run: Run) -> Iterator[str]:
    events = run.events()
    start = Event(-1, "edit", 0, 0)
    for last, event in pairwise([start, *events]):
        follows = {
            "edit": event.first == last.last + 1 and last.kind != "stop",
            "restrain": event.first == event.last == last.last and last.kind in ("edit", "rollback"),
            "rollback": (event.first, event.last, "edit") == (last.first, last.last, last.kind),
            "stop": (event.first, event.last) == (last.first, last.last) and last.kind in ("edit", "rollback"),
        }
        if event.seq != last.seq + 1 or not follows.get(event.kind, False):
            yield f"{run.folder}/events.jsonl: line {event.seq + 1} does not follow the one before it"
    if run.n_edits > len(run.requests):
        yield f"{run.folder}/events.jsonl: {run.n_edits} edits of {len(run.requests)} requests"


def _updates(run: Run) -> Iterator[str]:
    shapes = {tensor: weight.shape for tensor, weight in read_state(run, run.n_edits).items()} if run.n_edits else {}
    events = [event for event in run.events() if event.kind == "edit"]
    for event in events:
        arrays, file = read_arrays(run.folder / event.file, event.sha256), f"{run.folder}/{event.file}"
        for tensor, (d_in, d_out) in shapes.items():
            left, right, whole = (arrays.pop(f"{tensor}.{part}", None) for part in ("left", "right", "dense"))
            fits = whole is not None and whole.shape == (d_in, d_out)
            if left is not None and right is not None:
                k = len(left) % (event.last - event.first + 1) == 0
                fits = k and (left.shape[1:], right.shape) == ((d_in,), (len(left), d_out))
            if not fits:
                yield f"{file}: holds no update of {tensor} for {event.last - event.first + 1} edits"
            elif not all(np.isfinite(part).all() for part in (left, right, whole) if part is not None):
                yield f"{file}: an update of {tensor} is not finite"
        if arrays:
            yield f"{file}: holds {next(iter(arrays))}, which the run does not edit"
    known = {event.file for event in events}
    for path in sorted((run.folder / "updates").glob("*")):
        if f"updates/{path.name}" not in known:
            yield f"{path}: no event names it (a run that was cut leaves one; the same edit again replaces it)"


def _states(run: Run) -> Iterator[str]:
    for event in run.events():
        path = run.folder / event.state_file
        if event.state and path.exists():
            arrays = read_arrays(path, event.state)
            if missing := set(run.tensors) - arrays.keys():
                yield f"{path}: holds no {min(missing)}"
            elif not all(np.isfinite(arrays[tensor]).all() for tensor in run.tensors):
                yield f"{path}: a weight is not finite"


def _noted(run: Run) -> Iterator[str]:
    path = run.folder / "diagnostics.csv"
    if not run.n_edits:
        return
    rows = read_diagnostics(run)[["edit", "case"]]
    wanted = [(str(n), request.case_id) for n, request in enumerate(run.requests[: run.n_edits], 1)]
    if list(rows.itertuples(index=False, name=None))[: run.n_edits] != wanted:
        yield f"{path}: its rows are not those of edits 1 to {run.n_edits}"
    for event in run.events():
        if event.tables and tables_digest(run.folder, event.last) != event.tables:
            yield f"{path}, or guard.csv: what is noted of edits 1 to {event.last} is not what was recorded"
            return


def _guarded(run: Run) -> Iterator[str]:
    path, ended = run.folder / "guard.csv", run.n_edits == len(run.requests) or run.stopped
    undone = {event.last for event in run.events() if event.kind in ("rollback", "stop")}
    if "guard" not in run.facts or not (ended or undone or path.exists()):
        return  # a run that was cut may lack its last look, or have one too many
    looks = read_looks(path)
    looks = looks[looks["edits"] <= run.n_edits]
    if set(looks.loc[looks["alarm"] != "", "edits"]) != undone or (ended and looks["edits"].max() != run.n_edits):
        yield f"{path}: its alarms are not those that events.jsonl names"


def _recorded(run: Run) -> list[str]:
    for path in sorted((run.folder / "records").glob("*.csv")):
        read_records(path)
    return []


def _folded(run: Run, model: Model) -> Iterator[str]:
    if any(event.raw for event in run.events()):
        return  # what accumulates is not what the edits were made on
    original = {tensor: model.weight(tensor) for tensor in run.tensors}
    stored = read_state(run, run.n_edits, original)
    for tensor, update in accumulated(run, run.n_edits, original).items():
        grown = np.asarray(stored[tensor], np.float64) - np.asarray(original[tensor], np.float64)
        away = np.linalg.norm(np.asarray(dense(update), np.float64) - grown)
        if not away <= AGREES * max(np.linalg.norm(grown), 1e-30):
            yield f"{run.folder}: {tensor} is not W_0 and what the updates add up to"
