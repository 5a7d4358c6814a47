"""The case of saving: edits of the embedded world into a run folder, guarded or not, beside the same kept in memory."""

import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.clock import timed, times
from benchmarks.measurements import Measurement, distance, measurement
from benchmarks.ours import stack
from benchmarks.sides import Call, peak_mb
from prunejax.course import CHUNK, Plan
from prunejax.editing import edit_batch
from prunejax.editors import editor_row
from prunejax.intervals import student
from prunejax.job import Job, read_job
from prunejax.run import read_state
from prunejax.sequence import edit_sequence
from prunejax.world.tasks import guard_text

TURNS = 9
"""How often each way is timed; whichever was first in one turn is last in the next."""

GUARD = "stop@10,perplexity=1e9"
"""It finds nothing: 300 edits by ROME would be stopped at 1.5."""


class Turn(NamedTuple):
    """Seconds of the same edits saved, kept in memory, and saved under a guard that finds nothing, and how far what
    they end with differs."""

    saved: float
    kept: float
    guarded: float
    difference: float


@cache
def job_of(name: str, model: str, requests: str) -> Job:
    """What `prunejax edit` reads for an editor with its preset for the world."""
    words = {"preset": "world", "settings": (), "moments": None, "contexts": None, "seed": 0, "dtype": "float32"}
    return read_job(name, model, requests, say=lambda _: None, **words)


def kept_in_memory(job: Job) -> dict[str, np.ndarray]:
    """The edited weights after all requests, one by one, by the loop of a run without its folder: the device is given
    a chunk while it works on the one before."""
    editor, model = editor_row(job.editor).make(job.settings), job.model
    state = editor.init(model, job.moments, len(job.requests))
    batches = editor.prepare(model, job.requests, job.contexts, 1)
    weights = {tensor: model.weight(tensor) for tensor in editor.tensors(model)}
    key, chunks = jax.random.key(0), []
    with jax.default_matmul_precision("highest"):
        for first in range(0, len(batches), CHUNK):
            made = []
            for number, batch in enumerate(batches[first : first + CHUNK], first):
                one = jax.random.fold_in(key, number)
                weights, state, _, updates, noted = edit_batch(editor, model, weights, state, batch, one)
                made.append((updates, noted))
            jax.block_until_ready(chunks[-1:])
            chunks.append((weights, state.carried, made))
        jax.block_until_ready(chunks)
    return {tensor: np.asarray(weight) for tensor, weight in weights.items()}


def saved(job: Job, guard: str = "") -> dict[str, np.ndarray]:
    """The same, by a run into a new folder, which is read back; under a guard, if one is given."""
    plan, text = Plan(job.editor, job.settings, job.preset, source=job.source, guard=guard), guard_text()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run = edit_sequence(Path(folder) / "run", job.model, job.requests, plan, job.contexts, job.moments, text)
        return {tensor: np.asarray(weight) for tensor, weight in read_state(run, run.n_edits).items()}


def guarded(job: Job) -> dict[str, np.ndarray]:
    """`saved`, with a look at the model every ten edits."""
    return saved(job, GUARD)


def turns(name: str, model: str, requests: str, n: int) -> list[Turn]:
    """n turns of all ways, after one of each that compiles and is not counted."""
    job, found = job_of(name, model, requests), []
    for number in range(-1, n):
        ways = [saved, kept_in_memory, guarded][:: -1 if number % 2 else 1]
        seconds, weights = zip(*(timed(lambda way=way: way(job)) for way in ways), strict=True)
        took, ends = dict(zip(ways, seconds, strict=True)), dict(zip(ways, weights, strict=True))
        held = ends[kept_in_memory]
        apart = max(distance(ends[way][tensor], held[tensor]) for tensor in held for way in (saved, guarded))
        found.append(Turn(took[saved], took[kept_in_memory], took[guarded], apart))
    return found[1:]


def saving_case(me: Call, name: str, model: str, requests: str, cores: int) -> list[Measurement]:
    """One editor: saved beside kept in memory, and guarded beside saved. The ratio is the mean over turns, and the unit
    names its 95% t interval: single turns scatter by several percent."""
    found = me(turns, name, model, requests, TURNS)
    facts = {"cores": cores, "versions": me(stack), "peak_mb": me(peak_mb)}
    pairs = [(name, "saved", "kept"), (f"{name} guarded every ten", "guarded", "saved")]
    rows = [measurement("saving", f"{name} in memory", requests, times([turn.kept for turn in found]), **facts)]
    for side, one, other in pairs:
        seconds = [getattr(turn, one) for turn in found]
        ratio = student([getattr(turn, one) / getattr(turn, other) for turn in found])
        unit = f"{requests} one by one (ratio {ratio.lo:.3f} to {ratio.hi:.3f})"
        apart = max(turn.difference for turn in found)
        rows.append(measurement("saving", side, unit, times(seconds), ratio=ratio.mean, difference=apart, **facts))
    return rows
