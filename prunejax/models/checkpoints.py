"""Hugging Face folders in and out: config.json, safetensors and the tokenizer's files become a Model, and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from safetensors.numpy import save_file
from tqdm import tqdm

from prunejax.errors import InputError
from prunejax.files import read_json, write_json, write_through
from prunejax.mesh import layout_on, set_mesh
from prunejax.models.config import DecoderConfig
from prunejax.models.decoder import Decoder, Overrides
from prunejax.models.families import Family, read_config
from prunejax.models.tensors import (
    WEIGHTS,
    checkpoint_tensors,
    match,
    open_tensors,
    read_array,
    weight_files,
    weights_digest,
)
from prunejax.tokens import last_id, load_tokenizer

DTYPES = ("float32", "bfloat16", "float16")
"""What a model's weights may be held in; edited kernels are held in float32 beside them."""


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

    @property
    def name(self) -> str:
        """What records call it (`name_of`)."""
        return name_of(self.folder)

    @property
    def dtype(self) -> str:
        """What the weights are held in."""
        return str(self.decoder.wte.embedding.dtype)

    def weight(self, tensor: str) -> Array:
        """The kernel [d_in, d_out] under the checkpoint's tensor name in float32, edited if it has been."""
        layer, kernel = self.family.kernel_of(tensor)
        if layer >= self.config.n_layers:
            raise InputError(f"tensor {tensor}: the model has {self.config.n_layers} layers, numbered from 0")
        if (layer, kernel) in self.overrides:
            return self.overrides[layer, kernel]
        return getattr(self.decoder.blocks, kernel).kernel[...][layer].astype(jnp.float32)

    def with_weights(self, weights: Mapping[str, Array]) -> "Model":
        """The same model with other kernels under these tensor names."""
        laid = {self.family.kernel_of(tensor): weight for tensor, weight in weights.items()}
        return replace(self, overrides={**self.overrides, **laid})


def name_of(folder: Path) -> str:
    """OWNER/NAME where the folder is a snapshot in the hub's cache, which is named after a commit; else the folder's
    name."""
    *_, repository, kind, name = ("", "", *folder.resolve().parts)
    in_cache = kind == "snapshots" and repository.startswith("models--")
    return repository.removeprefix("models--").replace("--", "/") if in_cache else name


def load_model(folder: str | Path, dtype: str = "float32") -> Model:
    """The model in a Hugging Face folder, its weights held in `dtype`, whatever they are stored in."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"model {folder}: no such folder")
    decoder, family = load_decoder(folder, dtype)
    tokenizer = load_tokenizer(folder)
    if (last := last_id(tokenizer)) >= decoder.config.vocab_size:
        sizes = f"has ids up to {last}, the model {decoder.config.vocab_size} of them, from 0 on"
        raise InputError(f"tokenizer {folder}: {sizes}; it is that of another model")
    return Model(decoder, tokenizer, family, folder, weights_digest(weight_files(folder)), {})


def load_decoder(folder: Path, dtype: str = "float32") -> tuple[Decoder, Family]:
    """The decoder in a Hugging Face folder and its family.

    Reads safetensors only, one file or the shards of an index, array by array; on a mesh that is set each device's part
    alone. q, k and v are cut apart. All missing, extra and misshapen tensors are named in one InputError.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: there are {', '.join(DTYPES)}")
    family, sizes = read_config(*config_of(folder))
    mesh = set_mesh()
    files = weight_files(folder)
    stored = open_tensors(files)
    graph, state = nnx.split(nnx.eval_shape(lambda: Decoder(sizes, rngs=nnx.Rngs(0))))
    leaves = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    matched = match(stored, family, shapes, str(files[0] if len(files) == 1 else folder))
    for path, leaf in tqdm(leaves.items(), desc="load", unit="array", leave=False):
        read = partial(read_array, stored, matched[path], leaf.shape, jnp.dtype(dtype))
        leaf.set_value(
            jnp.asarray(read((slice(None),) * len(leaf.shape)))
            if mesh is None
            else jax.make_array_from_callback(leaf.shape, layout_on(mesh, path, leaf.shape, sizes), read)
        )
    return nnx.merge(graph, state), family


def config_of(folder: Path) -> tuple[dict[str, Any], str]:
    """A folder's config.json, and how to name it in an error."""
    where = f"model {folder}/config.json"
    config = read_json(folder / "config.json", "model config")
    if not isinstance(config, dict):
        raise InputError(f"{where}: a JSON object was expected")
    return config, where


def decoder_arrays(decoder: Decoder) -> dict[str, np.ndarray]:
    """The decoder's arrays by path, on the host."""
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(nnx.state(decoder))}


def save_model(
    decoder: Decoder, family: Family, config: Mapping[str, Any], tokenizer_json: str, folder: str | Path
) -> Path:
    """Write an ordinary Hugging Face folder (config, safetensors in the config's dtype, a tokenizer that adds nothing
    to a text), the weights last: a folder that holds them is whole. Returns the folder."""
    folder = Path(folder)
    arrays = checkpoint_tensors(family, decoder_arrays(decoder))
    tensors = {name: array.astype(jnp.dtype(config["dtype"])) for name, array in arrays.items()}
    write_json(folder / "config.json", config)
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
            "model_max_length": decoder.config.n_positions,
        },
    )
    write_through(folder / WEIGHTS, lambda part: save_file(tensors, part, metadata={"format": "pt"}))
    return folder
