"""Every family against PyTorch: a committed random checkpoint of each, and what it says of 56 tokens.

`make_references.py` made them. What is wrong must be seen: each family is also run with one thing changed.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from prunejax.errors import InputError
from prunejax.models.checkpoints import config_of, decoder_arrays, load_decoder, load_model
from prunejax.models.config import DecoderConfig
from prunejax.models.decoder import Decoder, logits
from prunejax.models.families import FAMILIES, LLAMA, read_config
from prunejax.models.tensors import checkpoint_tensors

REFERENCES = Path(__file__).parent / "references"
NAMES = sorted(folder.name for folder in REFERENCES.iterdir())
TOLERANCE = 1e-4
"""Of the largest logit."""

run = jax.jit(logits)


def loaded(name: str) -> Decoder:
    return load_decoder(REFERENCES / name)[0]


def error(decoder: Decoder, name: str) -> float:
    """The largest difference to PyTorch's logits, as a share of the largest of them."""
    reference = load_file(REFERENCES / name / "reference.safetensors")
    ids = reference["ids"][None]
    found = run(decoder, ids, np.arange(ids.shape[1], dtype=np.int32)[None])[0]
    return float(np.abs(np.asarray(found) - reference["logits"]).max() / np.abs(reference["logits"]).max())


def reconfigured(decoder: Decoder, change: Callable[[DecoderConfig], DecoderConfig]) -> Decoder:
    """The same weights read by another rule."""
    changed = change(decoder.config)
    graph, _ = nnx.split(nnx.eval_shape(lambda: Decoder(changed, rngs=nnx.Rngs(0))))
    return nnx.merge(graph, nnx.split(decoder)[1])


def with_array(decoder: Decoder, path: str, change: Callable[[jnp.ndarray], jnp.ndarray]) -> Decoder:
    """The same rule with one array changed."""
    graph, state = nnx.split(decoder)
    leaves = []
    for key, leaf in nnx.to_flat_state(state):
        leaves.append((key, leaf.replace(change(leaf[...])) if ".".join(map(str, key)) == path else leaf))
    return nnx.merge(graph, nnx.from_flat_state(leaves))


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_pytorch(name):
    assert error(loaded(name), name) < TOLERANCE


def test_every_family_has_a_reference():
    kinds = {load_decoder(REFERENCES / name)[1].name for name in NAMES}
    assert kinds == set(FAMILIES)


def test_the_references_are_small():
    assert sum(path.stat().st_size for path in REFERENCES.rglob("*") if path.is_file()) < 300_000


def rope(**changes: object) -> Callable[[DecoderConfig], DecoderConfig]:
    return lambda config: replace(config, rope=replace(config.rope, **changes))


def constant(**changes: object) -> Callable[[DecoderConfig], DecoderConfig]:
    return lambda config: replace(config, **changes)


WRONG = [
    *(("epsilon", name, constant(epsilon=1e-6)) for name in NAMES),
    *(("activation", name, constant(activation="gelu")) for name in NAMES if not name.startswith("gpt")),
    *(("activation", name, constant(activation="silu")) for name in ("gpt2", "gptj")),
    *(("rope style", name, rope(interleaved=True)) for name in NAMES if not name.startswith("gpt")),
    ("rope style", "gptj", rope(interleaved=False)),
    ("rope width", "gptj", rope(width=8)),
    ("rope base", "llama", rope(theta=500_000.0)),
    ("rope scaling", "llama3", rope(scaling=None)),
    ("rope scaling", "llama-biased", rope(divisor=1.0)),
    ("window", "mistral", constant(windows=())),
    ("window by one", "mistral", constant(windows=(9, 9))),
    ("window", "qwen2", constant(windows=())),
    ("window of all layers", "qwen2", constant(windows=(16, 16))),
]


@pytest.mark.parametrize(("what", "name", "change"), WRONG, ids=[f"{name}: {what}" for what, name, _ in WRONG])
def test_a_wrong_rule_is_seen(what, name, change):
    assert error(reconfigured(loaded(name), change), name) > 2 * TOLERANCE


def other_heads(width: int) -> Callable[[jnp.ndarray], jnp.ndarray]:
    """Query heads in another order, so that each reads the keys of another group."""
    return lambda kernel: jnp.roll(kernel, width, axis=-1)


DROPPED = [
    *(("heads", name, "blocks.q.kernel", other_heads(8)) for name in NAMES if name != "qwen2"),
    ("bias of queries", "gpt2", "blocks.q.bias", jnp.zeros_like),
    ("bias of keys to values", "gpt2", "blocks.down.bias", jnp.zeros_like),
    ("bias of the MLP", "gptj", "blocks.up.bias", jnp.zeros_like),
    ("bias of the output", "gptj", "head.bias", jnp.zeros_like),
    *((f"bias of {part}", "llama-biased", f"blocks.{part}.bias", jnp.zeros_like) for part in ("v", "o", "gate", "up")),
    *((f"bias of {part}", "qwen2", f"blocks.{part}.bias", jnp.zeros_like) for part in "qkv"),
    *((f"norm of {part}", "qwen3", f"blocks.{part}_norm.scale", jnp.ones_like) for part in "qk"),
]


@pytest.mark.parametrize(
    ("what", "name", "path", "change"), DROPPED, ids=[f"{name}: {what}" for what, name, *_ in DROPPED]
)
def test_a_dropped_or_misplaced_weight_is_seen(what, name, path, change):
    assert error(with_array(loaded(name), path, change), name) > 2 * TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_written_under_the_checkpoints_names_it_is_the_file_again(name):
    decoder, family = load_decoder(REFERENCES / name)
    files = sorted((REFERENCES / name).glob("model*.safetensors"))
    stored = {key: array for file in files for key, array in load_file(file).items()}
    written = checkpoint_tensors(family, decoder_arrays(decoder))
    assert written.keys() == stored.keys()
    for key, array in written.items():
        np.testing.assert_array_equal(array, stored[key].astype(np.float32))


@pytest.mark.parametrize(("dtype", "largest"), [("bfloat16", 0.1), ("float16", 0.02)])
@pytest.mark.parametrize("name", ["gpt2", "gptj", "llama3", "mistral"])
def test_half_precision_is_near_and_its_logits_are_float32(name, dtype, largest):
    decoder, _ = load_decoder(REFERENCES / name, dtype)
    assert {array.dtype for array in decoder_arrays(decoder).values()} == {jnp.dtype(dtype)}
    ids = load_file(REFERENCES / name / "reference.safetensors")["ids"][None]
    assert logits(decoder, ids, np.arange(ids.shape[1])[None]).dtype == jnp.float32
    assert 1e-6 < error(decoder, name) < largest


def test_the_edited_tensors_of_every_family_go_by_the_checkpoints_names():
    names = {family.name: family.edited_tensor(3) for family in FAMILIES.values()}
    llama = "model.layers.3.mlp.down_proj.weight"
    assert names == {
        "gpt2": "transformer.h.3.mlp.c_proj.weight",
        "gptj": "transformer.h.3.mlp.fc_out.weight",
        **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), llama),
    }
    assert LLAMA.kernel_of(llama) == (3, "down")
    assert LLAMA.kernel_of(LLAMA.edited_tensor(11, "up")) == (11, "up")


@pytest.mark.parametrize("name", ["gptj", "llama"])
def test_the_golden_models_are_those_of_the_original_code(shared, name):
    """Their logits on eight prompts, to 1e-5 in norm."""
    model = load_model(shared / "golden" / f"{name}_model")
    with np.load(shared / "golden" / f"{name}_logits.npz") as reference:
        for prompt in range(8):
            ids = reference[f"prompt{prompt}.ids"][None]
            found = np.asarray(logits(model.decoder, ids, np.arange(ids.shape[1])[None])[0])
            expected = reference[f"prompt{prompt}.logits"]
            assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
        ("llama3", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}}, "factor 0.25"),
        ("llama3", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "'yarn' are not supported"),
        ("llama3", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "lack a number"),
        ("llama", {"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ("llama", {"hidden_act": "swiglu"}, "hidden_act 'swiglu' is not supported"),
        ("gptj", {"tie_word_embeddings": True}, "a tied output matrix"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types must name"),
    ],
)
def test_a_config_that_the_decoder_cannot_be_is_refused_in_one_line(name, changes, told):
    config, where = config_of(REFERENCES / name)
    with pytest.raises(InputError) as caught:
        read_config(config | changes, where)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
