"""GPT-J: attention and MLP side by side on one LayerNorm, interleaved rotary positions, a biased output matrix."""

from dataclasses import replace

from prunejax.errors import InputError
from prunejax.models.config import DecoderConfig
from prunejax.models.families.family import ConfigFile, Family
from prunejax.models.families.gpt2 import common_sizes


def sizes(config: ConfigFile) -> DecoderConfig:
    """The decoder that a GPT-J config.json describes."""
    if config.flag("tie_word_embeddings"):
        raise InputError(f"{config.where}: a tied output matrix (tie_word_embeddings true) is not supported for gptj")
    common = common_sizes(config)
    width = config.size("rotary_dim", common.head_width, most=common.head_width)
    return replace(
        common,
        parallel=True,
        rope=replace(config.rope(width), interleaved=True),
        qkv_bias=False,
        o_bias=False,
        head_bias=True,
        tied=False,
    )


GPTJ = Family(
    name="gptj",
    sizes=sizes,
    prefix="transformer.",
    layer="transformer.h.{}.",
    top_tensors={
        "transformer.wte.weight": "wte.embedding",
        "transformer.ln_f.weight": "ln_f.scale",
        "transformer.ln_f.bias": "ln_f.bias",
        "lm_head.weight": "head.kernel",
        "lm_head.bias": "head.bias",
    },
    layer_tensors={
        "ln_1.weight": "ln_1.scale",
        "ln_1.bias": "ln_1.bias",
        "attn.q_proj.weight": "q.kernel",
        "attn.k_proj.weight": "k.kernel",
        "attn.v_proj.weight": "v.kernel",
        "attn.out_proj.weight": "o.kernel",
        "mlp.fc_in.weight": "up.kernel",
        "mlp.fc_in.bias": "up.bias",
        "mlp.fc_out.weight": "down.kernel",
        "mlp.fc_out.bias": "down.bias",
    },
    ignored=("attn.bias", "attn.masked_bias", "attn.embed_positions"),
)
