"""One transformer layer, and its parts as they are needed apart: queries, keys and values, the feed-forward memory."""

from collections.abc import Mapping
from functools import partial

import jax
from flax import nnx
from jax import Array

from prunejax.models.attention import rotate, rotation
from prunejax.models.config import DecoderConfig

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

    def queries(self, x: Array, positions: Array) -> Array:
        """Queries [..., H, D] of the normalised stream [..., d_model] at `positions` [...]."""
        query = self._heads(self.q(x))
        return self._turned(self.q_norm(query) if self.config.qk_norm else query, positions)

    def keys_and_values(self, x: Array, positions: Array) -> tuple[Array, Array]:
        """Attention keys and values [..., K, D] of the normalised stream [..., d_model] at `positions` [...]."""
        keys = self._heads(self.k(x))
        return self._turned(self.k_norm(keys) if self.config.qk_norm else keys, positions), self._heads(self.v(x))

    def _heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], -1, self.config.head_width)

    def _turned(self, x: Array, positions: Array) -> Array:
        return x if (rope := self.config.rope) is None else rotate(x, rotation(rope, positions), rope)

    def mlp_input(self, x: Array, residual: Array) -> Array:
        """What the MLP reads [..., d_model]: the stream after attention, normalised, or beside it the normalised stream
        x that attention reads."""
        return x if self.config.parallel else self.ln_2(residual)

    def feed_forward(self, up_input: Array, added: Mapping[str, Array]) -> dict[str, Array]:
        """What the MLP reads and writes: up_input [B, T, d_model], key [B, T, d_ff], which is the down projection's
        input and the key of the linear memory, and value [B, T, d_model]; `added` joins the projections' outputs."""
        activation, up = ACTIVATIONS[self.config.activation], plus(self.up(up_input), added.get("up"))
        key = activation(self.gate(up_input)) * up if self.config.gated else activation(up)
        return {"up_input": up_input, "key": key, "value": plus(self.down(key), added.get("down"))}


def plus(x: Array, y: Array | None) -> Array:
    """x, or x + y where there is a y, in the dtype of x."""
    return x if y is None else x + y.astype(x.dtype)
