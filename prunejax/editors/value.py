"""The value step: find the target value that makes the model say the new object at the subject's last token.

The delta that is optimised enters at one layer and one token, so only layers above that layer and tokens from the
subject's last on can change. Everything else is computed once: a full forward pass gives keys, current values, the
residual stream above the edit, and the attention keys and values of all earlier tokens, which the loop reads from a
cache.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from prunejax.models.decoder import Cache, Decoder, Overrides


@dataclass(frozen=True)
class ValueSettings:
    """Settings of the value step, under the names of design.md; `steps` counts loss evaluations, so one update fewer
    is made. `site` is what the target value replaces: the MLP's output ("value", ROME) or the residual stream after the
    layer ("residual", MEMIT)."""

    layer: int
    steps: int = 20
    lr: float = 0.5
    weight_decay: float = 0.5
    clamp: float = 4.0
    kl_factor: float = 0.0625
    stop_loss: float = 0.05
    site: str = "value"


class FactRows(NamedTuple):
    """One edit's rows: R contexts of the prompt with its target, then the row "{subject} is a" for the KL term.

    tokens, positions: int32 [R+1, T], position -1 on padding. subject_last: int32 [R+1], the column of the subject's
    last token. labels: int32 [G], the target's tokens, label_mask: bool [G]. label_offset: int32 [R, G], how many
    tokens after the subject's last each label is predicted. suffix: bool [S], its length is how many tokens from the
    subject's last on are recomputed in the loop; every label offset is below it.
    """

    tokens: Array
    positions: Array
    subject_last: Array
    labels: Array
    label_mask: Array
    label_offset: Array
    suffix: Array


class TargetValue(NamedTuple):
    """The target value and what its optimisation saw.

    value [d_model] = v0 + delta, with v0 what stands at `site` in the bare prompt; keys [R, d_ff], and values [R,
    d_model], what stands at `site`, at the subject's last token of every context before the edit; losses [steps] in
    nats, NaN after the stop; probability is exp(-NLL) of the target at the last evaluation.
    """

    value: Array
    delta: Array
    keys: Array
    values: Array
    losses: Array
    probability: Array


@partial(jax.jit, static_argnames=("settings",))
def target_value(decoder: Decoder, overrides: Overrides, rows: FactRows, settings: ValueSettings) -> TargetValue:
    """The target value z = v0 + delta of one request (ROME, Meng et al. 2022, eq. 4, with the released code's terms).
    Added to the MLP's output or to the residual stream, delta does the same to the model; v0 differs.

    delta minimises mean_context mean_token -log p(target) + kl_factor KL(edited || unedited) at the subject +
    weight_decay ||delta|| / ||v0||^2 by Adam, and is scaled back to ||delta|| <= clamp ||v0|| after every update. Stops
    early below `stop_loss` (total loss). A loss that is not finite stays in `losses`: the caller decides.
    """
    n_layers, layer = decoder.config.n_layers, settings.layer
    run = partial(decoder.run_layers, overrides=overrides)
    below = run(decoder.embed(rows.tokens, rows.positions), rows.positions, 0, layer).residual
    here = run(below, rows.positions, layer, layer + 1, taps=("key", settings.site))
    above = run(here.residual, rows.positions, layer + 1, n_layers)

    row = jnp.arange(rows.tokens.shape[0])
    keys, values = (here.taps[site][0][row, rows.subject_last] for site in ("key", settings.site))
    v0 = values[0]
    norm0 = jnp.linalg.norm(v0)

    width = rows.tokens.shape[1]
    columns = rows.subject_last[:, None] + jnp.arange(rows.suffix.shape[0])
    inside = columns < width
    columns = jnp.minimum(columns, width - 1)
    start = jnp.take_along_axis(here.residual, columns[..., None], axis=1)
    positions = jnp.where(inside, jnp.take_along_axis(rows.positions, columns, axis=1), -1)
    earlier = jnp.where(jnp.arange(width) < rows.subject_last[:, None], rows.positions, -1)
    cache = Cache(above.keys, above.values, earlier)
    unedited = jax.nn.log_softmax(decoder.unembed(above.residual[-1, rows.subject_last[-1]]))

    def loss_of(delta: Array) -> tuple[Array, Array]:
        shifted = start.at[:, 0].add(delta.astype(start.dtype))
        residual = run(shifted, positions, layer + 1, n_layers, cache=cache).residual
        predicted = jnp.take_along_axis(residual[:-1], rows.label_offset[..., None], axis=1)
        log_p = jax.nn.log_softmax(decoder.unembed(predicted))
        log_p = jnp.take_along_axis(log_p, rows.labels[None, :, None], axis=-1)[..., 0]
        nll = -jnp.mean(jnp.sum(log_p * rows.label_mask, axis=1) / jnp.sum(rows.label_mask))
        edited = jax.nn.log_softmax(decoder.unembed(residual[-1, 0]))
        kl = jnp.sum(jnp.exp(edited) * (edited - unedited))
        return nll + settings.kl_factor * kl + settings.weight_decay * safe_norm(delta) / norm0**2, nll

    adam = optax.adam(settings.lr)

    def evaluate(state: tuple) -> tuple:
        step, _, delta, moments, losses, _ = state
        (loss, nll), gradient = jax.value_and_grad(loss_of, has_aux=True)(delta)
        done = (loss < settings.stop_loss) | (step == settings.steps - 1)
        change, moved = adam.update(gradient, moments)
        clamped = clamp(optax.apply_updates(delta, change), settings.clamp * norm0)
        delta, moments = jax.tree.map(lambda new, old: jnp.where(done, old, new), (clamped, moved), (delta, moments))
        return step + 1, done, delta, moments, losses.at[step].set(loss), nll

    zero = jnp.zeros_like(v0)
    initial = (0, jnp.array(False), zero, adam.init(zero), jnp.full(settings.steps, jnp.nan), jnp.array(jnp.nan))
    *_, delta, _, losses, nll = jax.lax.while_loop(lambda state: ~state[1], evaluate, initial)
    return TargetValue(v0 + delta, delta, keys[:-1], values[:-1], losses, jnp.exp(-nll))


def loss_span(losses: Array) -> tuple[Array, Array, Array]:
    """The first and the last of `losses` [steps] that were evaluated, and how many were (NaN after the stop)."""
    evaluated = jnp.sum(jnp.isfinite(losses))
    return losses[0], losses[jnp.maximum(evaluated - 1, 0)], evaluated


def safe_norm(x: Array) -> Array:
    """||x||_2 with gradient 0 at x = 0."""
    square = jnp.sum(x**2)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def clamp(x: Array, radius: Array) -> Array:
    """x scaled back to norm `radius` when it is longer."""
    norm = jnp.linalg.norm(x)
    return jnp.where(norm > radius, x * (radius / norm), x)
