"""A chunk of edits: made on the device, then written whole into the run folder, from when on it counts."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from tqdm import tqdm

from prunejax.course import Plan
from prunejax.diagnostics import columns, write_diagnostics, write_timing
from prunejax.editing import edit_batch
from prunejax.editors.editor import Diagnostics, Editor, State
from prunejax.models.checkpoints import Model
from prunejax.run import Run
from prunejax.stored import record_chunk
from prunejax.update import LowRank, Update, total

KEEP_STATE = 500
"""States after multiples of this many edits are kept, and the last one."""


class Work(NamedTuple):
    """What chunks of a run are edited by: the editor, the unedited model, the plan, the batches of requests, and the
    random key of the run."""

    editor: Editor
    model: Model
    plan: Plan
    batches: Sequence[Any]
    key: Array


class Chunk(NamedTuple):
    """Edits done + 1 .. end as the device holds them: factors a batch or the sum of matrices, diagnostics a batch with
    the number of its edits, and the edited tensors and the editor's state after the last."""

    done: int
    end: int
    updates: list[Mapping[str, Update]]
    noted: list[tuple[Diagnostics, int]]
    weights: Mapping[str, Array]
    state: State

    @property
    def diagnostics(self) -> dict[str, np.ndarray]:
        """Those of each edit, [edits] of each name."""
        return columns(self.noted)


def nothing_after(done: int, weights: Mapping[str, Array], state: State) -> Chunk:
    """The chunk of no edits that the next one starts from."""
    return Chunk(done, done, [], [], weights, state)


def edit_until(work: Work, before: Chunk, end: int) -> Chunk:
    """The chunk from the end of `before` on. Nothing waits for the device."""
    mask, size = work.plan.during.mask, work.plan.batch
    chunk = nothing_after(before.end, before.weights, before.state)
    for first in range(before.end, end, size):
        key, model, weights = jax.random.fold_in(work.key, first), work.model, chunk.weights
        edited = edit_batch(work.editor, model, weights, chunk.state, work.batches[first // size], key, mask)
        last = min(first + size, end)
        one = Chunk(first, last, [edited.updates], [(edited.diagnostics, last - first)], edited.weights, edited.state)
        chunk = joined(chunk, one)
    return chunk


def joined(chunk: Chunk, one: Chunk) -> Chunk:
    """A chunk and the one after it as one: of updates that are matrices the sum, so that one of each tensor is held."""
    updates = [*chunk.updates, *one.updates]
    if chunk.updates and not all(isinstance(update, LowRank) for update in one.updates[0].values()):
        updates = [{tensor: total([of[tensor] for of in updates]) for tensor in updates[0]}]
    return one._replace(done=chunk.done, updates=updates, noted=[*chunk.noted, *one.noted])


def record_edits(run: Run, work: Work, chunk: Chunk) -> None:
    """The event of a chunk, with its updates and the state after it."""
    carried = work.editor.stored(chunk.state.carried)
    record_chunk(run, chunk.done + 1, chunk.end, chunk.updates, chunk.weights, carried)


def write_chunk(
    run: Run,
    work: Work,
    chunk: Chunk,
    started: float,
    progress: tqdm,
    record: Callable[[Run, Work, Chunk], None] = record_edits,
) -> float:
    """Wait for a chunk and write all of it, its event by `record`; returns when it was there, which is when the next
    one's time starts."""
    noted, chunk = chunk.diagnostics, chunk._replace(weights=jax.block_until_ready(chunk.weights))
    here = time.perf_counter()
    write_diagnostics(run, chunk.done, noted)
    record(run, work, chunk)
    write_timing(run, chunk.done + 1, chunk.end - chunk.done, here - started)
    forget_states(run, chunk.end)
    progress.update(chunk.end - chunk.done)
    return here


def old_states(run: Run, last: int) -> list[Path]:
    """The states before those after `last` edits, but the ones that are kept."""
    paths = (run.folder / "state").glob("*.safetensors")
    return [path for path in paths if (n := int(path.stem[:6])) < last and n % KEEP_STATE]


def forget_states(run: Run, last: int) -> None:
    """Remove the states before `last` but those that are kept; an earlier, interrupted call may have left some."""
    for path in old_states(run, last):
        path.unlink()
