"""The gradient of an edit's loss in its own factors: what a linear layer read times what the loss says of what it
wrote."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from prunejax.editors.hypernetwork import Place
from prunejax.errors import InputError
from prunejax.models.decoder import Decoder, Overrides
from prunejax.tokens import CompletionTokens, pad_right


class Lines(NamedTuple):
    """Texts of which an ending is learned: tokens, positions int32 [B, T] (-1 on padding), learned bool [B, T]: which
    tokens are part of it."""

    tokens: Array
    positions: Array
    learned: Array


def lines(completions: Sequence[CompletionTokens], width: int) -> Lines:
    """Prompts with their answers, which are learned, padded to `width`."""
    if (longest := max(len(completion.ids) for completion in completions)) > width:
        raise InputError(f"requests: a prompt with its target has {longest} tokens, {width} were foreseen")
    tokens, positions = pad_right([completion.ids for completion in completions], width)
    starts = np.array([completion.answer_start for completion in completions])[:, None]
    return Lines(tokens, positions, (np.arange(width) >= starts) & (positions >= 0))


def mean_nll(log_p: Array, rows: Lines) -> Array:
    """Mean over rows of the mean over learned tokens of -log p, in nats; `log_p` [B, T - 1, V] predicts the next."""
    said = jnp.take_along_axis(log_p, rows.tokens[:, 1:, None], axis=-1)[..., 0]
    learned = rows.learned[:, 1:]
    return -jnp.mean(jnp.sum(said * learned, axis=1) / jnp.sum(learned, axis=1))


def token_nll(log_p: Array, rows: Lines) -> Array:
    """Mean over all learned tokens of all rows of -log p, in nats."""
    said = jnp.take_along_axis(log_p, rows.tokens[:, 1:, None], axis=-1)[..., 0]
    learned = rows.learned[:, 1:]
    return -jnp.sum(said * learned) / jnp.sum(learned)


def log_probabilities(decoder: Decoder, overrides: Overrides, rows: Lines) -> Array:
    """log p of the next token [B, T - 1, V]."""
    tokens, positions = rows.tokens[:, :-1], rows.positions[:, :-1]
    run = partial(decoder.run_layers, overrides=overrides)
    residual = run(decoder.embed(tokens, positions), positions, 0, decoder.config.n_layers).residual
    return jax.nn.log_softmax(decoder.unembed(residual))


def gradient_factors(
    decoder: Decoder,
    overrides: Overrides,
    rows: Lines,
    places: Sequence[Place],
    nll: Callable[[Array, Lines], Array] = mean_nll,
) -> tuple[Array, Mapping[Place, tuple[Array, Array]]]:
    """The loss `nll` in nats, and of each place u [N, d_in] and delta [N, d_out], N = B (T - 1) tokens, so that the
    gradient of the loss with respect to the kernel is u^T delta = sum_i outer(u_i, delta_i)."""
    tokens, positions = rows.tokens[:, :-1], rows.positions[:, :-1]
    config = decoder.config
    widths = {"up": config.d_ff, "down": config.d_model}
    nothing = {place: jnp.zeros((*tokens.shape, widths[place[1]])) for place in places}

    def loss_of(added: Mapping[Place, Array]) -> tuple[Array, Mapping[str, Array]]:
        output = decoder.run_layers(
            decoder.embed(tokens, positions),
            positions,
            0,
            config.n_layers,
            taps=("up_input", "key"),
            overrides=overrides,
            added=added,
        )
        return nll(jax.nn.log_softmax(decoder.unembed(output.residual)), rows), output.taps

    (loss, taps), deltas = jax.value_and_grad(loss_of, has_aux=True)(nothing)
    read = {"up": taps["up_input"], "down": taps["key"]}
    flat = {
        (layer, kernel): tuple(
            part.reshape(-1, part.shape[-1]) for part in (read[kernel][layer], deltas[layer, kernel])
        )
        for layer, kernel in places
    }
    return loss, flat
