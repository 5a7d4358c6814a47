"""The folder both sides read: a random model of published shapes, the first requests of CounterFact, second moments."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from benchmarks.recipe import MOMENTS, REQUESTS
from prunejax.editors.moments import SecondMoment, save_moments
from prunejax.errors import InputError
from prunejax.models.checkpoints import save_model
from prunejax.models.config import DecoderConfig, Rope
from prunejax.models.decoder import Decoder
from prunejax.models.families import Family
from prunejax.models.families.gpt2 import GPT2, config_json
from prunejax.models.families.llama import LLAMA
from prunejax.requests import EditRequest, read_requests, write_requests

SPREAD = 0.02
"""Standard deviation of every weight, GPT-2's and Llama's own; of what GPT-2 adds to the residual stream it is that
over sqrt(2 layers)."""
END = "<|endoftext|>"


class Shapes(NamedTuple):
    """A model's family, sizes, and the config.json that transformers reads."""

    family: Family
    config: DecoderConfig
    written: dict[str, Any]


def gpt2_shapes(config: DecoderConfig, end: int) -> Shapes:
    """A GPT-2 of these sizes, whose end of text is token `end`."""
    return Shapes(GPT2, config, config_json(config, end, "float32"))


def gpt2_small() -> Shapes:
    """GPT-2 with 124 million parameters."""
    return gpt2_shapes(DecoderConfig(12, 12, 768, 3072, 50257, 1024), 50256)


def llama_shapes(config: DecoderConfig, dtype: str) -> Shapes:
    """A Llama of these sizes."""
    written = {
        **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"},
        **{"num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads},
        **{"num_key_value_heads": config.kv_heads, "head_dim": config.head_width, "hidden_size": config.d_model},
        **{"intermediate_size": config.d_ff, "vocab_size": config.vocab_size, "rms_norm_eps": config.epsilon},
        **{"max_position_embeddings": config.n_positions, "rope_theta": config.rope.theta, "dtype": dtype},
        **{"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": config.tied},
    }
    return Shapes(LLAMA, config, written)


def llama_3_8b() -> Shapes:
    """Llama-3-8B, stored in bfloat16."""
    kind = {"norm": "rms", "activation": "silu", "gated": True, "rope": Rope(128, 500_000.0), "tied": False}
    biases = {"qkv_bias": False, "o_bias": False, "mlp_bias": False}
    return llama_shapes(DecoderConfig(32, 32, 4096, 14336, 128256, 8192, n_kv_heads=8, **kind, **biases), "bfloat16")


def make(
    folder: Path, shapes: Shapes, tokenizer: Tokenizer, requests: Sequence[EditRequest], layers: Sequence[int]
) -> None:
    """Write a random model, its tokenizer, the requests, and second moments of `layers` if there are any."""
    save_model(random_decoder(shapes), shapes.family, shapes.written, tokenizer.to_str(), folder / "model")
    write_requests(folder / REQUESTS, requests)
    if layers:
        tensors = [shapes.family.edited_tensor(layer) for layer in layers]
        save_moments(random_moments(tensors, shapes.config.d_ff), folder / MOMENTS)


def random_decoder(shapes: Shapes, seed: int = 0) -> Decoder:
    """A decoder as before training: normal weights of SPREAD, norms 1, biases 0; held in the written dtype."""
    rng, dtype = np.random.default_rng(seed), jnp.dtype(shapes.written["dtype"])
    graph, state = nnx.split(nnx.eval_shape(lambda: Decoder(shapes.config, rngs=nnx.Rngs(0))))
    added = 1 / np.sqrt(2 * shapes.config.n_layers) if shapes.family is GPT2 else 1.0
    for path, leaf in nnx.to_flat_state(state):
        if path[-1] in ("scale", "bias"):
            leaf.set_value(jnp.full(leaf.shape, float(path[-1] == "scale"), dtype))
        else:
            drawn = rng.standard_normal(leaf.shape, np.float32)
            drawn *= SPREAD * (added if path[-2] in ("o", "down") else 1.0)
            leaf.set_value(jnp.asarray(drawn, dtype))
    return nnx.merge(graph, state)


def random_moments(tensors: Sequence[str], d_ff: int, seed: int = 1) -> dict[str, SecondMoment]:
    """C of 2 d_ff random keys whose entries have variance 0.1 (about that of a random GPT-2's): kappa is some 34."""
    rng, count = np.random.default_rng(seed), 2 * d_ff
    found = {}
    for tensor in tensors:
        keys = rng.standard_normal((count, d_ff), np.float32)
        found[tensor] = SecondMoment(0.1 * (keys.T @ keys) / count, count)
    return found


def gpt2_tokenizer(shared: Path) -> Tokenizer:
    """GPT-2's byte-level BPE from the vocabulary in the shared folder."""
    source = shared / "data" / "tokenizers" / "gpt2"
    bpe = Tokenizer(models.BPE.from_file(str(source / "encoder.json"), str(source / "vocab.bpe")))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([END])
    return bpe


def counterfact(shared: Path, n: int) -> tuple[EditRequest, ...]:
    """The first n requests of `counterfact-edit.json`."""
    return read_requests(shared / "data" / "counterfact" / "counterfact-edit.json")[:n]


def shared_folder(named: str | None) -> Path:
    """The folder that PRUNEJAX_SHARED names; InputError where it lacks what the benchmarks read."""
    wanted = "GPT-2's vocabulary (data/tokenizers/gpt2) and data/counterfact/counterfact-edit.json"
    if not named:
        raise InputError(f"PRUNEJAX_SHARED is not set: name the folder with {wanted}")
    folder = Path(named).resolve()
    if not all((folder / "data" / part).exists() for part in ("tokenizers/gpt2", "counterfact/counterfact-edit.json")):
        raise InputError(f"PRUNEJAX_SHARED {folder}: lacks {wanted}")
    return folder


def wiki_lines(shared: Path) -> list[str]:
    """The lines of WikiText-2's test part."""
    text = (shared / "data" / "text" / "wiki.test.raw").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if len(line) > 20]
