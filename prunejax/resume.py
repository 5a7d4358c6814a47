"""A run gone on with from where it is: chunk after chunk, restrained and guarded as its plan says."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax import Array
from tqdm import tqdm

from prunejax.chunks import Work, edit_until, nothing_after, write_chunk
from prunejax.course import Plan, end_of_chunk, restrains_after
from prunejax.editors.editor import Editor, State
from prunejax.events import Event
from prunejax.fold import accumulated_along
from prunejax.guarded import guarded_chunk
from prunejax.models.checkpoints import Model
from prunejax.restraint import restrained_weight
from prunejax.run import Run
from prunejax.schedule import Schedule
from prunejax.spectra import sigma_max
from prunejax.stored import read_carried, read_state, record_event
from prunejax.watching import Watch


def go_on(
    run: Run,
    editor: Editor,
    model: Model,
    plan: Plan,
    state: State,
    batches: Sequence[Any],
    watch: Watch | None = None,
    until: int = 0,
) -> None:
    """Edit what the run has not edited yet, or up to the end of the chunk that ends `until`, or until its guard, which
    watches, stops it; `state` is the editor's before its first edit."""
    schedule, n = plan.during.schedule, len(run.requests)
    until, summed = until or n, editor.summed or plan.during.mask is not None
    original = {tensor: model.weight(tensor) for tensor in run.tensors}
    m = {tensor: sigma_max(weight) for tensor, weight in original.items()} if schedule else {}
    done = run.n_edits
    weights = read_state(run, done, original) if done else original
    state = state._replace(carried=read_carried(run, done, state.carried, editor.stored)) if done else state
    if lacks_restraint(run, plan):
        weights = restrain_during(run, schedule, done, original, m, editor.stored(state.carried))
    work = Work(editor, model, plan, batches, jax.random.key(plan.seed))
    with (
        tqdm(total=n, initial=done, desc=plan.editor, unit="edit") as progress,
        jax.default_matmul_precision("highest"),
    ):
        at, pending, started = nothing_after(done, weights, state), None, time.perf_counter()
        while at.end < until and not run.stopped:
            chunk = edit_until(work, at, end_of_chunk(plan, at.end, n, summed=summed))
            # Nothing waits for the device so far: the chunk before is written while it works on this one.
            if pending is not None:
                started, pending = write_chunk(run, work, pending, started, progress), None
            if watch is not None:
                at, started = guarded_chunk(run, work, watch, at, chunk, started, progress)
            elif chunk.end == until or restrains_after(plan, chunk.end):
                at, started = chunk, write_chunk(run, work, chunk, started, progress)
            else:
                at = pending = chunk
            if restrains_after(plan, at.end) and not run.stopped:
                carried = editor.stored(at.state.carried)
                weights = restrain_during(run, schedule, at.end, original, m, carried)
                at = at._replace(weights=weights)


def lacks_restraint(run: Run, plan: Plan) -> bool:
    """Whether the run was cut between a chunk and its restraint."""
    events = run.events()
    return bool(events) and events[-1].kind in ("edit", "rollback") and restrains_after(plan, run.n_edits)


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
