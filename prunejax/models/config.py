"""A decoder's sizes and constants: what a family's config.json is turned into, and all that the decoder knows of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Llama3Scaling:
    """How Llama 3 stretches rotary wavelengths: beyond `original` / `low` tokens by `factor`, under `original` / `high`
    not at all, in between by a blend."""

    factor: float
    low: float
    high: float
    original: int


@dataclass(frozen=True)
class Rope:
    """Rotary positions: the first `width` dimensions of a head are turned by position * theta^(-2i/width).

    `interleaved` pairs dimensions (2i, 2i+1), as in GPT-J; else (i, i + width/2), as in Llama's files. Every angle is
    divided by `divisor` (linear scaling).
    """

    width: int
    theta: float = 10_000.0
    interleaved: bool = False
    divisor: float = 1.0
    scaling: Llama3Scaling | None = None


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and constants of a decoder, as its checkpoint states them; the defaults are GPT-2's.

    `n_kv_heads` and `d_head`: 0 is as many as `n_heads`, and d_model / n_heads. `norm`: "layer" or "rms". `parallel`:
    attention and MLP read the same normalised stream. `rope`: None is learned positions. `windows`: of each layer how
    many tokens back it sees, itself included, 0 for all; () is all for all.
    """

    n_layers: int
    n_heads: int
    d_model: int
    d_ff: int
    vocab_size: int
    n_positions: int
    epsilon: float = 1e-5
    n_kv_heads: int = 0
    d_head: int = 0
    norm: str = "layer"
    activation: str = "gelu_tanh"
    gated: bool = False
    parallel: bool = False
    rope: Rope | None = None
    windows: tuple[int, ...] = ()
    qkv_bias: bool = True
    o_bias: bool = True
    mlp_bias: bool = True
    head_bias: bool = False
    qk_norm: bool = False
    tied: bool = True

    @property
    def kv_heads(self) -> int:
        """Attention key and value heads, each shared by n_heads / kv_heads query heads."""
        return self.n_kv_heads or self.n_heads

    @property
    def head_width(self) -> int:
        """Dimensions of one head."""
        return self.d_head or self.d_model // self.n_heads
