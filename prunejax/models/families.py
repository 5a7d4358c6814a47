"""What differs between checkpoint families: the config's keys, the tensors' names, and how each lands in the
decoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunejax.errors import InputError
from prunejax.models.decoder import DecoderConfig


@dataclass(frozen=True)
class Family:
    """A checkpoint family. `layer_tensors` maps tensor suffixes within a layer to decoder paths; a tuple of paths
    means fused on the last axis."""

    name: str
    prefix: str
    layer: str
    top_tensors: Mapping[str, str]
    layer_tensors: Mapping[str, str | tuple[str, ...]]
    ignored: tuple[str, ...]

    def edited_tensor(self, layer: int, kernel: str = "down") -> str:
        """The checkpoint's name of a layer's MLP kernel, "down" (keys to values) or "up"."""
        suffix = next(s for s, path in self.layer_tensors.items() if path == f"{kernel}.kernel")
        return f"{self.prefix}{self.layer.format(layer)}{suffix}"

    def kernel_of(self, tensor: str) -> tuple[int, str]:
        """The (layer, "down" or "up") that a checkpoint's tensor name stands for; InputError when it is no editable
        kernel."""
        for part in tensor.split("."):
            if part.isdecimal():
                for kernel in ("down", "up"):
                    if tensor == self.edited_tensor(int(part), kernel):
                        return int(part), kernel
        raise InputError(
            f"tensor {tensor}: not an MLP kernel of the {self.name} family, for example {self.edited_tensor(0)}"
        )


GPT2 = Family(
    name="gpt2",
    prefix="transformer.",
    layer="h.{}.",
    top_tensors={
        "wte.weight": "wte.embedding",
        "wpe.weight": "wpe.embedding",
        "ln_f.weight": "ln_f.scale",
        "ln_f.bias": "ln_f.bias",
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
    ignored=("attn.bias", "attn.masked_bias", "lm_head.weight"),
)


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """The family that a config.json belongs to."""
    kind = config.get("model_type")
    if kind != GPT2.name:
        raise InputError(f"{where}: model_type {kind!r} is not supported, only 'gpt2' is")
    activation = config.get("activation_function", "gelu_new")
    if activation not in ("gelu_new", "gelu_pytorch_tanh"):
        raise InputError(f"{where}: activation_function {activation!r} is not supported, only 'gelu_new' is")
    for key in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"):
        if config.get(key):
            raise InputError(f"{where}: {key} is not supported")
    if config.get("tie_word_embeddings", True) is False:
        raise InputError(f"{where}: untied output matrices (tie_word_embeddings false) are not supported for gpt2")
    return GPT2


def decoder_config(config: Mapping[str, Any], where: str) -> DecoderConfig:
    """The decoder's sizes from a config.json of the GPT-2 family."""
    try:
        d_model = int(config["n_embd"])
        sizes = DecoderConfig(
            n_layers=int(config["n_layer"]),
            n_heads=int(config["n_head"]),
            d_model=d_model,
            d_ff=int(config.get("n_inner") or 4 * d_model),
            vocab_size=int(config["vocab_size"]),
            n_positions=int(config["n_positions"]),
            epsilon=float(config.get("layer_norm_epsilon", 1e-5)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: a size is missing or not a number ({error})") from None
    if min(sizes.n_layers, sizes.n_heads, sizes.d_model, sizes.d_ff, sizes.vocab_size, sizes.n_positions) < 1:
        raise InputError(f"{where}: sizes must be positive")
    if sizes.d_model % sizes.n_heads:
        raise InputError(f"{where}: n_embd {sizes.d_model} is not a multiple of n_head {sizes.n_heads}")
    return sizes


def split_fused(array: np.ndarray, parts: int) -> list[np.ndarray]:
    """A tensor fused on its last axis, cut into equal parts."""
    return np.split(array, parts, axis=-1)
