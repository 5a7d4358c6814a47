"""Edits chunk by chunk into a run folder: each chunk is edited, written whole, and from then on it counts."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import Array
from tqdm import tqdm

from prunejax.course import Plan, end_of_chunk, restrains_after
from prunejax.diagnostics import each_edit, write_diagnostics, write_timing
from prunejax.editing import edit_batch
from prunejax.editors.editor import Diagnostics, Editor, State
from prunejax.fold import accumulated_along
from prunejax.models.checkpoints import Model
from prunejax.requests import EditRequest
from prunejax.restraint import restrained_weight
from prunejax.run import Event, Run, read_carried, read_state, record_chunk, record_event
from prunejax.schedule import Schedule
from prunejax.spectra import sigma_max
from prunejax.update import LowRank, Update, total

KEEP_STATE = 500
"""States after multiples of this many edits are kept, and the last one."""


def go_on(
    run: Run, editor: Editor, model: Model, plan: Plan, state: State, batches: Sequence[Any], until: int = 0
) -> None:
    """Edit what the run has not edited yet, or up to the end of the chunk that ends `until`; `state` is the editor's
    before its first edit."""
    during, requests = plan.during, run.requests
    until = until or len(requests)
    original = {tensor: model.weight(tensor) for tensor in run.tensors}
    m = {tensor: sigma_max(weight) for tensor, weight in original.items()} if during.schedule else {}
    done = run.n_edits
    weights = read_state(run, done) if done else original
    state = state._replace(carried=read_carried(run, done, state.carried)) if done else state
    if lacks_restraint(run, plan):
        weights = restrain_during(run, during.schedule, done, original, m, state.carried)
    key = jax.random.key(plan.seed)
    with (
        tqdm(total=len(requests), initial=done, desc=plan.editor, unit="edit") as progress,
        jax.default_matmul_precision("highest"),
    ):
        pending, started = None, time.perf_counter()
        while done < until:
            end = end_of_chunk(plan, done, len(requests), summed=editor.summed or during.mask is not None)
            chunk = Chunk(done, end, [], [], weights, state.carried)
            for first in range(done, end, plan.batch):
                batch, number = batches[first // plan.batch], min(plan.batch, end - first)
                one = jax.random.fold_in(key, first)
                weights, state, _, updates, noted = edit_batch(editor, model, weights, state, batch, one, during.mask)
                chunk.updates[:] = with_one_more(chunk.updates, updates)
                chunk.noted.append((noted, number))
            # Nothing waits for the device so far: the chunk before is written while it works on this one.
            if pending is not None:
                started = write_chunk(run, pending, requests, started, progress)
            pending, done = chunk._replace(weights=weights, carried=state.carried), end
            if done == until or restrains_after(plan, done):
                started, pending = write_chunk(run, pending, requests, started, progress), None
            if restrains_after(plan, done):
                weights = restrain_during(run, during.schedule, done, original, m, state.carried)


class Chunk(NamedTuple):
    """Edits done + 1 .. end as the device holds them: factors a batch or the sum of matrices, diagnostics a batch with
    the number of its edits, and the edited tensors and what the editor carries after the last."""

    done: int
    end: int
    updates: list[Mapping[str, Update]]
    noted: list[tuple[Diagnostics, int]]
    weights: Mapping[str, Array]
    carried: Any


def with_one_more(updates: list[Mapping[str, Update]], new: Mapping[str, Update]) -> list[Mapping[str, Update]]:
    """A chunk's updates with those of one more batch: matrices are summed, so that one of each tensor is held."""
    if not updates or all(isinstance(update, LowRank) for update in new.values()):
        return [*updates, new]
    return [{tensor: total([update, new[tensor]]) for tensor, update in updates[0].items()}]


def write_chunk(run: Run, chunk: Chunk, requests: Sequence[EditRequest], started: float, progress: tqdm) -> float:
    """Wait for a chunk and write all of it; returns when it was there, which is when the next one's time starts."""
    noted = [one for diagnostics, number in chunk.noted for one in each_edit(diagnostics, number)]
    weights = jax.block_until_ready(chunk.weights)
    here = time.perf_counter()
    write_diagnostics(run, chunk.done, requests, noted)
    record_chunk(run, chunk.done + 1, chunk.end, chunk.updates, weights, chunk.carried)
    write_timing(run, chunk.done + 1, chunk.end - chunk.done, here - started)
    forget_states(run, chunk.end)
    progress.update(chunk.end - chunk.done)
    return here


def lacks_restraint(run: Run, plan: Plan) -> bool:
    """Whether the run was cut between a chunk and its restraint."""
    events = run.events()
    return bool(events) and events[-1].kind == "edit" and restrains_after(plan, run.n_edits)


def restrain_during(
    run: Run,
    schedule: Schedule,
    done: int,
    original: Mapping[str, Array],
    m: Mapping[str, float],
    carried: Any,
) -> dict[str, Array]:
    """W_0 + F(accumulated) after `done` edits, written as an event of the run; never W_n + F. `m` is sigma_max of each
    W_0."""
    (sums,) = accumulated_along(run, [done], original, m)
    restrained = {t: restrained_weight(schedule.restraint, original[t], sums[t], m[t]) for t in sums}
    spec, raw = schedule.restraint.spec, schedule.raw
    record_event(run, Event(len(run.events()), "restrain", done, done, restraint=spec, raw=raw), restrained, carried)
    return restrained


def old_states(run: Run, last: int) -> list[Path]:
    """The states before those after `last` edits, but the ones that are kept."""
    paths = (run.folder / "state").glob("*.safetensors")
    return [path for path in paths if (n := int(path.stem[:6])) < last and n % KEEP_STATE]


def forget_states(run: Run, last: int) -> None:
    """Remove the states before `last` but those that are kept; an earlier, interrupted call may have left some."""
    for path in old_states(run, last):
        path.unlink()
