"""edit_sequence: requests -> updates -> a run folder, chunk by chunk, on weights that carry every earlier edit."""

import io
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from jax import Array
from tqdm import tqdm

from prunejax.contexts import Contexts, contexts_digest, templates_of
from prunejax.editors import editor_row
from prunejax.editors.editor import Diagnostics
from prunejax.editors.moments import Moments
from prunejax.errors import InputError
from prunejax.files import write_atomic
from prunejax.mesh import device_words, on_host
from prunejax.models.checkpoints import Model
from prunejax.requests import EditRequest, digest
from prunejax.restraint import restrained_weight
from prunejax.run import Event, Run, accumulated_along, append_event, create_run, read_state, record_chunk, record_state
from prunejax.schedule import Schedule
from prunejax.spectra import sigma_max
from prunejax.update import LowRank, apply

CHUNK = 50
"""Edits between two writes; with a restraint every t edits, a chunk ends there too."""

KEEP_STATE = 500
"""States after multiples of this many edits are kept, and the last one."""


@dataclass(frozen=True)
class Plan:
    """What a run does, apart from its model and requests: editor, settings, where they come from, restraint during
    the run, seed, how many requests are edited at once."""

    editor: str
    settings: Any
    preset: str = "default"
    schedule: Schedule | None = None
    restrain: str = ""
    seed: int = 0
    source: str = ""
    batch: int = 1


def edit_sequence(
    folder: str | Path,
    model: Model,
    requests: Sequence[EditRequest],
    plan: Plan,
    contexts: Contexts,
    moments: Moments | None = None,
) -> Run:
    """Edit `requests` one after another, each on the weights that the earlier ones left, into the run folder; returns
    the run.

    A folder that holds the same run unfinished is taken up after its last whole chunk, to the bit; the same run
    finished returns at once. The model is not changed. The edited tensors are held dense in float32; the factors are
    the log.

    The device is given a chunk of edits at once, and works on it while the chunk before is written.
    """
    editor = editor_row(plan.editor).make(plan.settings)
    tensors = editor.tensors(model)
    state = editor.init(model, moments)
    batches = editor.prepare(model, requests, contexts, plan.batch)
    facts = describe(model, requests, plan, contexts, moments, tensors) | (
        {"inputs": dict(editor.inputs)} if editor.inputs else {}
    )
    run = create_run(Path(folder), facts, requests, contexts)
    original = {tensor: model.weight(tensor) for tensor in tensors}
    m = {tensor: sigma_max(weight) for tensor, weight in original.items()} if plan.schedule else {}
    done = run.n_edits
    weights = read_state(run, done) if done else original
    step = chunk_of(plan)
    if plan.schedule and done and done % step == 0 and run.events()[-1].kind == "edit":
        weights = restrain_during(run, plan.schedule, done, original, m)  # the run was cut before this restraint
    key = jax.random.key(plan.seed)
    with (
        tqdm(total=len(requests), initial=done, desc=plan.editor, unit="edit") as progress,
        jax.default_matmul_precision("highest"),
    ):
        pending, started = None, time.perf_counter()
        while done < len(requests):
            end = min(done - done % step + step, len(requests))
            chunk = Chunk(done, end, [], [], weights)
            for first in range(done, end, plan.batch):
                edited = model.with_weights(weights)
                batch, number = batches[first // plan.batch], min(plan.batch, end - first)
                updates, _, state, diagnostics = editor.step(edited, state, batch, jax.random.fold_in(key, first))
                weights = {tensor: apply(weights[tensor], updates[tensor]) for tensor in tensors}
                chunk.updates.append(updates)
                chunk.noted.append((diagnostics, number))
            # Nothing waits for the device so far: the chunk before is written while it works on this one.
            if pending is not None:
                started = write_chunk(run, pending, requests, started, progress)
            pending, done = chunk._replace(weights=weights), end
            if done == len(requests) or (plan.schedule and done % step == 0):
                started, pending = write_chunk(run, pending, requests, started, progress), None
            if plan.schedule and done % step == 0:
                weights = restrain_during(run, plan.schedule, done, original, m)
    return run


class Chunk(NamedTuple):
    """Edits done + 1 .. end as the device holds them: an update and diagnostics a batch, with the number of its edits,
    and the edited tensors after the last."""

    done: int
    end: int
    updates: list[Mapping[str, LowRank]]
    noted: list[tuple[Diagnostics, int]]
    weights: Mapping[str, Array]


def write_chunk(run: Run, chunk: Chunk, requests: Sequence[EditRequest], started: float, progress: tqdm) -> float:
    """Wait for a chunk and write all of it; returns when it was there, which is when the next one's time starts."""
    noted = [one for diagnostics, number in chunk.noted for one in each_edit(diagnostics, number)]
    weights = jax.block_until_ready(chunk.weights)
    here = time.perf_counter()
    write_diagnostics(run, chunk.done, requests, noted)
    record_chunk(run, chunk.done + 1, chunk.end, chunk.updates, weights)
    write_timing(run, chunk.done + 1, chunk.end - chunk.done, here - started)
    forget_states(run, chunk.end)
    progress.update(chunk.end - chunk.done)
    return here


def chunk_of(plan: Plan) -> int:
    """How many edits lie between two writes: whole batches, and a restraint during the run falls between them."""
    if plan.batch < 1:
        raise InputError(f"batch {plan.batch}: at least one request is edited at a time")
    if plan.schedule and plan.schedule.every % plan.batch:
        raise InputError(f"restraint every {plan.schedule.every} edits: falls within a batch of {plan.batch}")
    return plan.schedule.every if plan.schedule else max(CHUNK // plan.batch, 1) * plan.batch


def each_edit(diagnostics: Diagnostics, n: int) -> list[Diagnostics]:
    """The diagnostics of a batch as those of its n edits."""
    columns = {name: np.broadcast_to(on_host(value), (n,)) for name, value in diagnostics.items()}
    return [{name: column[i] for name, column in columns.items()} for i in range(n)]


def restrain_during(
    run: Run, schedule: Schedule, done: int, original: Mapping[str, Array], m: Mapping[str, float]
) -> dict[str, Array]:
    """W_0 + F(accumulated) after `done` edits, written as an event of the run; never W_n + F. `m` is sigma_max of each
    W_0."""
    (sums,) = accumulated_along(run, [done], original, m)
    restrained = {t: restrained_weight(schedule.restraint, original[t], sums[t], m[t]) for t in sums}
    record_state(run, done, restrained)
    append_event(
        run, Event(len(run.events()), "restrain", done, done, restraint=schedule.restraint.spec, raw=schedule.raw)
    )
    return restrained


def describe(
    model: Model,
    requests: Sequence[EditRequest],
    plan: Plan,
    contexts: Contexts,
    moments: Moments | None,
    tensors: Sequence[str],
) -> dict[str, Any]:
    """run.json: all that is needed to do the run again."""
    return {
        "editor": plan.editor,
        "preset": plan.preset,
        "settings": asdict(plan.settings),
        "restrain": plan.restrain,
        "seed": plan.seed,
        "batch": plan.batch,
        "chunk": chunk_of(plan),
        "tensors": list(tensors),
        "model": {"name": model.name, "sha256": model.sha256}
        | ({} if model.dtype == "float32" else {"dtype": model.dtype}),
        "requests": {"source": plan.source, "n": len(requests), "sha256": digest(requests)},
        "contexts": {"n": len(templates_of(contexts)), "sha256": contexts_digest(contexts)},
        "moments": moments.sha256 if moments else None,
        "versions": {name: version(name) for name in ("prunejax", "jax", "flax", "numpy")}
        | {"python": platform.python_version()},
        "device": device_words(),
    }


def write_diagnostics(run: Run, done: int, requests: Sequence[EditRequest], noted: Sequence[Diagnostics]) -> Path:
    """diagnostics.csv, one row an edit; rows beyond the last whole chunk are written anew."""
    rows = pd.DataFrame([{name: np.asarray(value).item() for name, value in row.items()} for row in noted])
    numbers = range(done + 1, done + 1 + len(noted))
    rows.insert(0, "edit", list(numbers))
    rows.insert(1, "case", [requests[number - 1].case_id for number in numbers])
    path, text = run.folder / "diagnostics.csv", rows.to_csv(index=False, float_format="%.9g")
    if done and path.exists():
        # Read as text, so that a case called 007 or NA keeps its name.
        old, new = (pd.read_csv(source, dtype=str, keep_default_na=False) for source in (path, io.StringIO(text)))
        text = pd.concat([old[old["edit"].astype(int) <= done], new]).to_csv(index=False)
    return write_atomic(path, text)


def write_timing(run: Run, first: int, edits: int, seconds: float) -> None:
    """timing.csv, one row a chunk, never compared: seconds from the end of the chunk before, writing and compilation
    included where the device waited for them."""
    path = run.folder / "timing.csv"
    row = pd.DataFrame(
        [
            {
                "first": first,
                "edits": edits,
                "seconds": round(seconds, 3),
                "host": platform.machine(),
                "cores": jax.device_count(),
            }
        ]
    )
    row.to_csv(path, mode="a", header=not path.exists(), index=False)


def forget_states(run: Run, last: int) -> None:
    """Remove the states before `last` but those that are kept; an earlier, interrupted call may have left some."""
    for path in (run.folder / "state").glob("*.safetensors"):
        if int(path.stem) < last and int(path.stem) % KEEP_STATE:
            path.unlink()
