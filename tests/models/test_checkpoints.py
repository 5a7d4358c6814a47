"""Hugging Face folders in and out: what is written is read again, old files load, broken ones are told in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig

from prunejax.errors import InputError
from prunejax.models.checkpoints import decoder_arrays, load_model, save_model
from prunejax.models.families.gpt2 import GPT2, config_json
from prunejax.models.tensors import checkpoint_tensors
from tiny import END, save_tiny, tiny_tokenizer

LAYER_TENSORS = {
    "ln_1.weight": (16,),
    "ln_1.bias": (16,),
    "attn.c_attn.weight": (16, 48),
    "attn.c_attn.bias": (48,),
    "attn.c_proj.weight": (16, 16),
    "attn.c_proj.bias": (16,),
    "ln_2.weight": (16,),
    "ln_2.bias": (16,),
    "mlp.c_fc.weight": (16, 64),
    "mlp.c_fc.bias": (64,),
    "mlp.c_proj.weight": (64, 16),
    "mlp.c_proj.bias": (16,),
}


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny model's folder to be broken."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def tensors(tiny_folder) -> dict[str, np.ndarray]:
    return load_file(tiny_folder / "model.safetensors")


def rewrite_weights(folder: Path, change: Callable[[dict], dict]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def rewrite_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def refusal(folder: Path) -> str:
    """The one line with which the folder is refused."""
    with pytest.raises(InputError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_the_file_holds_gpt2_names_and_layouts(tensors):
    expected = {f"transformer.h.{n}.{name}": shape for n in range(3) for name, shape in LAYER_TENSORS.items()}
    expected |= {"transformer.wte.weight": (330, 16), "transformer.wpe.weight": (64, 16)}
    expected |= {"transformer.ln_f.weight": (16,), "transformer.ln_f.bias": (16,)}
    assert {name: array.shape for name, array in tensors.items()} == expected


def test_every_parameter_comes_from_its_own_tensor(tiny_model, tensors):
    """By the checkpoint's definition: c_attn holds queries, keys and values side by side, kernels are [in, out]."""
    blocks = tiny_model.decoder.blocks
    for n in range(3):
        for part, start in (("q", 0), ("k", 16), ("v", 32)):
            linear, fused = getattr(blocks, part), f"transformer.h.{n}.attn.c_attn"
            np.testing.assert_array_equal(linear.kernel[...][n], tensors[f"{fused}.weight"][:, start : start + 16])
            np.testing.assert_array_equal(linear.bias[...][n], tensors[f"{fused}.bias"][start : start + 16])
        for part, name in (("o", "attn.c_proj"), ("up", "mlp.c_fc"), ("down", "mlp.c_proj")):
            np.testing.assert_array_equal(
                getattr(blocks, part).kernel[...][n], tensors[f"transformer.h.{n}.{name}.weight"]
            )
            np.testing.assert_array_equal(getattr(blocks, part).bias[...][n], tensors[f"transformer.h.{n}.{name}.bias"])
        for part in ("ln_1", "ln_2"):
            np.testing.assert_array_equal(
                getattr(blocks, part).scale[...][n], tensors[f"transformer.h.{n}.{part}.weight"]
            )
    np.testing.assert_array_equal(tiny_model.decoder.wte.embedding[...], tensors["transformer.wte.weight"])
    np.testing.assert_array_equal(tiny_model.decoder.wpe.embedding[...], tensors["transformer.wpe.weight"])


def test_read_then_written_is_the_same_file_to_the_byte(tiny_model, tiny_folder, tmp_path):
    again = save_model(
        tiny_model.decoder,
        GPT2,
        config_json(tiny_model.config, 0, "float32"),
        tiny_tokenizer().to_str(),
        tmp_path / "again",
    )
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (again / name).read_bytes() == (tiny_folder / name).read_bytes()


def test_written_then_read_is_the_same_model(tiny_model, tensors):
    for name, array in checkpoint_tensors(GPT2, decoder_arrays(tiny_model.decoder)).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, tensors[name])


def test_float16_is_read_as_its_rounding_in_float32(tensors, tmp_path):
    half = save_tiny(tmp_path / "half", dtype="float16")
    stored = load_file(half / "model.safetensors")
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}
    for name, array in checkpoint_tensors(GPT2, decoder_arrays(load_model(half).decoder)).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, tensors[name].astype(np.float16).astype(np.float32))


def test_transformers_reads_the_config_and_the_tokenizer(tiny_folder, tiny_model):
    config = AutoConfig.from_pretrained(tiny_folder, local_files_only=True)
    assert (config.model_type, config.n_layer, config.n_head, config.n_embd) == ("gpt2", 3, 2, 16)
    assert (config.n_inner, config.n_positions, config.vocab_size, config.layer_norm_epsilon) == (64, 64, 330, 1e-5)
    assert (config.activation_function, config.tie_word_embeddings) == ("gelu_new", True)
    assert tiny_model.tokenizer.eos_token == END
    assert config.eos_token_id == tiny_model.tokenizer.eos_token_id == 0
    text = "Ada Lovelace lives in Rome, naïve — 3 "
    assert tiny_model.tokenizer(text)["input_ids"] == tiny_tokenizer().encode(text).ids
    assert tiny_model.tokenizer.decode(tiny_model.tokenizer(text)["input_ids"]) == text


def test_an_old_file_loads_without_prefix_and_with_buffers(folder, tensors):
    def aged(arrays: dict) -> dict:
        old = {name.removeprefix("transformer."): array for name, array in arrays.items()}
        for n in range(3):
            old[f"h.{n}.attn.bias"] = np.ones((1, 1, 64, 64), np.float32)
            old[f"h.{n}.attn.masked_bias"] = np.array(-1e4, np.float32)
        return old | {"lm_head.weight": arrays["transformer.wte.weight"]}

    rewrite_weights(folder, aged)
    rewrite_config(folder, n_inner=None, activation_function=..., layer_norm_epsilon=..., tie_word_embeddings=...)
    for name, array in checkpoint_tensors(GPT2, decoder_arrays(load_model(folder).decoder)).items():
        np.testing.assert_array_equal(array, tensors[name])


def test_all_that_is_missing_extra_and_misshapen_is_told_at_once(folder):
    def broken(arrays: dict) -> dict:
        del arrays["transformer.h.1.mlp.c_proj.weight"], arrays["transformer.ln_f.bias"]
        arrays["transformer.h.3.ln_1.weight"] = np.ones(16, np.float32)
        arrays["transformer.wpe.weight"] = np.ones((65, 16), np.float32)
        arrays["transformer.h.0.attn.c_attn.weight"] = np.ones((16, 47), np.float32)
        arrays["transformer.h.2.mlp.c_fc.weight"] = np.ones((64, 16), np.float32)
        return arrays

    rewrite_weights(folder, broken)
    message = refusal(folder)
    missing, extra, shapes = (message.split(kind)[1] for kind in ("missing: ", "extra: ", "shapes: "))
    assert missing.split(";")[0] == "transformer.ln_f.bias, transformer.h.1.mlp.c_proj.weight"
    assert extra.split(";")[0] == "transformer.h.3.ln_1.weight"
    assert "transformer.wpe.weight is (65, 16), expected (64, 16)" in shapes
    assert "transformer.h.0.attn.c_attn.weight is (16, 47), expected (16, 48)" in shapes
    assert "transformer.h.2.mlp.c_fc.weight is (64, 16), expected (16, 64)" in shapes
    assert shapes.count("expected") == 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "bert"}, "'bert' is not supported"),
        ({"model_type": ...}, "model_type None"),
        ({"activation_function": "relu"}, "activation_function 'relu'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"tie_word_embeddings": False}, "untied"),
        ({"n_embd": ...}, "n_embd"),
        ({"n_layer": "three"}, "three"),
        ({"n_positions": [64]}, "missing or not a whole number"),
        ({"n_head": 3}, "n_embd 16 is not a multiple of n_head 3"),
        ({"n_head": 0}, "must be positive"),
        ({"n_layer": 4}, "missing: transformer.h.3.ln_1.weight"),
        ({"n_layer": 2}, "extra: transformer.h.2."),
        ({"n_inner": 32}, "transformer.h.1.mlp.c_fc.weight is (16, 64), expected (16, 32)"),
    ],
)
def test_a_config_that_does_not_fit(folder, changes, told):
    rewrite_config(folder, **changes)
    assert told in refusal(folder)


@pytest.mark.parametrize(("text", "told"), [("{", "not valid JSON"), ("[1]", "a JSON object was expected")])
def test_a_config_that_is_none(folder, text, told):
    (folder / "config.json").write_text(text)
    assert told in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_is_not_there(folder, name):
    (folder / name).unlink()
    refusal(folder)


@pytest.mark.parametrize("kept", [0, 7, 200, 10_000, -1])
def test_a_truncated_file(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "not a whole safetensors file" in refusal(folder)


def test_no_folder(tmp_path):
    assert "no such folder" in refusal(tmp_path / "nowhere")


def test_a_kernel_goes_by_the_checkpoints_name(tiny_model, tensors):
    for layer in (0, 2):
        for kernel, suffix in (("down", "c_proj"), ("up", "c_fc")):
            name = f"transformer.h.{layer}.mlp.{suffix}.weight"
            assert GPT2.edited_tensor(layer, kernel) == name
            assert GPT2.kernel_of(name) == (layer, kernel)
            np.testing.assert_array_equal(tiny_model.weight(name), tensors[name])
    assert GPT2.kernel_of(GPT2.edited_tensor(47)) == (47, "down")


@pytest.mark.parametrize(
    "name", ["transformer.h.0.attn.c_proj.weight", "transformer.h.x.mlp.c_proj.weight", "h.0.mlp.c_proj.weight", ""]
)
def test_a_tensor_that_is_no_kernel(tiny_model, name):
    with pytest.raises(InputError, match="not an MLP kernel"):
        tiny_model.weight(name)


def test_a_layer_that_the_model_has_not(tiny_model):
    with pytest.raises(InputError, match="has 3 layers"):
        tiny_model.weight(GPT2.edited_tensor(3))


def test_new_kernels_are_laid_over_the_model_not_into_it(tiny_model):
    name, other = GPT2.edited_tensor(1), GPT2.edited_tensor(2)
    before = np.asarray(tiny_model.weight(name))
    edited = tiny_model.with_weights({name: before + 1}).with_weights({other: before + 2})
    np.testing.assert_array_equal(edited.weight(name), before + 1)
    np.testing.assert_array_equal(edited.weight(other), before + 2)
    np.testing.assert_array_equal(tiny_model.weight(name), before)
    assert edited.decoder is tiny_model.decoder
    assert tiny_model.overrides == {}
