"""edit_sequence: requests -> updates -> a run folder, chunk by chunk, on weights that carry every earlier edit."""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import Array
from tqdm import tqdm

from prunejax.contexts import Contexts, contexts_digest, templates_of
from prunejax.diagnostics import each_edit, write_diagnostics, write_timing
from prunejax.editing import edit_batch
from prunejax.editors import editor_row
from prunejax.editors.editor import Diagnostics, Editor, State
from prunejax.editors.moments import Moments
from prunejax.editors.regimes import regime_of
from prunejax.errors import InputError
from prunejax.files import remove_parts
from prunejax.fold import accumulated_along
from prunejax.holding import held
from prunejax.mesh import device_words
from prunejax.models.checkpoints import Model
from prunejax.requests import EditRequest, digest
from prunejax.restraint import restrained_weight
from prunejax.run import Event, Run, check_place, create_run, read_carried, read_state, record_chunk, record_event
from prunejax.schedule import During, Schedule, parse_during
from prunejax.spectra import sigma_max
from prunejax.update import LowRank, Update, total

CHUNK = 50
"""Edits between two writes; with a restraint every t edits, a chunk ends there too."""

KEEP_STATE = 500
"""States after multiples of this many edits are kept, and the last one."""


@dataclass(frozen=True)
class Plan:
    """What a run does, apart from its model and requests: editor, settings, where they come from, what restrains it
    while it goes on (`schedule.parse_during`), seed, how many requests are edited at once."""

    editor: str
    settings: Any
    preset: str = "default"
    restrain: str = ""
    seed: int = 0
    source: str = ""
    batch: int = 1

    @property
    def during(self) -> During:
        """What `restrain` says."""
        return parse_during(self.restrain)


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

    A folder that holds the same run unfinished is taken up after its last whole chunk, to the bit, whatever cut it; the
    same run finished returns at once. InputError where another process writes into it. The model is not changed. The
    edited tensors are held dense in float32; the factors are the log.

    The device is given a chunk of edits at once, and works on it while the chunk before is written.
    """
    editor = editor_row(plan.editor).make(plan.settings)
    tensors = editor.tensors(model)
    check(plan, len(requests), tensors)
    state = editor.init(model, moments, len(requests))
    batches = editor.prepare(model, requests, contexts, plan.batch)
    facts = describe(model, requests, plan, contexts, moments, tensors) | (
        {"inputs": dict(editor.inputs)} if editor.inputs else {}
    )
    folder = Path(folder)
    if (folder / "run.json").exists():
        run = create_run(folder, facts, requests, contexts)
        if run.n_edits == len(requests) and not lacks_restraint(run, plan) and not old_states(run, len(requests)):
            return run  # nothing is to be written, nobody to be kept out
    else:
        check_place(folder, requests, contexts)
    with held(folder, "run"):
        remove_parts(folder)
        run = create_run(folder, facts, requests, contexts)
        go_on(run, editor, model, plan, state, batches)
        forget_states(run, len(requests))
    return run


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


def check(plan: Plan, n: int, tensors: Sequence[str]) -> None:
    """InputError for a regime that the editor has not, or a restraint with nothing to restrain."""
    row, during = editor_row(plan.editor), plan.during
    if refused := row.refused(regime_of(n, plan.batch)):
        raise InputError(f"batch {plan.batch}: {refused}")
    if during.spec and not tensors:
        raise InputError(f"restraint {during.spec!r}: {plan.editor} writes no weight that could be restrained")
    chunk_of(plan)


def chunk_of(plan: Plan) -> int:
    """How many edits lie between two writes: whole batches, and a restraint during the run falls between them."""
    if plan.batch < 1:
        raise InputError(f"batch {plan.batch}: at least one request is edited at a time")
    schedule = plan.during.schedule
    if schedule and schedule.every % plan.batch:
        raise InputError(f"restraint every {schedule.every} edits: falls within a batch of {plan.batch}")
    return schedule.every if schedule else max(CHUNK // plan.batch, 1) * plan.batch


def end_of_chunk(plan: Plan, done: int, n: int, *, summed: bool) -> int:
    """Where the chunk after `done` edits ends. Of sums of updates no count within a chunk can be had again, so these
    also end after 1, 2, 5, 10, 20 batches and so on."""
    step = chunk_of(plan)
    ends = [done - done % step + step, n]
    if summed:
        ends += [plan.batch * digit * 10**power for power in range(len(str(n))) for digit in (1, 2, 5)]
    return min(end for end in ends if end > done)


def restrains_after(plan: Plan, done: int) -> bool:
    """Whether the accumulated update is restrained after so many edits."""
    schedule = plan.during.schedule
    return schedule is not None and done % schedule.every == 0


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


def old_states(run: Run, last: int) -> list[Path]:
    """The states before those after `last` edits, but the ones that are kept."""
    paths = (run.folder / "state").glob("*.safetensors")
    return [path for path in paths if (n := int(path.stem[:6])) < last and n % KEEP_STATE]


def forget_states(run: Run, last: int) -> None:
    """Remove the states before `last` but those that are kept; an earlier, interrupted call may have left some."""
    for path in old_states(run, last):
        path.unlink()
