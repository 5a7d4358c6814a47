"""GPT-2: learned positions, LayerNorm, fused attention stored [in, out], tied output matrix."""

from typing import Any

from prunejax.errors import InputError
from prunejax.models.config import DecoderConfig
from prunejax.models.families.family import ConfigFile, Family


def sizes(config: ConfigFile) -> DecoderConfig:
    """The decoder that a GPT-2 config.json describes."""
    config.refuse("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention")
    if not config.flag("scale_attn_weights", True):
        raise InputError(f"{config.where}: attention that is not scaled (scale_attn_weights false) is not supported")
    if not config.flag("tie_word_embeddings", True):
        raise InputError(f"{config.where}: untied output matrices (tie_word_embeddings false) are not supported here")
    return common_sizes(config)


def common_sizes(config: ConfigFile) -> DecoderConfig:
    """What GPT-2 and GPT-J state under the same names, and for the rest what GPT-2 has."""
    d_model, n_heads = config.size("n_embd"), config.size("n_head")
    config.multiple("n_embd", d_model, "n_head", n_heads)
    return DecoderConfig(
        n_layers=config.layers("n_layer"),
        n_heads=n_heads,
        d_model=d_model,
        d_ff=config.size("n_inner", 4 * d_model),
        vocab_size=config.size("vocab_size"),
        n_positions=config.size("n_positions"),
        epsilon=config.number("layer_norm_epsilon", 1e-5),
        activation=config.activation("activation_function", "gelu_new"),
    )


def config_json(config: DecoderConfig, end_of_text: int, dtype: str) -> dict[str, Any]:
    """The config.json of a GPT-2 of these sizes."""
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_embd": config.d_model,
        "n_inner": config.d_ff,
        "n_positions": config.n_positions,
        "vocab_size": config.vocab_size,
        "layer_norm_epsilon": config.epsilon,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": dtype,
    }


GPT2 = Family(
    name="gpt2",
    sizes=sizes,
    prefix="transformer.",
    layer="transformer.h.{}.",
    top_tensors={
        "transformer.wte.weight": "wte.embedding",
        "transformer.wpe.weight": "wpe.embedding",
        "transformer.ln_f.weight": "ln_f.scale",
        "transformer.ln_f.bias": "ln_f.bias",
    },
    layer_tensors={
        "ln_1.weight": "ln_1.scale",
        "ln_1.bias": "ln_1.bias",
        "attn.c_attn.weight": ("q.kernel", "k.kernel", "v.kernel"),
        "attn.c_attn.bias": ("q.bias", "k.bias", "v.bias"),
        "attn.c_proj.weight": "o.kernel",
        "attn.c_proj.bias": "o.bias",
        "ln_2.weight": "ln_2.scale",
        "ln_2.bias": "ln_2.bias",
        "mlp.c_fc.weight": "up.kernel",
        "mlp.c_fc.bias": "up.bias",
        "mlp.c_proj.weight": "down.kernel",
        "mlp.c_proj.bias": "down.bias",
    },
    turned=False,
    ignored=("attn.bias", "attn.masked_bias", "lm_head.weight"),
)
