"""Ragged rows without padding: tokens stand on one flat axis for all that is linear, and on a grid of rows for
attention alone.

Dimensions: N tokens on the flat axis, B rows and T columns of the grid.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


class Packing(NamedTuple):
    """Where tokens stand: `slot` int32 [B, T], the flat place of each column, N where it holds no token; `place` int32
    [N], the place of each flat token in the grid read row by row, B T where it stands in no row."""

    slot: Array
    place: Array


class Reads(NamedTuple):
    """Which tokens are asked about after the last layer: `index` [C] on the flat axis, with the `packing` of these C on
    a grid of their own; or columns [B, C], and no packing, of rows that are not packed."""

    index: Array
    packing: Packing | None = None


def pack(lengths: Sequence[int], size: int, width: int) -> Packing:
    """The packing of rows of these lengths, one behind the other, on a flat axis of `size` and a grid of `width`, which
    must take them."""
    if sum(lengths) > size or max(lengths) > width:
        raise ValueError(f"{sum(lengths)} tokens in rows of up to {max(lengths)} do not fit into {size} and {width}")
    slot = np.full((len(lengths), width), size, np.int32)
    place = np.full(size, len(lengths) * width, np.int32)
    start = 0
    for row, length in enumerate(lengths):
        slot[row, :length] = np.arange(start, start + length)
        place[start : start + length] = row * width + np.arange(length)
        start += length
    return Packing(slot, place)


def fill(rows: Sequence[Sequence[Any]], size: int, empty: int) -> np.ndarray:
    """The rows' numbers one behind the other, int32 [size], `empty` behind the last."""
    flat = np.full(size, empty, np.int32)
    joined = [number for row in rows for number in row]
    flat[: len(joined)] = joined
    return flat


def to_grid(x: Array, packing: Packing | None) -> Array:
    """[N, ...] as [B, T, ...], zero where the grid holds no token; without a packing x is the grid."""
    return x if packing is None else _to_grid(x, packing)


def to_flat(x: Array, packing: Packing | None) -> Array:
    """[B, T, ...] as [N, ...], the inverse of `to_grid`."""
    return x if packing is None else _to_flat(x, packing)


def positions_on_grid(positions: Array, packing: Packing | None) -> Array:
    """Positions [N] as [B, T], -1 where the grid holds no token."""
    return positions if packing is None else taken(positions, packing.slot, -1)


def read(x: Array, reads: Reads | None) -> Array:
    """What `reads` asks about of x [N, ...] or [B, T, ...]: [C, ...] or [B, C, ...]; all of x without reads."""
    if reads is None:
        return x
    if reads.packing is None:
        return jnp.take_along_axis(x, reads.index.reshape(*reads.index.shape, *[1] * (x.ndim - 2)), axis=1)
    return jnp.take(x, reads.index, axis=0, mode="clip")


def taken(x: Array, index: ArrayLike, empty: float = 0.0) -> Array:
    """x[index] along the first axis, `empty` where the index is its length."""
    return jnp.take(x, index, axis=0, mode="fill", fill_value=empty)


# Each is the transpose of the other: what a gather scatters in its gradient, the other gathers.
@jax.custom_vjp
def _to_grid(x: Array, packing: Packing) -> Array:
    return taken(x, packing.slot)


@jax.custom_vjp
def _to_flat(x: Array, packing: Packing) -> Array:
    return taken(x.reshape(-1, *x.shape[2:]), packing.place)


_to_grid.defvjp(
    lambda x, packing: (_to_grid(x, packing), packing),
    lambda packing, gradient: (_to_flat(gradient, packing), None),
)
_to_flat.defvjp(
    lambda x, packing: (_to_flat(x, packing), packing),
    lambda packing, gradient: (_to_grid(gradient, packing), None),
)
