"""The cases of editing: ROME edit by edit and a batch of MEMIT, both sides in turn on the same requests."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import ours, theirs
from benchmarks.clock import Times, times
from benchmarks.measurements import Measurement, distance, measurement
from benchmarks.rates import Reached, Work, jax_rate, reached, refuse_below, torch_rate
from benchmarks.recipe import Job, Recipe
from benchmarks.sides import Call, peak_mb
from benchmarks.useful import memit_work, rome_work
from benchmarks.whole import rome_whole, value_steps

BATCH = 32


class Extent(NamedTuple):
    """How much is timed: of ROME so many edits of ours and of PyTorch's, of MEMIT so many whole steps of ours, and so
    many of PyTorch's value steps."""

    rome_ours: int = 20
    rome_theirs: int = 5
    memit_ours: int = 3
    memit_theirs: int = 4


FULL = Extent(rome_theirs=20, memit_theirs=BATCH)


def rome_case(me: Call, pytorch: Call, job: Job, extent: Extent, cores: int) -> list[Measurement]:
    """ROME: the first requests one by one, each from the unedited model."""
    for number in me(ours.shapes, job, "rome", 1):
        if number < extent.rome_ours:
            me(ours.edit, job, "rome", 1, number)  # compiled, and its memory touched
    pytorch(theirs.rome_seconds, job._replace(recipe=job.recipe._replace(steps=2)), 0)
    mine, other, ratios, differences = [], [], [], []
    for number in range(extent.rome_ours):
        edit = me(ours.edit, job, "rome", 1, number)
        mine.append(edit.seconds)
        if number < extent.rome_theirs:
            seconds, u, v = pytorch(theirs.rome_seconds, job, number)
            other.append(seconds)
            ratios.append(seconds / edit.seconds)
            ((left, right),) = edit.factors
            differences.append(distance(left @ right, np.outer(u, v)))
    config, rows = me(ours.sizes, job, "rome", 1)
    useful = [rome_work(config, of_request, job.recipe) for of_request in rows[: extent.rome_ours]]
    done = [rome_whole(config, of_request, job.recipe) for of_request in rows[: extent.rome_theirs]]
    found, beside = times(mine), times(other)
    ran = reached(typical(done), rate_of(pytorch, torch_rate, job), np.mean(other))
    refuse_below("rome", ran.fraction)
    got = reached(typical(useful), rate_of(me, jax_rate, job), np.mean(mine))
    name = "rome" if job.device == "cpu" else f"rome-{job.dtype}"
    return [
        measurement(name, "prunejax", "edit", found, **about(me, ours.stack, cores, got)),
        measurement(
            name,
            "pytorch",
            "edit",
            beside,
            ratio=float(np.median(ratios)),
            difference=max(differences),
            **about(pytorch, theirs.stack, cores, ran),
        ),
    ]


def memit_case(me: Call, pytorch: Call, job: Job, extent: Extent, cores: int) -> list[Measurement]:
    """MEMIT: a batch of 32. PyTorch's time is that of its layers, which are solved for the whole batch, and 32 times
    that of a value step; deltas that it has not found itself are ours, so that all layers can be compared."""
    whole = me(ours.edit, job, "memit", BATCH, 0)  # compiled, and its memory touched
    pytorch(theirs.value_seconds, job._replace(recipe=job.recipe._replace(steps=2)), 0)
    mine, steps, deltas = [], [], len(job.recipe.layers) * whole.factors[0][1]
    for number in range(max(extent.memit_ours, extent.memit_theirs)):
        if number < extent.memit_ours:
            mine.append(me(ours.edit, job, "memit", BATCH, 0).seconds)
        if number < extent.memit_theirs:
            seconds, deltas[number] = pytorch(theirs.value_seconds, job, number)
            steps.append(seconds)
    spread, factors = pytorch(theirs.layers_seconds, job, deltas)
    pairs = zip(whole.factors, factors, strict=True)
    differences = [distance(left @ right, a @ b) for (left, right), (a, b) in pairs]
    own = len(job.recipe.layers) * whole.factors[0][1]
    differences += [distance(own[i], deltas[i]) for i in range(extent.memit_theirs)]
    config, rows = me(ours.sizes, job, "memit", BATCH)
    value, found = times(steps), times(mine)
    beside = Times(value.n, *(BATCH * seconds + spread for seconds in value[1:]))
    done = [value_steps(config, of_request, job.recipe, "residual") for of_request in rows[: extent.memit_theirs]]
    ran = reached(typical(done), rate_of(pytorch, torch_rate, job), np.mean(steps))
    refuse_below("memit", ran.fraction)
    got = reached(memit_work(config, rows[:BATCH], job.recipe), rate_of(me, jax_rate, job), np.mean(mine))
    name = "memit" if job.device == "cpu" else f"memit-{job.dtype}"
    return [
        measurement(name, "prunejax", f"batch of {BATCH}", found, **about(me, ours.stack, cores, got)),
        measurement(
            name,
            "pytorch",
            f"batch of {BATCH} ({value.n} value steps timed)",
            beside,
            ratio=beside.median / found.median,
            difference=max(differences),
            **about(pytorch, theirs.stack, cores, ran),
        ),
    ]


def cpu_job(folder: Path, name: str) -> Job:
    """The yardstick's job: layer 5 of 12 for ROME, and as many layers up to it as MEMIT's authors edit."""
    return Job(folder, Recipe((5,)) if name == "rome" else Recipe((1, 2, 3, 4, 5), clamp=0.75))


def gpu_job(folder: Path, name: str, dtype: str) -> Job:
    """The job at Llama-3-8B's shapes, with the settings of the PRUNE repository but EasyEdit's layer and C = I."""
    layers = (5,) if name == "rome" else (4, 5, 6, 7, 8)
    recipe = Recipe(layers, steps=25, weight_decay=1e-3, second_moment="identity", moment_weight=15_000.0)
    return Job(folder, recipe, "gpu", dtype)


def typical(works: list[list[Work]]) -> list[Work]:
    """The mean operations of several edits, in products as large as the median edit's."""
    return [
        Work(float(np.mean([w.flops for w in part])), tuple(int(m) for m in np.median([w.shape for w in part], axis=0)))
        for part in zip(*works, strict=True)
    ]


def rate_of(call: Call, rate: Callable[..., float], job: Job) -> Callable[[tuple[int, int, int]], float]:
    """A side's own rate of matrix products."""
    return lambda shape: call(rate, shape, job.dtype)


def about(call: Call, stack: Callable[[], str], cores: int, found: Reached) -> dict[str, float | int | str]:
    """What both sides' rows say of themselves."""
    return {**found._asdict(), "peak_mb": call(peak_mb), "cores": cores, "versions": call(stack)}
