"""One decoder in Flax NNX: embed, run_layers(start, stop), unembed; taps read, patches write, a cache remembers a
prefix.

Dimensions, named the same everywhere: B rows, T tokens, S tokens in the cache, L layers, H heads, K key and value
heads, D head width, d_model, d_ff, V vocabulary. Kernels are (d_in, d_out) with y = x @ W. Layers are stacked [L, ...]
and read by number, so that no slice of the stack is ever copied; edited kernels live outside the stack as overrides, in
float32 whatever the stack's dtype, and are rounded to it where they are used.

Who sees whom is decided by positions (`attention`); in training a token can also be hidden from some position on
(`until`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from prunejax.mesh import spread
from prunejax.models.attention import attend, rotate, rotation, visible
from prunejax.models.config import DecoderConfig

Overrides = Mapping[tuple[int, str], Array]
"""Kernels that stand in for the stack's own: (layer, "up" or "down") -> [d_in, d_out]."""


UNROLL = 4
"""Stacks of at most so many layers are run without a loop: reading the stack by constants is a fifth faster in
training. Longer ones are looped over one at a time, for what is unrolled holds its layers' weights together."""


EMBEDDING_SCALE = 0.05


class Cache(NamedTuple):
    """A prefix's attention keys and values [layers, B, S, K, D] for the layers that will be run, and their positions
    [B, S]."""

    keys: Array
    values: Array
    positions: Array


@partial(jax.tree_util.register_dataclass, data_fields=["vector", "column"], meta_fields=["layer", "site"])
@dataclass(frozen=True)
class Patch:
    """A vector [B, d_model] added at one layer and one column a row [B], to the MLP output ("value") or block output
    ("residual")."""

    vector: Array
    column: Array
    layer: int
    site: str = "value"


class LayersOutput(NamedTuple):
    """What run_layers returns: the residual stream [B, T, d_model], a tap a name [layers, B, T, ...], and attention
    keys and values."""

    residual: Array
    taps: dict[str, Array]
    keys: Array
    values: Array


ACTIVATIONS = {
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "gelu": partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
}


def norm_of(config: DecoderConfig, features: int, rngs: nnx.Rngs) -> nnx.Module:
    """The family's normalisation over the last axis."""
    kind = nnx.LayerNorm if config.norm == "layer" else nnx.RMSNorm
    return kind(features, epsilon=config.epsilon, rngs=rngs)


class Block(nnx.Module):
    """One pre-norm transformer layer: attention, then (or beside it) an MLP whose down projection reads keys and writes
    values."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        d, d_q, d_kv = config.d_model, config.n_heads * config.head_width, config.kv_heads * config.head_width
        narrow = nnx.initializers.variance_scaling(1 / (2 * config.n_layers), "fan_in", "normal")
        self.config = config
        self.ln_1 = norm_of(config, d, rngs)
        self.q, self.k, self.v = (
            nnx.Linear(d, width, use_bias=config.qkv_bias, rngs=rngs) for width in (d_q, d_kv, d_kv)
        )
        self.o = nnx.Linear(d_q, d, use_bias=config.o_bias, kernel_init=narrow, rngs=rngs)
        if config.qk_norm:
            self.q_norm, self.k_norm = (norm_of(config, config.head_width, rngs) for _ in range(2))
        if not config.parallel:
            self.ln_2 = norm_of(config, d, rngs)
        if config.gated:
            self.gate = nnx.Linear(d, config.d_ff, use_bias=config.mlp_bias, rngs=rngs)
        self.up = nnx.Linear(d, config.d_ff, use_bias=config.mlp_bias, rngs=rngs)
        self.down = nnx.Linear(config.d_ff, d, use_bias=config.mlp_bias, kernel_init=narrow, rngs=rngs)

    def attention_inputs(self, x: Array, turn: tuple[Array, Array] | None) -> tuple[Array, Array, Array]:
        """Queries [B, T, H, D], keys and values [B, T, K, D] of the normalised stream; `turn` is `rotation`'s."""
        width = self.config.head_width
        query, keys, values = (project(x).reshape(*x.shape[:2], -1, width) for project in (self.q, self.k, self.v))
        if self.config.qk_norm:
            query, keys = self.q_norm(query), self.k_norm(keys)
        if turn is not None:
            query, keys = (rotate(part, turn, self.config.rope) for part in (query, keys))
        return query, keys, values

    def feed_forward(self, up_input: Array, added: Mapping[str, Array]) -> dict[str, Array]:
        """What the MLP reads and writes: up_input [B, T, d_model], key [B, T, d_ff], which is the down projection's
        input and the key of the linear memory, and value [B, T, d_model]; `added` joins the projections' outputs."""
        activation, up = ACTIVATIONS[self.config.activation], plus(self.up(up_input), added.get("up"))
        key = activation(self.gate(up_input)) * up if self.config.gated else activation(up)
        return {"up_input": up_input, "key": key, "value": plus(self.down(key), added.get("down"))}


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
        x = self.ln_f(residual)
        kernel = self.wte.embedding[...].T if self.config.tied else self.head.kernel[...]
        logits = jnp.dot(x, kernel, preferred_element_type=jnp.float32)
        return logits + self.head.bias[...] if self.config.head_bias else logits

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
    ) -> LayersOutput:
        """Layers start..stop-1 on `residual` [B, T, d_model] at `positions` [B, T].

        `cache` holds the prefix for exactly these layers; `taps` names what to return of every layer run, in float32:
        "up_input" [B, T, d_model], "key" [B, T, d_ff], "value" [B, T, d_model] (MLP output, bias included), "residual"
        [B, T, d_model]. `added` joins the output [B, T, d_out] of single projections: its gradient is theirs. Running
        (0, k) and then (k, L) is running (0, L). `until` [L, B, T] is the last position that sees each token of
        `residual` in each of the decoder's layers; without it all later ones do.
        """
        graph, stack = nnx.split(self.blocks)
        turn = None if self.config.rope is None else rotation(self.config.rope, positions)
        apart = {layer for layer, _ in [*(overrides or {}), *(added or {})] if start <= layer < stop}

        def layer(h: Array, number: Array | int) -> tuple[Array, tuple]:
            parameters = jax.tree.map(lambda p: jax.lax.dynamic_index_in_dim(p, number, keepdims=False), stack)
            block, joined = nnx.merge(graph, parameters), {}
            if isinstance(number, int):
                for name in ("up", "down"):
                    if (number, name) in (overrides or {}):
                        kernel = getattr(block, name).kernel
                        kernel.set_value(overrides[number, name].astype(kernel.dtype))
                    if (number, name) in (added or {}):
                        joined[name] = added[number, name]
            return self._layer(block, h, positions, turn, number, number - start, cache, patches, taps, joined, until)

        turn_of = jax.checkpoint(layer, policy=keep_for_gradient, prevent_cse=False)
        outputs = []
        at = start
        for boundary in [*sorted(apart), stop]:
            if boundary > at:
                residual, out = jax.lax.scan(
                    turn_of, residual, jnp.arange(at, boundary), unroll=UNROLL if boundary - at <= UNROLL else 1
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

    def _layer(
        self,
        block: Block,
        residual: Array,
        positions: Array,
        turn: tuple[Array, Array] | None,
        number: Array | int,
        row: Array | int,
        cache: Cache | None,
        patches: Sequence[Patch],
        taps: Sequence[str],
        added: Mapping[str, Array],
        until: Array | None,
    ) -> tuple[Array, tuple]:
        def patched(site: str, x: Array) -> Array:
            for patch in patches:
                if patch.site == site:
                    here = (jnp.arange(x.shape[1]) == patch.column[:, None]) & (jnp.asarray(number) == patch.layer)
                    x = x + jnp.where(here[..., None], patch.vector[:, None, :], 0.0).astype(x.dtype)
            return x

        x = block.ln_1(residual)
        query, keys, values = block.attention_inputs(x, turn)
        all_keys, all_values = keys, values
        window = self._window(number)
        mask = visible(positions, positions, window)
        if until is not None:
            mask &= positions[:, :, None] <= jax.lax.dynamic_index_in_dim(until, number, keepdims=False)[:, None, :]
        if cache is not None:
            past_keys, past_values = (
                jax.lax.dynamic_index_in_dim(x, row, keepdims=False) for x in (cache.keys, cache.values)
            )
            all_keys, all_values = jnp.concatenate([past_keys, keys], 1), jnp.concatenate([past_values, values], 1)
            mask = jnp.concatenate([visible(positions, cache.positions, window), mask], 2)
        attended = attend(query, all_keys, all_values, mask)
        residual = residual + block.o(attended.reshape(*residual.shape[:2], -1))
        seen = block.feed_forward(x if self.config.parallel else block.ln_2(residual), added)
        seen["value"] = patched("value", seen["value"])
        seen["residual"] = residual = patched("residual", residual + seen["value"])
        return residual, ({name: seen[name].astype(jnp.float32) for name in taps}, keys, values)

    def _window(self, number: Array | int) -> Array | None:
        """How far back layer `number` sees, None without windows."""
        if not any(self.config.windows):
            return None
        return jnp.asarray([window or self.config.n_positions for window in self.config.windows])[number]


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


def plus(x: Array, y: Array | None) -> Array:
    """x, or x + y where there is a y, in the dtype of x."""
    return x if y is None else x + y.astype(x.dtype)


def logits(decoder: Decoder, tokens: Array, positions: Array, overrides: Overrides | None = None) -> Array:
    """Logits [B, T, V] of whole rows."""
    residual = decoder.embed(tokens, positions)
    return decoder.unembed(
        decoder.run_layers(residual, positions, 0, decoder.config.n_layers, overrides=overrides).residual
    )
