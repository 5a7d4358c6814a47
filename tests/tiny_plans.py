"""Models as shapes for plans: a config.json of any size, laid out on a mesh."""

import json
import tempfile
from pathlib import Path
from typing import Any

import jax
from jax.sharding import AbstractMesh

from prunejax.abstract import abstract_mesh, abstract_model
from prunejax.models.checkpoints import Model


def config_of(kind: str, n_layers: int, d_model: int, vocab_size: int) -> dict[str, Any]:
    """The config.json of a GPT-2 of these sizes, or of a Llama with half as many key and value heads as heads."""
    if kind == "gpt2":
        return {
            "model_type": "gpt2",
            "n_layer": n_layers,
            "n_head": d_model // 32,
            "n_embd": d_model,
            "n_positions": 64,
            "vocab_size": vocab_size,
        }
    return {
        "model_type": "llama",
        "num_hidden_layers": n_layers,
        "num_attention_heads": d_model // 32,
        "num_key_value_heads": d_model // 64,
        "hidden_size": d_model,
        "intermediate_size": 3 * d_model,
        "max_position_embeddings": 64,
        "vocab_size": vocab_size,
    }


def model_of(
    kind: str, *, n_layers: int, d_model: int, vocab_size: int, dtype: str = "float32", mesh: AbstractMesh | None = None
) -> Model:
    """The model of `config_of`, without numbers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config_of(kind, n_layers, d_model, vocab_size)))
        return abstract_model(str(path), dtype, mesh or abstract_mesh(None))


def on_one_device(tree: Any) -> Any:
    """The same shapes, laid out on no mesh."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
