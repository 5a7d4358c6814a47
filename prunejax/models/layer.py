"""One layer in its surroundings: a cache before it, packed or padded rows, patches that write and taps that read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from prunejax.models.attention import Seen, attend, visible
from prunejax.models.block import Block
from prunejax.models.config import DecoderConfig
from prunejax.models.packing import Packing, Reads, positions_on_grid, read, to_flat, to_grid


class Cache(NamedTuple):
    """A prefix's attention keys and values [layers, B, K, S, D] for the layers that will be run, and their positions
    [B, S]. Heads come before tokens, as attention reads them."""

    keys: Array | Sequence[Array]
    values: Array | Sequence[Array]
    positions: Array

    def parted(self) -> "Cache":
        """Keys and values as an array a layer: a loop that runs layers one by one then cuts none of them out."""
        return Cache(list(self.keys), list(self.values), self.positions)


@partial(jax.tree_util.register_dataclass, data_fields=["vector", "column"], meta_fields=["layer", "site"])
@dataclass(frozen=True)
class Patch:
    """A vector [B, d_model] added at one layer and one column a row [B], to the MLP output ("value") or block output
    ("residual"), of rows that are not packed."""

    vector: Array
    column: Array
    layer: int
    site: str = "value"


class Surroundings(NamedTuple):
    """What a layer's tokens stand in: positions and packing, the layer's row in the cache, and what `run_layers` says
    of `until` and `reads`."""

    positions: Array
    packing: Packing | None
    row: Array | int
    cache: Cache | None
    until: Array | None
    reads: Reads | None


def run_layer(
    block: Block,
    residual: Array,
    number: Array | int,
    around: Surroundings,
    patches: Sequence[Patch],
    taps: Sequence[str],
    added: Mapping[str, Array],
) -> tuple[Array, tuple[dict[str, Array], Array, Array]]:
    """The residual stream after layer `number`, what stands at `taps` in it, and its attention keys and values, each
    [B, K, T, D]. `added` joins the outputs of its projections."""

    def patched(site: str, x: Array) -> Array:
        for patch in patches:
            if patch.site == site:
                here = (jnp.arange(x.shape[1]) == patch.column[:, None]) & (jnp.asarray(number) == patch.layer)
                x = x + jnp.where(here[..., None], patch.vector[:, None, :], 0.0).astype(x.dtype)
        return x

    positions, reads = around.positions, around.reads
    x = block.ln_1(residual)
    keys, values = (to_grid(part, around.packing).swapaxes(1, 2) for part in block.keys_and_values(x, positions))
    residual, x, asking = (read(part, reads) for part in (residual, x, positions))
    packing = around.packing if reads is None else reads.packing
    seen = _seen(block.config, number, around, positions_on_grid(asking, packing), keys, values)
    queries = to_grid(block.queries(x, asking), packing).swapaxes(1, 2)
    attended = to_flat(attend(queries, seen).swapaxes(1, 2), packing)
    attention = block.o(attended.reshape(*residual.shape[:-1], -1))
    residual = residual + attention
    sites = block.feed_forward(block.mlp_input(x, residual), added) | {"attention": attention}
    sites["value"] = patched("value", sites["value"])
    sites["residual"] = residual = patched("residual", residual + sites["value"])
    return residual, ({name: sites[name].astype(jnp.float32) for name in taps}, keys, values)


def _seen(
    config: DecoderConfig, number: Array | int, around: Surroundings, asking: Array, keys: Array, values: Array
) -> list[Seen]:
    """What the tokens at `asking` [B, T] see: the cache's tokens, and those of these keys and values."""
    window, here = _window(config, number), positions_on_grid(around.positions, around.packing)
    mask = visible(asking, here, window)
    if around.until is not None:
        until = jax.lax.dynamic_index_in_dim(around.until, number, keepdims=False)
        mask &= asking[:, :, None] <= until[:, None, :]
    if (cache := around.cache) is None:
        return [Seen(keys, values, mask)]
    past = (
        part[around.row] if isinstance(part, list) else jax.lax.dynamic_index_in_dim(part, around.row, keepdims=False)
        for part in (cache.keys, cache.values)
    )
    return [Seen(*past, visible(asking, cache.positions, window)), Seen(keys, values, mask)]


def _window(config: DecoderConfig, number: Array | int) -> Array | None:
    """How far back layer `number` sees, None without windows."""
    if not any(config.windows):
        return None
    return jnp.asarray([window or config.n_positions for window in config.windows])[number]
