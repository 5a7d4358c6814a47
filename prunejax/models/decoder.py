"""One decoder in Flax NNX: embed, run_layers(start, stop), unembed; taps read, patches write, a cache remembers a
prefix.

Dimensions, named the same everywhere: B rows, T tokens, S tokens in the cache, L layers, H heads, K key and value
heads, D head width, d_model, d_ff, V vocabulary. Kernels are (d_in, d_out) with y = x @ W. Layers are stacked [L, ...]
and read by number, so that no slice of the stack is copied, unless one asks for it (`opened`); edited kernels live
outside the stack as overrides, in float32 whatever the stack's dtype, and are rounded to it where they are used.

Who sees whom is decided by positions (`attention`); in training a token can also be hidden from some position on
(`until`).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from prunejax.mesh import spread
from prunejax.models.block import Block, norm_of
from prunejax.models.config import DecoderConfig
from prunejax.models.layer import Cache, Patch, Surroundings, run_layer
from prunejax.models.opened import Opened, block_of, layer_at, open_layer
from prunejax.models.packing import Packing, Reads, positions_on_grid, read, to_grid
from prunejax.models.vocabulary import Output

Overrides = Mapping[tuple[int, str], Array]
"""Kernels that stand in for the stack's own: (layer, "up" or "down") -> [d_in, d_out]."""


UNROLL = 4
"""Stacks of at most so many layers are run without a loop: reading the stack by constants is a fifth faster in
training. Longer ones are looped over one at a time, for what is unrolled holds its layers' weights together."""


EMBEDDING_SCALE = 0.05


class LayersOutput(NamedTuple):
    """What run_layers returns: the residual stream [B, T, d_model], a tap a name [layers, B, T, ...], and attention
    keys and values [layers, B, K, T, D]. Of packed rows B, T is N in the residual stream and in taps."""

    residual: Array
    taps: dict[str, Array]
    keys: Array
    values: Array


class Decoder(nnx.Module):
    """A pre-norm decoder-only language model; its config says which of the families' variants it is."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        embed = partial(nnx.Embed, features=config.d_model, rngs=rngs)
        self.config = config
        self.wte = embed(config.vocab_size, embedding_init=nnx.initializers.normal(EMBEDDING_SCALE))
        if config.rope is None:
            self.wpe = embed(config.n_positions, embedding_init=sinusoids)

        @nnx.split_rngs(splits=config.n_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs=rngs)

        self.blocks = stack(rngs)
        self.ln_f = norm_of(config, config.d_model, rngs)
        if not config.tied:
            self.head = nnx.Linear(config.d_model, config.vocab_size, use_bias=config.head_bias, rngs=rngs)

    def embed(self, tokens: Array, positions: Array) -> Array:
        """The residual stream [B, T, d_model] before the first layer; tokens and positions are [B, T]."""
        embedded = self.wte(tokens)
        if self.config.rope is None:
            embedded += self.wpe(jnp.maximum(positions, 0))
        return spread(embedded.astype(self.wte.embedding.dtype))

    def unembed(self, residual: Array) -> Array:
        """Logits [..., V] in nats up to a constant, float32, from the residual stream after the last layer."""
        x, (kernel, bias, axis) = self.ln_f(residual), self.output()
        contracted = ((x.ndim - 1,), (1 - axis,)), ((), ())  # the embedding is read as it lies: it is much to turn
        logits = jax.lax.dot_general(x, kernel, contracted, preferred_element_type=jnp.float32)
        return logits if bias is None else logits + bias

    def output(self) -> Output:
        """The output matrix."""
        if self.config.tied:
            return Output(self.wte.embedding[...], None, 0)
        return Output(self.head.kernel[...], self.head.bias[...] if self.config.head_bias else None, 1)

    def run_layers(
        self,
        residual: Array,
        positions: Array,
        start: int,
        stop: int,
        *,
        cache: Cache | None = None,
        patches: Sequence[Patch] = (),
        taps: Sequence[str] = (),
        overrides: Overrides | None = None,
        added: Overrides | None = None,
        until: Array | None = None,
        packing: Packing | None = None,
        reads: Reads | None = None,
        opened: Mapping[int, Opened] | None = None,
    ) -> LayersOutput:
        """Layers start..stop-1 on `residual` [B, T, d_model] at `positions` [B, T], or, with the `packing` of their
        rows, on [N, d_model] at [N].

        `cache` holds the prefix for exactly these layers; `taps` names what to return of every layer run, in float32:
        "attention" (its output), "up_input", "value" (MLP output, bias included) and "residual" [B, T, d_model], "key"
        [B, T, d_ff]. `added` joins the output [B, T, d_out] of single projections: its gradient is theirs. Running
        (0, k) and then (k, L) is running (0, L). `until` [L, B, T] is the last position that sees each token of
        `residual` in each of the decoder's layers; without it all later ones do. With `reads` the last layer gives
        attention keys and values of all tokens, and everything else of those alone that are asked about, taps included:
        then no layer can be tapped but the last, alone. `opened` are layers that were read out of the stack before.
        """
        graph, stack = nnx.split(self.blocks)
        apart = {layer for layer, _ in [*(overrides or {}), *(added or {})]} | {*(opened or {})}
        apart = {layer for layer in apart if start <= layer < stop}
        if reads is not None:
            apart |= {stop - 1} if start < stop else set()
            residual = residual if start < stop else read(residual, reads)

        def layer(h: Array, number: Array | int) -> tuple[Array, tuple]:
            alone = isinstance(number, int)
            edited, joined = (
                {name: given[number, name] for name in ("up", "down") if alone and (number, name) in given}
                for given in (overrides or {}, added or {})
            )
            asked = reads if alone and number == stop - 1 else None
            around = Surroundings(positions, packing, number - start, cache, until, asked)
            block = block_of(graph, layer_at(stack, number, opened), edited)
            return run_layer(block, h, number, around, patches, taps, joined)

        turn_of = jax.checkpoint(layer, policy=keep_for_gradient, prevent_cse=False)
        outputs = []
        at = start
        for boundary in [*sorted(apart), stop]:
            if boundary > at:
                residual, out = jax.lax.scan(
                    turn_of,
                    residual,
                    jnp.arange(at, boundary),
                    unroll=UNROLL if boundary - at <= UNROLL else 1,
                )
                outputs.append(out)
            if boundary < stop:
                residual, out = layer(residual, boundary)
                outputs.append(jax.tree.map(lambda x: x[None], out))
            at = boundary + 1
        if not outputs:
            return LayersOutput(residual, {}, jnp.zeros((0,)), jnp.zeros((0,)))
        tapped, keys, values = jax.tree.map(
            lambda *parts: jnp.concatenate(parts) if len(parts) > 1 else parts[0], *outputs
        )
        return LayersOutput(residual, tapped, keys, values)

    def block(
        self, number: int, overrides: Overrides | None = None, opened: Mapping[int, Opened] | None = None
    ) -> Block:
        """One layer as a module, with its edited kernels."""
        graph, stack = nnx.split(self.blocks)
        edited = {name: kernel for (layer, name), kernel in (overrides or {}).items() if layer == number}
        return block_of(graph, layer_at(stack, number, opened), edited)

    def opened(self, start: int, stop: int, *, turned: bool = False) -> dict[int, Opened]:
        """Layers start..stop-1, each read out of the stack: a loop that runs them often reads them once so, at the
        price of holding them twice, or three times with kernels `turned` for gradients."""
        _, stack = nnx.split(self.blocks)
        return {number: open_layer(stack, number, turned=turned) for number in range(start, stop)}

    def remember(
        self,
        residual: Array,
        positions: Array,
        start: int,
        stop: int,
        *,
        overrides: Overrides | None = None,
        packing: Packing | None = None,
        opened: Mapping[int, Opened] | None = None,
    ) -> Cache:
        """The cache of layers start..stop-1 that later tokens read of these: of the last layer, keys and values are all
        that is computed."""
        before = self.run_layers(
            residual, positions, start, stop - 1, overrides=overrides, packing=packing, opened=opened
        )
        block = self.block(stop - 1, opened=opened)
        last = block.keys_and_values(block.ln_1(before.residual), positions)
        parts = [to_grid(part, packing).swapaxes(1, 2)[None] for part in last]
        if start < stop - 1:
            parts = [jnp.concatenate(pair) for pair in zip((before.keys, before.values), parts, strict=True)]
        return Cache(*parts, positions_on_grid(positions, packing))


def sinusoids(key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> Array:
    """Initial position embeddings [n_positions, d_model], in which "one token back" is the same rotation everywhere:
    heads that look at the token before are found in a fraction of the steps. Nothing is random: `key` is not used."""
    del key
    angle = jnp.arange(shape[0])[:, None] / 100.0 ** (2 * jnp.arange(shape[1]) / shape[1] % 1)
    cosine = jnp.arange(shape[1]) >= shape[1] / 2
    return (EMBEDDING_SCALE * jnp.where(cosine, jnp.cos(angle), jnp.sin(angle))).astype(dtype)


def keep_for_gradient(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether what a primitive computes in a layer is kept for the gradient. What is read out of the stack is not: kept
    of every layer it would be a second copy of all weights, it is read again."""
    return primitive.name not in ("dynamic_slice", "squeeze")


def logits(decoder: Decoder, tokens: Array, positions: Array, overrides: Overrides | None = None) -> Array:
    """Logits [B, T, V] of whole rows."""
    residual = decoder.embed(tokens, positions)
    return decoder.unembed(
        decoder.run_layers(residual, positions, 0, decoder.config.n_layers, overrides=overrides).residual
    )
