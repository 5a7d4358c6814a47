"""Update: what an edit adds to one weight, as a value. Nobody edits a model in place.

Orientation, here and everywhere: a kernel is [d_in, d_out] and y = x @ W, so an update is [d_in, d_out] too. A rank-one
edit is outer(left, right): `left` lives in key space (d_in), `right` in value space (d_out).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from prunejax.errors import InputError


class LowRank(NamedTuple):
    """The matrix left @ right, formed only when it is needed: `left` is [d_in, r], `right` is [r, d_out], float32."""

    left: Array
    right: Array


class Dense(NamedTuple):
    """The matrix itself, [d_in, d_out], float32."""

    matrix: Array


Update = LowRank | Dense
Updates = Mapping[str, Update]  # keyed by the checkpoint's own tensor name


def shape(update: Update) -> tuple[int, int]:
    """(d_in, d_out) of the matrix that `update` stands for."""
    if isinstance(update, LowRank):
        return update.left.shape[0], update.right.shape[1]
    return update.matrix.shape


def dense(update: Update) -> Array:
    """The matrix that `update` stands for, [d_in, d_out], multiplied at full float32 precision on every device."""
    if isinstance(update, LowRank):
        return product(update.left, update.right)
    return jnp.asarray(update.matrix)


def total(updates: Sequence[Update]) -> Update:
    """The sum of at least one update to the same weight: sum_j dW_j.

    LowRanks concatenate along the rank, so nothing is rounded and the edits stay in order (columns of `left` are the
    edits' own). One Dense among them makes the sum Dense.

    Misleads: the rank of the result is the number of columns held, not the rank of the matrix; repeated or cancelling
    edits make the latter smaller (`spectra.spectrum` measures it).
    """
    if not updates:
        raise InputError("total of no updates: the shape of the sum is unknown, give at least one")
    shapes = {shape(update) for update in updates}
    if len(shapes) > 1:
        raise InputError(f"total of updates of different shapes {sorted(shapes)}: they belong to different weights")
    if all(isinstance(update, LowRank) for update in updates):
        left, right = zip(*updates, strict=True)
        return LowRank(jnp.concatenate(left, axis=1), jnp.concatenate(right, axis=0))
    return Dense(sum(map(dense, updates)))


def apply(weight: Array, update: Update) -> Array:
    """weight + dense(update), a new array [d_in, d_out] in the weight's dtype; the sum is taken in float32 or wider.

    Misleads: a half-precision weight swallows updates below its own spacing, and adding many small updates one after
    another rounds at every step, where applying their `total` rounds once.
    """
    if weight.shape != shape(update):
        raise InputError(f"update of shape {shape(update)} does not fit a weight of shape {weight.shape}")
    return (weight + dense(update)).astype(weight.dtype)


def product(left: Array, right: Array) -> Array:
    """left @ right in full float32: accelerators otherwise multiply in fewer bits (TF32, bfloat16)."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
