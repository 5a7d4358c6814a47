"""The value step: find the target value that makes the model say the new object at the subject's last token.

The delta that is optimised enters at one layer and one token, so only layers above that layer and tokens from the
subject's last on can change. Everything else is computed once: of the tokens before the subject's last the attention
keys and values of every layer, of the others the residual stream after the edited layer. The loop computes what depends
on delta and is read: rows are packed, and of the last layer only tokens whose distribution is asked for are run.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from prunejax.editors.value_settings import ValueSettings
from prunejax.models.decoder import Decoder, Overrides
from prunejax.models.layer import Cache
from prunejax.models.opened import Opened
from prunejax.models.packing import Packing, Reads
from prunejax.models.vocabulary import logit_of, said


class Tokens(NamedTuple):
    """Packed rows: ids and positions int32 [N], position -1 on what stands in no row, and where they stand."""

    ids: Array
    positions: Array
    packing: Packing


class FactRows(NamedTuple):
    """The rows of n requests, B = n (R + 1) in all: of each its R contexts, then the row "{subject} is a" of the KL
    term.

    prefix: what stands before the subject's last token, suffix: what is read from it on. first: int32 [B], where each
    row's subject's last token stands in the suffix. reads: the C tokens of the suffix whose distribution is asked for:
    each that a label follows, and the subject's last of each KL row. labels: int32 [C]. share: float32 [n, C], what
    each label's negative log-likelihood weighs in its request's mean over contexts and tokens. tail: int32 [n], which
    of the C is the KL row's.
    """

    prefix: Tokens
    suffix: Tokens
    first: Array
    reads: Reads
    labels: Array
    share: Array
    tail: Array


class TargetValue(NamedTuple):
    """Target values of n requests and what their optimisation saw.

    value [n, d_model] = v0 + delta, with v0 what stands at the last of `sites` in the bare prompt; keys [n, R, d_ff],
    and values [n, R, d_model], what stands there, at the subject's last token of every context before the edit; losses
    [n, steps] in nats, NaN after the stop; probability [n] is exp(-NLL) of the target at the last evaluation.
    """

    value: Array
    delta: Array
    keys: Array
    values: Array
    losses: Array
    probability: Array


OPENED = 12
"""The edited layer and those above it are read out of the stack once a run, and not twice a step, if they are no more
than so many: of more, that would hold too much twice and take long to compile."""


def open_from(decoder: Decoder, layer: int) -> dict[int, Opened]:
    """The layers from `layer`, through which no gradient goes, on; none of them if they are more than OPENED."""
    n_layers, turned = decoder.config.n_layers, jax.default_backend() == "cpu"
    if n_layers - layer > OPENED:
        return {}
    return decoder.opened(layer, layer + 1) | decoder.opened(layer + 1, n_layers, turned=turned)


TIE = 1e-4
"""Nats by which a label's logit, summed up in another order, may lie under the largest one and still be it."""


class _Search(NamedTuple):
    """After `step` evaluations: which requests are done [n], their deltas [n, P, d_model] at P sites, Adam's moments,
    what was seen, for how many updates the target has been said in every context [n], and log p of the next token [n,
    V] at the KL rows of the unedited model, which the first evaluation finds."""

    step: Array
    done: Array
    delta: Array
    moments: optax.OptState
    losses: Array
    nll: Array
    held: Array
    unedited: Array


class _Seen(NamedTuple):
    """What one evaluation sees of n requests: loss, negative log-likelihood and KL in nats [n], whether the target is
    the arg-max at every label of every context [n], and what the KL compares with."""

    loss: Array
    nll: Array
    kl: Array
    said: Array
    unedited: Array


@partial(jax.jit, static_argnames=("settings",))
def target_values(
    decoder: Decoder,
    overrides: Overrides,
    rows: FactRows,
    settings: ValueSettings,
    opened: Mapping[int, Opened] | None = None,
) -> TargetValue:
    """The target values z = v0 + delta of n requests, each for itself (ROME, Meng et al. 2022, eq. 4, with the released
    code's terms). Added to the MLP's output or to the residual stream, delta does the same to the model; v0 differs.
    Of two sites, each has a delta and a v0 of its own, and the target value is that of the last.

    delta minimises mean_context mean_token -log p(target) + kl_factor KL(edited || unedited) at the subject +
    weight_decay ||delta|| / ||v0||^2 by Adam, and is scaled back to ||delta|| <= clamp ||v0|| after every update. When
    to stop early is up to the settings. A loss that is not finite stays in `losses`: the caller decides. `opened` are
    layers that are not to be read out of the stack again.
    """
    n_layers, layer, n = decoder.config.n_layers, settings.layer, rows.tail.shape[0]
    run = partial(decoder.run_layers, overrides=overrides)
    prefix, suffix = rows.prefix, rows.suffix
    in_suffix = {"positions": suffix.positions, "packing": suffix.packing}
    past = decoder.remember(
        decoder.embed(prefix.ids, prefix.positions),
        prefix.positions,
        0,
        n_layers,
        overrides=overrides,
        packing=prefix.packing,
        opened=opened,
    )

    def cache(start: int, stop: int) -> Cache:
        return Cache(past.keys[start:stop], past.values[start:stop], past.positions)

    below = run(decoder.embed(suffix.ids, suffix.positions), start=0, stop=layer, cache=cache(0, layer), **in_suffix)
    here = run(
        below.residual,
        start=layer,
        stop=layer + 1,
        cache=cache(layer, layer + 1),
        taps=("key", *settings.sites),
        opened=opened,
        **in_suffix,
    )
    tips = {site: here.taps[site][0][rows.first] for site in ("key", *settings.sites)}
    keys, *values = (tip.reshape(n, -1, tip.shape[-1])[:, :-1] for tip in tips.values())
    v0 = jnp.stack([value[:, 0] for value in values], axis=1)
    norm0, above = jnp.linalg.norm(v0, axis=-1), cache(layer + 1, n_layers)
    if all(number in (opened or {}) for number in range(layer + 1, n_layers)):
        above = above.parted()
    block = decoder.block(layer, overrides, opened)
    entering = below.residual[rows.first]

    def shift_of(delta: Array) -> Array:
        """What the deltas [n, P, d_model] add to the residual stream after the layer, [B, d_model]."""
        added = jnp.repeat(delta, rows.first.shape[0] // n, axis=0).astype(here.residual.dtype)
        if len(settings.sites) == 1 or decoder.config.parallel:
            return jnp.sum(added, axis=1)
        attended = entering + tips["attention"].astype(entering.dtype) + added[:, 0]
        value = block.feed_forward(block.ln_2(attended), {})["value"]
        return jnp.sum(added, axis=1) + value - tips["value"].astype(value.dtype)

    def loss_of(delta: Array, unedited: Array, step: Array) -> tuple[Array, _Seen]:
        asked = run(
            here.residual.at[rows.first].add(shift_of(delta)),
            start=layer + 1,
            stop=n_layers,
            cache=above,
            reads=rows.reads,
            opened=opened,
            **in_suffix,
        ).residual
        x, output = decoder.ln_f(asked), decoder.output()
        found = said(x, output, rows.tail, unedited)
        logit = logit_of(x, output, rows.labels)
        log_p = logit - found.normalizer
        # No product: what is not finite in one request must not reach the others as 0 times NaN.
        nll = -jnp.sum(jnp.where(rows.share > 0, rows.share * log_p, 0.0), axis=1)
        normalizer = found.normalizer[rows.tail]
        kl = jnp.where(step == 0, 0.0, found.cross - normalizer)  # the first evaluation is of the unedited model
        unedited = jnp.where(step == 0, jax.lax.stop_gradient(found.logits - normalizer[:, None]), unedited)
        decay = settings.weight_decay * jnp.sum(jax.vmap(jax.vmap(safe_norm))(delta) / norm0**2, axis=1)
        whole = jnp.all((logit >= found.top - TIE) | (rows.share == 0), axis=1)
        weight = jnp.where(whole, settings.said_weight, 1.0) if settings.said_weight != 1 else 1.0
        loss = weight * nll + settings.kl_factor * kl + decay
        return jnp.sum(loss), _Seen(loss, nll, kl, whole, unedited)

    adam = optax.adam(settings.lr)

    def noted(at: _Search, seen: _Seen) -> _Search:
        losses = at.losses.at[:, at.step].set(jnp.where(at.done, jnp.nan, seen.loss))
        return at._replace(losses=losses, nll=jnp.where(at.done, at.nll, seen.nll))

    def evaluate(at: _Search) -> _Search:
        (_, seen), gradient = jax.value_and_grad(loss_of, has_aux=True)(at.delta, at.unedited, at.step)
        at = noted(at, seen)
        held = jnp.where(seen.said | (at.held > 0), at.held + 1, 0)
        done = at.done | (seen.loss < settings.stop_loss)
        if settings.patience:
            done |= held > settings.patience
        if settings.stop_kl:
            done |= seen.said & (seen.kl <= settings.stop_kl)
        change, moments = adam.update(gradient, at.moments)
        moved = jax.vmap(jax.vmap(clamp))(optax.apply_updates(at.delta, change), settings.clamp * norm0)
        delta = jnp.where(done[:, None, None], at.delta, moved)
        return at._replace(step=at.step + 1, done=done, delta=delta, moments=moments, held=held, unedited=seen.unedited)

    def evaluate_last(at: _Search) -> _Search:
        return noted(at, loss_of(at.delta, at.unedited, at.step)[1])

    zero = jnp.zeros_like(v0)
    start = _Search(
        step=jnp.int32(0),
        done=jnp.zeros(n, bool),
        delta=zero,
        moments=adam.init(zero),
        losses=jnp.full((n, settings.steps), jnp.nan),
        nll=jnp.full(n, jnp.nan),
        held=jnp.zeros(n, jnp.int32),
        unedited=jnp.zeros((n, decoder.config.vocab_size)),
    )
    end = jax.lax.while_loop(lambda at: ~jnp.all(at.done) & (at.step < settings.steps - 1), evaluate, start)
    end = jax.lax.cond(jnp.all(end.done), lambda at: at, evaluate_last, end)
    delta = end.delta[:, -1]
    return TargetValue(v0[:, -1] + delta, delta, keys, values[-1], end.losses, jnp.exp(-end.nll))


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
