"""What a score may know of a model: a callable from tokens to logits, with a cache and without insides.

A memory editor or somebody else's model is scored as soon as it is wrapped as a Forward.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder, Overrides
from prunejax.models.layer import Cache
from prunejax.models.packing import Packing, Reads, positions_on_grid, taken, to_flat


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights"],
    meta_fields=["run", "empty_cache", "n_positions", "run_packed"],
)
@dataclass(frozen=True)
class Forward:
    """`forward(tokens, positions, cache, columns)` -> (logits, cache), itself a pytree that jitted functions take.

    tokens and positions are int32 [B, T], position -1 on padding, which nothing sees. Without `columns` the logits are
    [B, T, V]; with columns, int32 [B, C], they are those of these columns alone, [B, C, V]. A cache of S columns comes
    from `new_cache`; the one returned also remembers these tokens, and a full one must not be written to. Without a
    cache, None is returned.

    `run(weights, tokens, positions, cache, columns)` and `empty_cache(weights, B, S)` are module-level functions, and
    everything that changes between models of one kind lies in the pytree `weights`: then scoring many edited versions
    of a model compiles once a shape. Positions go up to `n_positions` - 1. `run_packed(weights, ids, positions,
    packing, reads)` is `packed`, for models that can run packed rows; of others, the rows are padded.
    """

    run: Callable[[Any, Array, Array, Any, Array | None], tuple[Array, Any]]
    empty_cache: Callable[[Any, int, int], Any]
    n_positions: int
    weights: Any
    run_packed: Callable[[Any, Array, Array, Packing, Reads], Array] | None = None

    def __call__(
        self, tokens: Array, positions: Array, cache: Any = None, columns: Array | None = None
    ) -> tuple[Array, Any]:
        """Logits and the cache after these tokens."""
        return self.run(self.weights, tokens, positions, cache, columns)

    def packed(self, ids: Array, positions: Array, packing: Packing, reads: Reads) -> Array:
        """Logits [C, V] of the C tokens that `reads` asks about, of packed rows: ids and positions int32 [N]. Rows may
        share the tokens that they begin with."""
        if self.run_packed is not None:
            return self.run_packed(self.weights, ids, positions, packing, reads)
        columns = taken(packing.place, reads.index)[reads.packing.slot.clip(max=len(reads.index) - 1)]
        grid, places = taken(ids, packing.slot), positions_on_grid(positions, packing)
        logits, _ = self.run(self.weights, grid, places, None, columns % packing.slot.shape[1])
        return to_flat(logits, reads.packing)

    def new_cache(self, rows: int, capacity: int) -> Any:
        """A cache that remembers nothing yet and has room for `capacity` columns, padding included, of B = `rows`."""
        return self.empty_cache(self.weights, rows, capacity)


class FilledCache(NamedTuple):
    """A decoder's cache for all its layers with room for S columns; the first `filled` (int32 []) are taken. None is
    a new one, which nothing need look into."""

    cache: Cache
    filled: Array | None


def forward_of(model: Model) -> Forward:
    """The model as a Forward, edited kernels included; the unedited model differs in structure and compiles anew."""
    return Forward(
        run_decoder,
        empty_decoder_cache,
        model.config.n_positions,
        (model.decoder, dict(model.overrides)),
        run_packed_decoder,
    )


@jax.jit
def run_decoder(
    weights: tuple[Decoder, Overrides],
    tokens: Array,
    positions: Array,
    filled: FilledCache | None,
    columns: Array | None,
) -> tuple[Array, FilledCache | None]:
    """A decoder with its overrides, as `Forward.run`."""
    decoder, overrides = weights
    residual = decoder.embed(tokens, positions)
    prefix = None if filled is None or filled.filled is None else filled.cache
    reads = None if columns is None else Reads(columns)
    output = decoder.run_layers(
        residual, positions, 0, decoder.config.n_layers, cache=prefix, overrides=overrides, reads=reads
    )
    if filled is not None:
        start = jnp.int32(0) if filled.filled is None else filled.filled
        new = Cache(output.keys, output.values, positions)
        written = (
            jax.lax.dynamic_update_slice_in_dim(old, part, start, axis)
            for old, part, axis in zip(filled.cache, new, (3, 3, 1), strict=True)
        )
        filled = FilledCache(Cache(*written), start + tokens.shape[1])
    return decoder.unembed(output.residual), filled


@jax.jit
def run_packed_decoder(
    weights: tuple[Decoder, Overrides], ids: Array, positions: Array, packing: Packing, reads: Reads
) -> Array:
    """A decoder with its overrides, as `Forward.run_packed`."""
    decoder, overrides = weights
    residual = decoder.embed(ids, positions)
    n_layers = decoder.config.n_layers
    run = decoder.run_layers(residual, positions, 0, n_layers, overrides=overrides, packing=packing, reads=reads)
    return decoder.unembed(run.residual)


def empty_decoder_cache(weights: tuple[Decoder, Overrides], rows: int, capacity: int) -> FilledCache:
    """Room for `capacity` tokens in each of `rows` rows, as `Forward.empty_cache`."""
    decoder, _ = weights
    sizes = decoder.config
    shape = (sizes.n_layers, rows, sizes.kv_heads, capacity, sizes.head_width)
    zeros = jnp.zeros(shape, decoder.wte.embedding[...].dtype)
    return FilledCache(Cache(zeros, zeros, jnp.full((rows, capacity), -1, jnp.int32)), None)
