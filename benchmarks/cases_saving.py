"""The case of saving: edits of the embedded world into a run folder beside the same edits kept in memory."""

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
from prunejax.job import Job, read_job
from prunejax.run import read_state
from prunejax.sequence import edit_sequence

TURNS = 7
"""How often each way is timed; whichever was first in one turn is second in the next."""


class Turn(NamedTuple):
    """Seconds of the same edits saved and kept in memory, and how far what they end with differs."""

    saved: float
    kept: float
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


def saved(job: Job) -> dict[str, np.ndarray]:
    """The same, by a run into a new folder, which is read back."""
    plan = Plan(job.editor, job.settings, job.preset, source=job.source)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run = edit_sequence(Path(folder) / "run", job.model, job.requests, plan, job.contexts, job.moments)
        return {tensor: np.asarray(weight) for tensor, weight in read_state(run, run.n_edits).items()}


def turns(name: str, model: str, requests: str, n: int) -> list[Turn]:
    """n turns of both ways, after one of each that compiles and is not counted."""
    job, found = job_of(name, model, requests), []
    for number in range(-1, n):
        ways = [saved, kept_in_memory] if number % 2 else [kept_in_memory, saved]
        done = {way: timed(lambda way=way: way(job)) for way in ways}
        (seconds, stored), (bare, held) = done[saved], done[kept_in_memory]
        found.append(Turn(seconds, bare, max(distance(stored[tensor], held[tensor]) for tensor in held)))
    return found[1:]


def saving_case(me: Call, name: str, model: str, requests: str, cores: int) -> list[Measurement]:
    """One editor; the ratio is the median over turns, and the unit names the lowest and the highest."""
    found = me(turns, name, model, requests, TURNS)
    ratios = [turn.saved / turn.kept for turn in found]
    facts = {"cores": cores, "versions": me(stack), "peak_mb": me(peak_mb)}
    spread = f"{requests} one by one (ratio {min(ratios):.3f} to {max(ratios):.3f})"
    numbers = {"ratio": float(np.median(ratios)), "difference": max(turn.difference for turn in found)}
    return [
        measurement("saving", name, spread, times([turn.saved for turn in found]), **numbers, **facts),
        measurement("saving", f"{name} in memory", requests, times([turn.kept for turn in found]), **facts),
    ]
