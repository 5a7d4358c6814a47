"""Llama 1, 2 and 3.x: RMSNorm, gated MLP, rotary positions, shared key and value heads."""

from prunejax.models.config import DecoderConfig
from prunejax.models.families.family import ConfigFile, Family


def sizes(config: ConfigFile) -> DecoderConfig:
    """The decoder that a Llama config.json describes."""
    d_model, n_heads = config.size("hidden_size"), config.size("num_attention_heads")
    n_kv_heads = config.size("num_key_value_heads", n_heads)
    config.multiple("num_attention_heads", n_heads, "num_key_value_heads", n_kv_heads)
    if config.values.get("head_dim") is None:
        config.multiple("hidden_size", d_model, "num_attention_heads", n_heads)
    d_head = config.size("head_dim", d_model // n_heads)
    return DecoderConfig(
        n_layers=config.layers("num_hidden_layers"),
        n_heads=n_heads,
        d_model=d_model,
        d_ff=config.size("intermediate_size"),
        vocab_size=config.size("vocab_size"),
        n_positions=config.size("max_position_embeddings"),
        epsilon=config.number("rms_norm_eps", 1e-6),
        n_kv_heads=n_kv_heads,
        d_head=d_head,
        norm="rms",
        activation=config.activation("hidden_act", "silu"),
        gated=True,
        rope=config.rope(d_head),
        qkv_bias=config.flag("attention_bias"),
        o_bias=config.flag("attention_bias"),
        mlp_bias=config.flag("mlp_bias"),
        tied=config.flag("tie_word_embeddings"),
    )


ATTENTION = {f"self_attn.{letter}_proj.{kind}": (letter, kind) for letter in "qkvo" for kind in ("weight", "bias")}
MLP = {f"mlp.{name}_proj.{kind}": (name, kind) for name in ("gate", "up", "down") for kind in ("weight", "bias")}
PART = {"weight": "kernel", "bias": "bias"}

LLAMA = Family(
    name="llama",
    sizes=sizes,
    prefix="model.",
    layer="model.layers.{}.",
    top_tensors={
        "model.embed_tokens.weight": "wte.embedding",
        "model.norm.weight": "ln_f.scale",
        "lm_head.weight": "head.kernel",
    },
    layer_tensors={
        "input_layernorm.weight": "ln_1.scale",
        "post_attention_layernorm.weight": "ln_2.scale",
        "self_attn.q_norm.weight": "q_norm.scale",
        "self_attn.k_norm.weight": "k_norm.scale",
    }
    | {suffix: f"{name}.{PART[kind]}" for suffix, (name, kind) in (ATTENTION | MLP).items()},
    ignored=("rotary_emb.inv_freq",),
)
