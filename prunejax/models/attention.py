"""Attention: who sees whom, rotary positions, and the weighted mean.

Positions decide everything: token t sees token s exactly when 0 <= position_s <= position_t, and within the layer's
window if it has one. Padding has position -1, on whichever side it stands, and is never seen.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from prunejax.models.config import Rope


def visible(query_positions: Array, key_positions: Array, window: Array | int | None = None) -> Array:
    """The attention mask [B, T, S]: true where 0 <= key position <= query position < key position + window."""
    earlier = key_positions[:, None, :] <= query_positions[:, :, None]
    seen = earlier & (key_positions >= 0)[:, None, :]
    return seen if window is None else seen & (query_positions[:, :, None] - key_positions[:, None, :] < window)


class Seen(NamedTuple):
    """Attention keys and values [B, K, S, D] of some tokens, and a mask [B, T, S]: which of them each query sees."""

    keys: Array
    values: Array
    mask: Array


def attend(query: Array, seen: Sequence[Seen]) -> Array:
    """Softmax attention [B, H, T, D] of queries [B, H, T, D] over all tokens of all parts of `seen`, which are never
    joined: a cache is not copied to be read. Key head k serves the query heads k H/K .. (k+1) H/K - 1. The softmax is
    taken in float32."""
    rows, heads, tokens, width = query.shape
    served = query.reshape(rows, seen[0].keys.shape[1], -1, width)  # the T queries of each head a key head serves
    scores = [jnp.einsum("bkqd,bksd->bkqs", served, part.keys) / width**0.5 for part in seen]
    scores = [part.reshape(rows, heads, tokens, -1) for part in scores]
    weights = masked_softmax(
        jnp.concatenate(scores, axis=-1), jnp.concatenate([part.mask[:, None] for part in seen], axis=-1)
    ).reshape(*served.shape[:-1], -1)
    ends = list(accumulate(part.keys.shape[2] for part in seen))
    parts = zip(jnp.split(weights, ends[:-1], axis=-1), seen, strict=True)
    return sum(jnp.einsum("bkqs,bksd->bkqd", weight, part.values) for weight, part in parts).reshape(query.shape)


def masked_softmax(scores: Array, mask: Array) -> Array:
    """Weights over the last axis, 0 where the mask is false (uniform where all of a row is)."""
    floor = jnp.finfo(jnp.float32).min
    return jax.nn.softmax(jnp.where(mask, scores.astype(jnp.float32), floor), axis=-1).astype(scores.dtype)


def frequencies(rope: Rope) -> np.ndarray:
    """The angle by which one position turns each pair of dimensions, radians, float32 [width / 2]."""
    angle = 1.0 / rope.theta ** (np.arange(0, rope.width, 2, dtype=np.float64) / rope.width)
    if (s := rope.scaling) is not None:
        wavelength = 2 * math.pi / angle
        blend = np.clip((s.original / wavelength - s.low) / (s.high - s.low), 0.0, 1.0)
        angle = (1 - blend) * angle / s.factor + blend * angle
    return (angle / rope.divisor).astype(np.float32)


def rotation(rope: Rope, positions: Array) -> tuple[Array, Array]:
    """Cosine and sine [B, T, 1, width / 2] of the angles at `positions` [B, T]."""
    angles = positions[..., None, None].astype(jnp.float32) * frequencies(rope)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Array, turn: tuple[Array, Array], rope: Rope) -> Array:
    """Queries or keys [B, T, H, D] with the first `width` dimensions turned; the rest are left as they are."""
    cosine, sine = turn
    turned, rest = x[..., : rope.width].astype(jnp.float32), x[..., rope.width :]
    if rope.interleaved:
        first, second = turned[..., ::2], turned[..., 1::2]
    else:
        first, second = jnp.split(turned, 2, axis=-1)
    pair = first * cosine - second * sine, second * cosine + first * sine
    joined = jnp.stack(pair, axis=-1).reshape(turned.shape) if rope.interleaved else jnp.concatenate(pair, axis=-1)
    return jnp.concatenate([joined.astype(x.dtype), rest], axis=-1)
