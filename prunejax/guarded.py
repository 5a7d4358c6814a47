"""A chunk under a guard: written if the model is whole after it; else the batch that broke the model is found, and the
run goes back behind it or stops."""

import sys
from functools import partial

import jax
from tqdm import tqdm

from prunejax.chunks import Chunk, Work, edit_until, joined, nothing_after, write_chunk
from prunejax.events import Event
from prunejax.guard import Guard, Look, broken
from prunejax.run import Run
from prunejax.stored import record_event, write_updates
from prunejax.watching import Watch, look_at, write_look


def guarded_chunk(
    run: Run, work: Work, watch: Watch, before: Chunk, chunk: Chunk, started: float, progress: tqdm
) -> tuple[Chunk, float]:
    """Look at the model after `chunk`, which follows `before`, and write what is to be kept; returns the chunk that the
    next one starts from, and when that one's time starts.

    Where the model is broken, the chunk is edited once more, with a look after every batch: the first batch past a
    threshold is the one. It is on record, with its update, and followed by the event of its rollback, after which
    weights and editor are as before it, or by that of the stop. The batches after it are edited anew.
    """
    look = seen(run, work, watch, chunk)
    if not broken(watch.guard, look):
        write_look(run, chunk.end, look)
        return chunk, write_chunk(run, work, chunk, started, progress)
    good, bad, look = narrowed(run, work, watch, before, chunk.end)
    alarm, back = broken(watch.guard, look), watch.guard.action == "rollback"
    if good.end > before.end:
        started = write_chunk(run, work, good, started, progress)
    write_look(run, bad.end, look, alarm)
    started = write_chunk(
        *(run, work, bad, started, progress), partial(record_broken, guard=watch.guard, good=good, alarm=alarm)
    )
    said = "rolled back" if back else "stopped after"
    if not progress.disable:
        progress.write(f"{said} {name_edits(run, bad.done + 1, bad.end)}: {alarm}", file=sys.stderr)
    return nothing_after(bad.end, good.weights, good.state) if back else bad, started


def record_broken(run: Run, work: Work, bad: Chunk, guard: Guard, good: Chunk, alarm: str) -> None:
    """The events of a batch that broke the model, at once: its edits; their rollback, after which all is as after
    `good`, or the stop; and the stop after too many rollbacks in succession."""
    edit = write_updates(run, bad.done + 1, bad.end, bad.updates)
    back, place = guard.action == "rollback", (edit.first, edit.last)
    events = [edit, Event(edit.seq + 1, "rollback" if back else "stop", *place, reason=alarm)]
    if back and in_succession(run, edit.first) + 1 >= guard.most:
        reason = f"{guard.most} in succession were rolled back, the last for {alarm}"
        events.append(Event(edit.seq + 2, "stop", *place, reason=reason))
    stands = good if back else bad
    record_event(run, events[-1], stands.weights, work.editor.stored(stands.state.carried), after=events[:-1])


def seen(run: Run, work: Work, watch: Watch, chunk: Chunk) -> Look:
    """The look at the model after a chunk."""
    undone = run.rolled_back(chunk.done)
    kept = [number for number in range(chunk.end) if number + 1 not in undone]
    return look_at(watch, work.model, jax.block_until_ready(chunk.weights), kept, chunk.diagnostics)


def narrowed(run: Run, work: Work, watch: Watch, before: Chunk, end: int) -> tuple[Chunk, Chunk, Look]:
    """Of the edits from the end of `before` up to `end`, those before the first batch that breaks the model, that
    batch, and the look at it."""
    good = nothing_after(before.end, before.weights, before.state)
    while True:
        one = edit_until(work, good, min(good.end + work.plan.batch, end))
        look = seen(run, work, watch, one)
        if broken(watch.guard, look) or one.end == end:
            return good, one, look
        good = joined(good, one)


def in_succession(run: Run, first: int) -> int:
    """How many rollbacks lie, one after another, right before the edit `first`."""
    count = 0
    for event in reversed(run.events()):
        if event.kind == "rollback" and event.last == first - 1:
            first, count = event.first, count + 1
    return count


def name_edits(run: Run, first: int, last: int) -> str:
    """The edits first..last by number and fact."""
    facts = "; ".join(
        f"{request.full_prompt} -> {request.target_new} (case {request.case_id})"
        for request in run.requests[first - 1 : last][:3]
    )
    more = f" and {last - first - 2} more" * (last - first > 2)
    return f"edit{f' {first}' if first == last else f's {first} to {last}'}: {facts}{more}"
