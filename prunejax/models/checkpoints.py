"""Hugging Face folders in and out: config.json, model.safetensors and the tokenizer's files become a Model, and
back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prunejax.errors import InputError
from prunejax.files import read_json, sha256, write_json, write_through
from prunejax.models.decoder import Decoder, DecoderConfig, Overrides
from prunejax.models.families import Family, decoder_config, family_of, split_fused
from prunejax.tokens import load_tokenizer


@dataclass(frozen=True)
class Model:
    """A decoder with its tokenizer and its origin; edited kernels are laid over it, never written into it."""

    decoder: Decoder
    tokenizer: Any
    family: Family
    folder: Path
    sha256: str
    overrides: Overrides

    @property
    def config(self) -> DecoderConfig:
        """The decoder's sizes."""
        return self.decoder.config

    def weight(self, tensor: str) -> Array:
        """The kernel [d_in, d_out] under the checkpoint's tensor name, edited if it has been."""
        layer, kernel = self.family.kernel_of(tensor)
        if layer >= self.config.n_layers:
            raise InputError(f"tensor {tensor}: the model has {self.config.n_layers} layers, numbered from 0")
        if (layer, kernel) in self.overrides:
            return self.overrides[layer, kernel]
        return getattr(self.decoder.blocks, kernel).kernel[...][layer]

    def with_weights(self, weights: Mapping[str, Array]) -> "Model":
        """The same model with other kernels under these tensor names."""
        laid = {self.family.kernel_of(tensor): weight for tensor, weight in weights.items()}
        return replace(self, overrides={**self.overrides, **laid})


def load_model(folder: str | Path) -> Model:
    """The model in a Hugging Face folder, in float32.

    Reads safetensors only; q, k and v are cut apart. All missing, extra and misshapen tensors are named in one
    InputError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"model {folder}: no such folder")
    where = f"model {folder}/config.json"
    config = read_json(folder / "config.json", "model config")
    if not isinstance(config, dict):
        raise InputError(f"{where}: a JSON object was expected")
    family = family_of(config, where)
    sizes = decoder_config(config, where)
    weights = folder / "model.safetensors"
    decoder = nnx.eval_shape(lambda: Decoder(sizes, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(decoder)
    shapes = {".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(state)}
    arrays = assemble(read_tensors(weights), family, sizes, shapes, str(weights))
    for path, leaf in nnx.to_flat_state(state):
        leaf.set_value(jnp.asarray(arrays[".".join(map(str, path))]))
    return Model(nnx.merge(graph, state), load_tokenizer(folder), family, folder, sha256(weights), {})


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file, as float32 host arrays."""
    try:
        with safe_open(path, framework="numpy") as handle:
            return {name: handle.get_tensor(name).astype(np.float32) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"weights {path}: no such file (only safetensors are read)") from None
    except (SafetensorError, ValueError, TypeError) as error:
        raise InputError(f"weights {path}: not a whole safetensors file ({error})") from None


def assemble(
    tensors: Mapping[str, np.ndarray], family: Family, sizes: DecoderConfig, shapes: Mapping[str, tuple], where: str
) -> dict[str, np.ndarray]:
    """Decoder arrays by path, from a checkpoint's tensors; older files may lack the family's prefix."""
    tensors = {name.removeprefix(family.prefix): array for name, array in tensors.items()}
    arrays: dict[str, np.ndarray] = {}
    missing: list[str] = []
    wrong: list[str] = []
    used: set[str] = set()

    def take(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        used.add(name)
        array = tensors.get(name)
        if array is None:
            missing.append(name)
        elif array.shape != shape:
            wrong.append(f"{name} is {array.shape}, expected {shape}")
        else:
            return array
        return None

    for name, path in family.top_tensors.items():
        if (array := take(name, shapes[path])) is not None:
            arrays[path] = array
    for suffix, paths in family.layer_tensors.items():
        parts = (paths,) if isinstance(paths, str) else paths
        _, *rest, last = shapes[f"blocks.{parts[0]}"]
        layers = [take(family.layer.format(n) + suffix, (*rest, last * len(parts))) for n in range(sizes.n_layers)]
        if not any(layer is None for layer in layers):
            cut = split_fused(np.stack(layers), len(parts))
            arrays |= {f"blocks.{path}": part for path, part in zip(parts, cut, strict=True)}
    extra = [name for name in tensors if name not in used and not name.endswith(family.ignored)]
    problems = [
        f"{kind}: {', '.join(names)}"
        for kind, names in (("missing", missing), ("extra", extra), ("shapes", wrong))
        if names
    ]
    if problems:
        raise InputError(f"weights {where}: {'; '.join(problems)}")
    return arrays


def checkpoint_tensors(decoder: Decoder, family: Family) -> dict[str, np.ndarray]:
    """The decoder's weights under the checkpoint's own names and layouts, q, k and v fused again."""
    flat = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(nnx.state(decoder))}
    tensors = {family.prefix + name: flat[path] for name, path in family.top_tensors.items()}
    for suffix, paths in family.layer_tensors.items():
        parts = [flat[f"blocks.{path}"] for path in ([paths] if isinstance(paths, str) else paths)]
        stack = np.concatenate(parts, axis=-1)
        for number in range(decoder.config.n_layers):
            tensors[family.prefix + family.layer.format(number) + suffix] = np.ascontiguousarray(stack[number])
    return tensors


def save_model(
    decoder: Decoder, family: Family, tokenizer_json: str, folder: str | Path, end_of_text: int, dtype: str
) -> Path:
    """Write an ordinary Hugging Face folder (config, safetensors in `dtype`, tokenizer); returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = decoder.config
    tensors = {name: array.astype(dtype) for name, array in checkpoint_tensors(decoder, family).items()}
    write_through(folder / "model.safetensors", lambda part: save_file(tensors, part, metadata={"format": "pt"}))
    write_json(
        folder / "config.json",
        {
            "model_type": family.name,
            "architectures": ["GPT2LMHeadModel"],
            "n_layer": sizes.n_layers,
            "n_head": sizes.n_heads,
            "n_embd": sizes.d_model,
            "n_inner": sizes.d_ff,
            "n_positions": sizes.n_positions,
            "vocab_size": sizes.vocab_size,
            "layer_norm_epsilon": sizes.epsilon,
            "activation_function": "gelu_new",
            "tie_word_embeddings": True,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "bos_token_id": end_of_text,
            "eos_token_id": end_of_text,
            "dtype": dtype,
        },
    )
    write_json(folder / "tokenizer.json", json.loads(tokenizer_json))
    special = "<|endoftext|>"
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "GPT2Tokenizer",
            "bos_token": special,
            "eos_token": special,
            "unk_token": special,
            "add_prefix_space": False,
            "model_max_length": sizes.n_positions,
        },
    )
    return folder
