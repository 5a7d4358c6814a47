"""Qwen3: Llama's tensors, and an RMSNorm on every query and key head before the rotation."""

from dataclasses import replace

from prunejax.models.config import DecoderConfig
from prunejax.models.families.family import ConfigFile
from prunejax.models.families.llama import LLAMA
from prunejax.models.families.qwen2 import windows


def sizes(config: ConfigFile) -> DecoderConfig:
    """The decoder that a Qwen3 config.json describes."""
    config = config.default(num_key_value_heads=32, head_dim=128, sliding_window=4096)
    plain = LLAMA.sizes(config)
    return replace(plain, qk_norm=True, windows=windows(config, plain.n_layers))


QWEN3 = replace(LLAMA, name="qwen3", sizes=sizes)
