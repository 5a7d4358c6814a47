"""Qwen2 and Qwen2.5: Llama's tensors, and biases on queries, keys and values."""

from dataclasses import replace

from prunejax.errors import InputError
from prunejax.models.config import DecoderConfig
from prunejax.models.families.family import ConfigFile
from prunejax.models.families.llama import LLAMA


def sizes(config: ConfigFile) -> DecoderConfig:
    """The decoder that a Qwen2 config.json describes."""
    config = config.default(num_key_value_heads=32, sliding_window=4096)
    plain = LLAMA.sizes(config)
    return replace(plain, qkv_bias=True, o_bias=False, windows=windows(config, plain.n_layers))


def windows(config: ConfigFile, n_layers: int) -> tuple[int, ...]:
    """The window of each layer: by `layer_types` where the file has them, else of the layers from `max_window_layers`
    on; none unless `use_sliding_window`."""
    if not config.flag("use_sliding_window") or config.values.get("sliding_window") is None:
        return ()
    width, kinds = config.size("sliding_window"), config.values.get("layer_types")
    if kinds is None:
        first = config.number("max_window_layers", 28)
        return tuple(width if layer >= first else 0 for layer in range(n_layers))
    known = ("sliding_attention", "full_attention")
    if not isinstance(kinds, list) or len(kinds) != n_layers or any(kind not in known for kind in kinds):
        raise InputError(f"{config.where}: layer_types must name full_attention or sliding_attention for each layer")
    return tuple(width if kind == "sliding_attention" else 0 for kind in kinds)


QWEN2 = replace(LLAMA, name="qwen2", sizes=sizes)
