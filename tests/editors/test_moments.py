"""Second moments of keys: the mean of outer products, counted out on the plain GPT-2, and their file."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from oracles import distance, gpt2
from prunejax.editors.moments import load_moments, save_moments, second_moments
from prunejax.errors import InputError
from prunejax.files import sha256
from prunejax.models.checkpoints import load_model
from tiny import TEXTS

TEXT = (*TEXTS, "A short one.", " ".join(TEXTS), "")
"""Lines of every length: an empty one, and one longer than the model's positions."""
NAMES = tuple(f"transformer.h.{n}.mlp.c_proj.weight" for n in range(3))


def counted(tensors: dict[str, np.ndarray], pieces: list[list[int]], layer: int) -> np.ndarray:
    """The mean of k k^T, one token at a time."""
    keys = np.concatenate([gpt2(tensors, ids, 2).keys[layer] for ids in pieces])
    return np.mean([np.outer(key, key) for key in keys], axis=0)


@pytest.fixture(scope="module")
def pieces(tiny_model) -> list[list[int]]:
    ids = tiny_model.tokenizer(list(TEXT))["input_ids"]
    assert max(map(len, ids)) > 64
    return [row[i : i + 64] for row in ids for i in range(0, len(row), 64)]


@pytest.fixture(scope="module")
def tensors(tiny_folder) -> dict[str, np.ndarray]:
    return load_file(tiny_folder / "model.safetensors")


@pytest.fixture(scope="module")
def moments(tiny_model):
    return second_moments(tiny_model, TEXT, [2, 0, 1, 2])


def test_the_mean_of_outer_products_of_every_key(moments, tensors, pieces):
    assert tuple(moments) == NAMES
    for layer, name in enumerate(NAMES):
        assert moments[name].matrix.dtype == np.float32
        assert distance(moments[name].matrix, counted(tensors, pieces, layer)) < 1e-5
        assert moments[name].count == sum(map(len, pieces))


def test_neither_the_batch_nor_the_other_layers_matter(tiny_model, moments):
    alone = second_moments(tiny_model, iter(TEXT), [2], rows=3)
    assert list(alone) == [NAMES[2]]
    assert distance(alone[NAMES[2]].matrix, moments[NAMES[2]].matrix) < 1e-5


def test_an_edited_model_is_measured_as_such(tiny_model, tensors, pieces):
    edited = {NAMES[0]: tensors[NAMES[0]][::-1].copy()}
    measured = second_moments(tiny_model.with_weights(edited), TEXT, [1])[NAMES[1]].matrix
    expected = counted(tensors | edited, pieces, 1)
    assert distance(measured, expected) < 1e-5
    assert distance(counted(tensors, pieces, 1), expected) > 0.01


@pytest.mark.parametrize("layers", [[], [3], [-1], [0, 3]])
def test_layers_that_the_model_has_not(tiny_model, layers):
    with pytest.raises(InputError, match="the model has layers 0 to 2"):
        second_moments(tiny_model, TEXT, layers)


@pytest.mark.parametrize("text", [[], [""]])
def test_a_text_without_tokens(tiny_model, text):
    with pytest.raises(InputError, match="no tokens"):
        second_moments(tiny_model, text, [0])


def test_written_then_read_is_the_same(moments, tmp_path):
    path = save_moments(moments, tmp_path / "deep" / "moments.safetensors")
    read = load_moments(path)
    assert set(read.by_tensor) == set(moments)
    for name, moment in moments.items():
        np.testing.assert_array_equal(read.of(name).matrix, moment.matrix)
        assert read.of(name).count == moment.count
    assert read.sha256 == sha256(path)
    with pytest.raises(InputError, match=f"none for other, the file holds {NAMES[0]}"):
        read.of("other")


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({}, "holds no <tensor>.second_moment"),
        ({"w.count": np.array(1)}, "holds no <tensor>.second_moment"),
        ({"w.second_moment": np.ones((2, 3)), "w.count": np.array(1)}, "w.second_moment is not a finite square"),
        (
            {"w.second_moment": np.full((2, 2), np.nan), "w.count": np.array(1)},
            "w.second_moment is not a finite square",
        ),
        ({"w.second_moment": np.ones(4), "w.count": np.array(1)}, "w.second_moment is not a finite square"),
        ({"w.second_moment": np.eye(2)}, "w.count is missing"),
    ],
)
def test_a_file_of_something_else(tmp_path, arrays, told):
    path = tmp_path / "moments.safetensors"
    save_file(arrays, path)
    with pytest.raises(InputError, match=told):
        load_moments(path)


def test_of_a_folder_the_files_that_are_needed_are_read(moments, tmp_path):
    """Another file beside it changes nothing for a run that does not need it."""
    paths = [save_moments({name: moments[name]}, tmp_path / f"{i}.safetensors") for i, name in enumerate(NAMES[:2])]
    alone = load_moments(tmp_path, NAMES[1:2])
    assert (set(alone.by_tensor), alone.sha256) == (set(NAMES[1:2]), sha256(paths[1]))
    both = load_moments(tmp_path, NAMES[:2])
    assert set(both.by_tensor) == set(NAMES[:2])
    assert both.sha256 not in {sha256(path) for path in paths}
    with pytest.raises(InputError, match="no file in this folder has other; make one"):
        load_moments(tmp_path, ["other"])


def test_no_file_and_half_a_file(moments, tmp_path):
    with pytest.raises(InputError, match="no such file; make it with"):
        load_moments(tmp_path / "none.safetensors")
    path = save_moments(moments, tmp_path / "moments.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_moments(path)
    with pytest.raises(InputError):
        load_moments(tmp_path)


def test_the_original_covariance(shared):
    """C of every layer over the reference's own rows of tokens."""
    golden = np.load(shared / "golden" / "covariance.npz")
    model = load_model(shared / "golden" / "model")
    rows = golden["chunks"].tolist()
    model = replace(model, tokenizer=lambda texts: {"input_ids": texts})
    measured = second_moments(model, rows, range(4), rows=32)
    for layer in range(4):
        moment = measured[f"transformer.h.{layer}.mlp.c_proj.weight"]
        assert moment.count == golden["n_tokens"]
        assert distance(moment.matrix, golden[f"layer{layer}.C_f64"]) < 1e-6


def test_the_other_kernel_reads_what_its_layer_normalises(tiny_model):
    found = second_moments(tiny_model, ["A short one."], [1], kernels=("down", "up"))
    assert list(found) == [f"transformer.h.1.mlp.{kernel}.weight" for kernel in ("c_proj", "c_fc")]
    ids = np.array([tiny_model.tokenizer("A short one.")["input_ids"]])
    positions = np.arange(ids.shape[1])[None]
    decoder = tiny_model.decoder
    read = decoder.run_layers(decoder.embed(ids, positions), positions, 0, 2, taps=("up_input",)).taps["up_input"][1, 0]
    expected = np.mean([np.outer(row, row) for row in np.asarray(read)], axis=0)
    assert distance(found["transformer.h.1.mlp.c_fc.weight"].matrix, expected) < 1e-5
    assert distance(found[NAMES[1]].matrix, second_moments(tiny_model, ["A short one."], [1])[NAMES[1]].matrix) < 1e-6
