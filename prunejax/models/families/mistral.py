"""Mistral: Llama's tensors, and a sliding window over the tokens that a layer sees."""

from dataclasses import replace

from prunejax.models.config import DecoderConfig
from prunejax.models.families.family import ConfigFile
from prunejax.models.families.llama import LLAMA


def sizes(config: ConfigFile) -> DecoderConfig:
    """The decoder that a Mistral config.json describes."""
    config = config.default(num_key_value_heads=8, sliding_window=4096)
    plain = LLAMA.sizes(config)
    if config.values.get("sliding_window") is None:
        return plain
    return replace(plain, windows=(config.size("sliding_window"),) * plain.n_layers)


MISTRAL = replace(LLAMA, name="mistral", sizes=sizes)
