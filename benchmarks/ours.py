"""prunejax's side: module-level functions that a side's process runs; what is loaded once stays in that process."""

from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.clock import timed
from benchmarks.recipe import Job, memit_contexts, requests_of, rome_contexts
from benchmarks.useful import Row, rows_of
from prunejax.editors.editor import Editor
from prunejax.editors.memit import MemitSettings, memit
from prunejax.editors.moments import load_moments
from prunejax.editors.rome import RomeSettings, rome
from prunejax.models.checkpoints import Model, load_model
from prunejax.models.config import DecoderConfig
from prunejax.update import apply


class Edit(NamedTuple):
    """Seconds of one step, and by layer the factors left [d_in, n] and right [n, d_out]."""

    seconds: float
    factors: list[tuple[np.ndarray, np.ndarray]]


class Loaded(NamedTuple):
    """A model with an editor that is ready to step. The edited kernels are laid over the model, as in a run.
    `preparing`: seconds that all requests took to become batches."""

    model: Model
    editor: Editor
    state: Any
    batches: list[Any]
    preparing: float


@cache
def loaded(job: Job, name: str, batch: int) -> Loaded:
    """The editor `name`, "rome" or "memit", of a job."""
    model = load_model(job.model, job.dtype)
    given = job.recipe._asdict()
    if name == "rome":
        del given["moment_weight"]
    editor = rome(RomeSettings(**given)) if name == "rome" else memit(MemitSettings(**given))
    contexts = rome_contexts() if name == "rome" else memit_contexts()
    moments = load_moments(job.moments) if job.recipe.second_moment == "corpus" else None
    laid = model.with_weights({tensor: model.weight(tensor) for tensor in editor.tensors(model)})
    preparing, batches = timed(lambda: editor.prepare(model, requests_of(job), contexts, batch))
    return Loaded(laid, editor, editor.init(model, moments, 1), batches, preparing)


def edit(job: Job, name: str, batch: int, number: int) -> Edit:
    """One step on the unedited model and the edited kernels that it makes. Its share of preparing is counted in."""
    ready = loaded(job, name, batch)
    kernels = {tensor: ready.model.weight(tensor) for tensor in ready.editor.tensors(ready.model)}

    def step() -> dict[str, Any]:
        with jax.default_matmul_precision("highest"):
            updates, *_ = ready.editor.step(ready.model, ready.state, ready.batches[number], jax.random.key(0))
            jax.block_until_ready([apply(kernel, updates[tensor]) for tensor, kernel in kernels.items()])
        return updates

    seconds, updates = timed(step)
    factors = [tuple(np.asarray(side, np.float32) for side in updates[tensor]) for tensor in kernels]
    return Edit(seconds + ready.preparing / len(ready.batches), factors)


def shapes(job: Job, name: str, batch: int) -> list[int]:
    """The number of the first batch of each shape: what has to run once so that everything is compiled."""
    firsts: dict[str, int] = {}
    for number, each in enumerate(loaded(job, name, batch).batches):
        firsts.setdefault(str(jax.tree.map(np.shape, each)), number)
    return list(firsts.values())


def sizes(job: Job, name: str, batch: int) -> tuple[DecoderConfig, list[list[Row]]]:
    """The decoder's sizes, and the rows of every request."""
    model = loaded(job, name, batch).model
    templates = rome_contexts() if name == "rome" else [t for group in memit_contexts() for t in group]
    return model.config, [rows_of(model.tokenizer, request, templates) for request in requests_of(job)]


def stack() -> str:
    """Versions of what computes here, and the device."""
    return f"jax {jax.__version__}, numpy {np.__version__}, {jax.devices()[0].device_kind}"
