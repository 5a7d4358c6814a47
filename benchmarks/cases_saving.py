"""The case of saving: edits of the embedded world into a run folder, guarded or not, beside the same kept in memory."""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from benchmarks.clock import timed, times
from benchmarks.measurements import Measurement, distance, measurement
from benchmarks.ours import stack
from benchmarks.sides import Call, peak_mb
from prunejax.chunks import Chunk, Work, edit_until, nothing_after, write_chunk
from prunejax.course import Plan, end_of_chunk
from prunejax.editors import editor_row
from prunejax.holding import held
from prunejax.intervals import student
from prunejax.job import Job, read_job
from prunejax.run import create_run, open_run
from prunejax.sequence import describe, edit_sequence
from prunejax.stored import read_state
from prunejax.world.tasks import guard_text

TURNS, GUARDED_TURNS = 21, 7
"""How often each comparison is made; whichever was first is last the next time."""

GUARD = "stop@10,perplexity=1e9"
"""It finds nothing: 300 edits by ROME would be stopped at 1.5."""


class Turn(NamedTuple):
    """Seconds of the same edits done in a way and in a plainer one, and how far what they end with differs."""

    one: float
    plainer: float
    difference: float


@cache
def job_of(name: str, model: str, requests: str) -> Job:
    """What `prunejax edit` reads for an editor with its preset for the world."""
    words = {"preset": "world", "settings": (), "moments": None, "contexts": None, "seed": 0, "dtype": "float32"}
    return read_job(name, model, requests, say=lambda _: None, **words)


def plan_of(job: Job, guard: str = "") -> Plan:
    """Its requests one by one."""
    return Plan(job.editor, job.settings, job.preset, source=job.source, guard=guard)


def kept(job: Job, write: Callable[[Work, Chunk], Any]) -> Iterator[Chunk]:
    """Chunk after chunk of a job, each once the device is done with it; while it works on one, the one before is given
    to `write`, as in a run, and at the end the last. Of itself it keeps them in memory."""
    plan, editor, model = plan_of(job), editor_row(job.editor).make(job.settings), job.model
    weights = {tensor: model.weight(tensor) for tensor in editor.tensors(model)}
    at = nothing_after(0, weights, editor.init(model, job.moments, len(job.requests)))
    work = Work(editor, model, plan, editor.prepare(model, job.requests, job.contexts, 1), jax.random.key(0))
    while at.end < len(job.requests):
        chunk = edit_until(work, at, end_of_chunk(plan, at.end, len(job.requests), summed=editor.summed))
        if at.end:
            write(work, at)
        at = jax.block_until_ready(chunk)
        yield at
    write(work, at)
    yield at


def saved(job: Job, folder: Path) -> Iterator[Chunk]:
    """The same into a new run folder: made, locked, and each chunk written as `prunejax edit` writes it."""
    tensors = editor_row(job.editor).make(job.settings).tensors(job.model)
    facts = describe(job.model, job.requests, plan_of(job), job.contexts, job.moments, tensors)
    with held(folder, "run"), tqdm(disable=True) as quiet:
        run = create_run(folder, facts, job.requests, job.contexts)
        yield from kept(job, lambda work, chunk: write_chunk(run, work, chunk, time.perf_counter(), quiet))


def side_by_side(job: Job) -> Turn:
    """Saved beside kept in memory, chunk by chunk in turn: what makes this machine slow for some seconds meets both."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, jax.default_matmul_precision("highest"):
        chunks: list[Chunk] = []
        ways = {"saved": saved(job, Path(folder) / "run"), "kept": kept(job, lambda _, chunk: chunks.append(chunk))}
        order, seconds, over = list(ways), dict.fromkeys(ways, 0.0), False
        while not over:
            for way in order:
                took, chunk = timed(partial(next, ways[way], None))
                seconds[way] += took
                over = chunk is None
            order.reverse()
        run = open_run(Path(folder) / "run")
        ends = read_state(run, run.n_edits)
        apart = max(distance(np.asarray(ends[t]), np.asarray(weight)) for t, weight in chunks[-1].weights.items())
    return Turn(seconds["saved"], seconds["kept"], apart)


def whole_run(job: Job, guard: str = "") -> dict[str, np.ndarray]:
    """The weights that a run into a new folder ends with, under a guard if one is given."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        rest = (job.contexts, job.moments, guard_text() if guard else ())
        run = edit_sequence(Path(folder) / "run", job.model, job.requests, plan_of(job, guard), *rest)
        return {tensor: np.asarray(weight) for tensor, weight in read_state(run, run.n_edits).items()}


def guarded(job: Job, number: int) -> Turn:
    """A run under a guard that finds nothing beside one without, each whole, in an order that the number says."""
    seconds, ends = {}, {}
    for guard in ("", GUARD)[:: -1 if number % 2 else 1]:
        seconds[guard], ends[guard] = timed(partial(whole_run, job, guard))
    apart = max(distance(weight, ends[""][tensor]) for tensor, weight in ends[GUARD].items())
    return Turn(seconds[GUARD], seconds[""], apart)


def turns(name: str, model: str, requests: str) -> tuple[list[Turn], list[Turn]]:
    """The turns of saving and those of the guard, after one of each that compiles and is not counted."""
    job = job_of(name, model, requests)
    saving = [side_by_side(job) for _ in range(TURNS + 1)]
    return saving[1:], [guarded(job, number) for number in range(GUARDED_TURNS + 1)][1:]


def saving_case(me: Call, name: str, model: str, requests: str, cores: int) -> list[Measurement]:
    """One editor: saved beside kept in memory, and guarded beside saved. The ratio is the mean over turns, and the unit
    names its 95% t interval: single turns scatter by several percent."""
    saving, guarding = me(turns, name, model, requests)
    facts = {"cores": cores, "versions": me(stack), "peak_mb": me(peak_mb)}
    rows = [measurement("saving", f"{name} in memory", requests, times([turn.plainer for turn in saving]), **facts)]
    for side, found in ((name, saving), (f"{name} guarded every ten", guarding)):
        ratio = student([turn.one / turn.plainer for turn in found])
        unit = f"{requests} one by one (ratio {ratio.lo:.3f} to {ratio.hi:.3f})"
        apart = max(turn.difference for turn in found)
        seconds = times([turn.one for turn in found])
        rows.append(measurement("saving", side, unit, seconds, ratio=ratio.mean, difference=apart, **facts))
    return rows
