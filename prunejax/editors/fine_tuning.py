"""FT-L and FT-M: gradient descent on the weight itself, within a box or without (Zhu et al. 2020; Meng et al. 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from prunejax.contexts import Contexts
from prunejax.editors.editor import Diagnostics, Editor, State
from prunejax.editors.moments import Moments
from prunejax.editors.settings import edited_tensors
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder, Overrides
from prunejax.models.packing import Reads
from prunejax.requests import EditRequest
from prunejax.tokens import pad_right, tokenize_completion
from prunejax.update import Dense


@dataclass(frozen=True)
class FineTuningSettings:
    """Settings of FT-L and FT-M; the defaults are FT-L's in the ROME release for GPT-2 XL. `box` bounds how far each
    element may go from where the edit found it (0: not at all), `steps` counts updates."""

    layers: tuple[int, ...] = (0,)
    steps: int = 25
    lr: float = 5e-4
    box: float = 5e-4
    stop_loss: float = 0.01

    def __post_init__(self) -> None:
        if list(self.layers) != sorted(set(self.layers)) or not self.layers:
            raise InputError(f"layers {list(self.layers)}: name each once, in order")
        if self.steps < 1 or self.lr <= 0 or min(self.box, self.stop_loss) < 0:
            raise InputError("steps must be at least 1, lr above 0, box and stop_loss not negative")

    @property
    def turns(self) -> int:
        """How often the loop of descent turns at most: once an update."""
        return self.steps


class Asked(NamedTuple):
    """n prompts with their targets: tokens and positions int32 [n, T] (-1 on padding); at which columns labels [n, C]
    are predicted, and what each weighs in its request's mean, 0 on padding."""

    tokens: Array
    positions: Array
    columns: Array
    labels: Array
    share: Array


def fine_tuning(settings: FineTuningSettings, *, forced: bool) -> Editor:
    """The editor dW = W_steps - W: Adam on the mean over requests of -log p(target), every element of W clipped to
    [W_0 - box, W_0 + box] after each update, until the loss is below `stop_loss`.

    FT-M (`forced`) predicts each token of the target from those before it. FT-L, as published, reads one distribution,
    behind the prompt, for all tokens of the target: it learns which tokens, not their order, and a target of several is
    never said. Nothing but the prompt is read: contexts and second moments do not matter.

    Misleads: "FT-L" on Llama has no box in any repository, which makes it another method (`box=0`).
    """

    def tensors(model: Model) -> tuple[str, ...]:
        return edited_tensors(model, settings.layers)

    def prepare(model: Model, requests: Sequence[EditRequest], contexts: Contexts, batch: int) -> list[Asked]:
        read = [tokenize_completion(model.tokenizer, r.full_prompt, r.target_new) for r in requests]
        width, most = max(len(r.ids) for r in read), max(len(r.ids) - r.answer_start for r in read)
        return [asked(read[start : start + batch], width, most, forced=forced) for start in range(0, len(read), batch)]

    def init(model: Model, moments: Moments | None, room: int) -> State:
        del moments, room
        tensors(model)
        return State(None)

    def step(model: Model, state: State, batch: Asked, rng: Any) -> tuple[dict[str, Dense], None, State, Diagnostics]:
        del rng  # nothing is drawn
        names = tensors(model)
        kernels = tuple(model.weight(tensor) for tensor in names)
        changes, diagnostics = tuned(model.decoder, model.overrides, kernels, batch, settings)
        return dict(zip(names, map(Dense, changes), strict=True)), None, state, diagnostics

    return Editor(tensors, prepare, init, step, summed=True)


def asked(read: Sequence[Any], width: int, most: int, *, forced: bool) -> Asked:
    """Completions as arrays of `width` columns and `most` labels."""
    tokens, positions = pad_right([one.ids for one in read], width)
    columns, labels = np.zeros((2, len(read), most), np.int32)
    share = np.zeros((len(read), most), np.float32)
    for row, one in enumerate(read):
        target = one.ids[one.answer_start :]
        places = range(one.answer_start - 1, one.answer_start - 1 + len(target))
        columns[row, : len(target)] = places if forced else one.answer_start - 1
        labels[row, : len(target)] = target
        share[row, : len(target)] = 1 / len(target)
    return Asked(tokens, positions, columns, labels, share)


class _Descent(NamedTuple):
    """After `step` updates: the kernels, Adam's moments, and the losses [steps + 1] seen so far, NaN beyond."""

    step: Array
    kernels: tuple[Array, ...]
    moments: optax.OptState
    losses: Array


@partial(jax.jit, static_argnames=("settings",))
def tuned(
    decoder: Decoder, overrides: Overrides, kernels: tuple[Array, ...], batch: Asked, settings: FineTuningSettings
) -> tuple[list[Array], dict[str, Array]]:
    """The change of each layer's down projection [d_ff, d_model], and diagnostics. Layers below the first that is
    edited run once. A change that is not finite is returned as zero and flagged `finite` false."""
    places, n_layers = [(layer, "down") for layer in settings.layers], decoder.config.n_layers
    embedded = decoder.embed(batch.tokens, batch.positions)
    below = decoder.run_layers(embedded, batch.positions, 0, places[0][0], overrides=overrides).residual

    def loss_of(edited: tuple[Array, ...]) -> Array:
        here = dict(overrides) | dict(zip(places, edited, strict=True))
        run = partial(decoder.run_layers, overrides=here, reads=Reads(batch.columns))
        log_p = jax.nn.log_softmax(decoder.unembed(run(below, batch.positions, places[0][0], n_layers).residual))
        said = jnp.take_along_axis(log_p, batch.labels[..., None], axis=-1)[..., 0]
        return -jnp.mean(jnp.sum(said * batch.share, axis=1))

    adam = optax.adam(settings.lr)

    def update(at: _Descent) -> _Descent:
        loss, gradient = jax.value_and_grad(loss_of)(at.kernels)
        change, moments = adam.update(gradient, at.moments)
        moved = optax.apply_updates(at.kernels, change)
        if settings.box:
            boxed = partial(jax.tree.map, lambda w, w_0: jnp.clip(w, w_0 - settings.box, w_0 + settings.box))
            moved = boxed(moved, kernels)
        done = loss < settings.stop_loss
        moved = jax.tree.map(lambda new, old: jnp.where(done, old, new), moved, at.kernels)
        return _Descent(at.step + 1, moved, moments, at.losses.at[at.step].set(loss))

    def goes_on(at: _Descent) -> Array:
        last = at.losses[jnp.maximum(at.step - 1, 0)]
        return (at.step < settings.steps) & ((at.step == 0) | ~(last < settings.stop_loss))

    begin = _Descent(jnp.int32(0), kernels, adam.init(kernels), jnp.full(settings.steps, jnp.nan))
    end = jax.lax.while_loop(goes_on, update, begin)
    changes = [new - old for new, old in zip(end.kernels, kernels, strict=True)]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(change)) for change in changes]))
    changes = [jnp.where(finite, change, 0.0) for change in changes]
    n = len(batch.tokens)
    diagnostics = {
        "loss_first": end.losses[0],
        "loss_last": end.losses[jnp.maximum(end.step - 1, 0)],
        "steps": end.step,
        # Of the batch as a whole, shared out so that squares add up.
        "update_norm": jnp.sqrt(sum(jnp.sum(change**2) for change in changes) / n),
        "finite": finite,
    }
    return changes, diagnostics
