"""Second moments of keys: the mean of outer products, counted out on the plain GPT-2, and their file."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

import prunejax
from oracles import distance, gpt2
from prunejax import progress
from prunejax.editors import key_sums
from prunejax.editors.moments import (
    ORIGIN,
    SecondMoment,
    load_moments,
    make_moments,
    save_moments,
    second_moments,
)
from prunejax.errors import InputError
from prunejax.files import sha256
from prunejax.models.checkpoints import load_model
from tiny import END, TEXTS, tiny_tokenizer

TEXT = (*TEXTS, "A short one.", " ".join(TEXTS), "")
"""Lines of every length: an empty one, and one longer than the model's positions."""
NAMES = tuple(f"transformer.h.{n}.mlp.c_proj.weight" for n in range(3))


def counted(tensors: dict[str, np.ndarray], pieces: list[list[int]], layer: int) -> np.ndarray:
    """The mean of k k^T, one token at a time."""
    keys = np.concatenate([gpt2(tensors, ids, 2).keys[layer] for ids in pieces])
    return np.mean([np.outer(key, key) for key in keys], axis=0)


@pytest.fixture(scope="module")
def ids(tiny_model) -> list[list[int]]:
    return tiny_model.tokenizer(list(TEXT))["input_ids"]


@pytest.fixture(scope="module")
def pieces(ids) -> list[list[int]]:
    assert max(map(len, ids)) > 64
    return cut(ids, 64)


def cut(ids: list[list[int]], width: int) -> list[list[int]]:
    return [row[i : i + width] for row in ids for i in range(0, len(row), width)]


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


@pytest.mark.parametrize("sizes", [(1, 1, 4096), (1 << 20, 1 << 18, 40), (90, 70, 1), (10**9, 100, 4096)])
def test_neither_what_is_held_at_once_nor_the_other_layers_matter(tiny_model, moments, monkeypatch, sizes):
    for name, size in zip(("CHARACTERS", "POOL", "TOKENS"), sizes, strict=True):
        monkeypatch.setattr(key_sums, name, size)
    alone = second_moments(tiny_model, iter(TEXT), [2])
    assert list(alone) == [NAMES[2]]
    assert distance(alone[NAMES[2]].matrix, moments[NAMES[2]].matrix) < 1e-6
    assert alone[NAMES[2]].count == moments[NAMES[2]].count
    assert alone[NAMES[2]].origin.texts == moments[NAMES[2]].origin.texts


@pytest.mark.parametrize("longest", [1, 7, 63, 1000])
def test_a_cap_cuts_and_loses_no_token(tiny_model, tensors, ids, longest):
    measured = second_moments(tiny_model, TEXT, [1], max_length=longest)[NAMES[1]]
    assert measured.count == sum(map(len, ids))
    assert measured.origin.max_length == min(longest, 64), "the model has 64 positions"
    assert distance(measured.matrix, counted(tensors, cut(ids, min(longest, 64)), 1)) < 1e-5


@pytest.mark.parametrize("most", [1, 40, 100])
def test_the_first_tokens_are_those_in_order(tiny_model, tensors, ids, most):
    """As many as were asked for, of a text without end."""
    measured = second_moments(tiny_model, itertools.cycle(TEXT), [1], max_tokens=most)[NAMES[1]]
    assert measured.count == most
    flat = [(number, i) for number, row in enumerate(ids * 2) for i in row][:most]
    kept = [[i for other, i in flat if other == number] for number in range(flat[-1][0] + 1)]
    assert distance(measured.matrix, counted(tensors, cut(kept, 64), 1)) < 1e-5


def test_more_tokens_than_there_are_is_all_of_them(tiny_model, moments):
    measured = second_moments(tiny_model, TEXT, [1], max_tokens=10**6)[NAMES[1]]
    np.testing.assert_array_equal(measured.matrix, moments[NAMES[1]].matrix)
    assert measured.count == moments[NAMES[1]].count


def test_what_the_tokenizer_puts_before_a_text_stands_there_once(tiny_model, tensors, ids):
    bpe = tiny_tokenizer()
    bpe.post_processor = TemplateProcessing(single=f"{END} $A", special_tokens=[(END, bpe.token_to_id(END))])
    model = replace(tiny_model, tokenizer=PreTrainedTokenizerFast(tokenizer_object=bpe))
    expected = cut([[bpe.token_to_id(END), *row] for row in ids], 64)
    measured = second_moments(model, TEXT, [1])[NAMES[1]]
    assert measured.count == sum(map(len, ids)) + len(TEXT)
    assert distance(measured.matrix, counted(tensors, expected, 1)) < 1e-5


def test_an_edited_model_is_measured_as_such(tiny_model, tensors, pieces):
    edited = {NAMES[0]: tensors[NAMES[0]][::-1].copy()}
    measured = second_moments(tiny_model.with_weights(edited), TEXT, [1])[NAMES[1]].matrix
    expected = counted(tensors | edited, pieces, 1)
    assert distance(measured, expected) < 1e-5
    assert distance(counted(tensors, pieces, 1), expected) > 0.01


@pytest.fixture
def interrupted(tiny_model, tmp_path, monkeypatch):
    """A file whose sums were cut in the third pool of several, of which two were saved, and the pools that were added
    so far; `asked` is what was asked for."""
    added, add_pool = [], key_sums.add_pool

    def cutting(model, sums, pool, *given):
        added.append(pool)
        if len(added) == 3:
            raise KeyboardInterrupt
        return add_pool(model, sums, pool, *given)

    for name, value in (("SAVE_SECONDS", 0.0), ("SHARE", math.inf)):
        monkeypatch.setattr(progress, name, value)
    monkeypatch.setattr(key_sums, "POOL", 60)
    monkeypatch.setattr(key_sums, "add_pool", cutting)
    path, asked = tmp_path / "moments.safetensors", {"max_length": 40, "max_tokens": 330, "corpus": "text.txt"}
    with pytest.raises(KeyboardInterrupt):
        make_moments(path, tiny_model, itertools.cycle(TEXT), [1], **asked)
    assert [file.name for file in tmp_path.iterdir()] == [".moments.safetensors.progress"]
    return path, added, asked


def test_moments_that_were_cut_go_on_from_the_last_saved_pool_to_the_same_bits(tiny_model, interrupted, tmp_path):
    path, added, asked = interrupted
    noted, first = [], [list(pool) for pool in added]
    added[:] = [None] * 3  # which does not cut any more
    taken_up = make_moments(path, tiny_model, itertools.cycle(TEXT), [1], **asked, note=noted.append)
    again, added[:] = added[3:], [None] * 3
    whole = tmp_path / "whole.safetensors"
    save_moments(second_moments(tiny_model, itertools.cycle(TEXT), [1], **asked), whole)
    assert added[3:] == [*first[:2], *again], "two pools were not added again"
    assert len(again) >= 3
    assert taken_up[NAMES[1]].count == 330
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, whole.name]
    assert noted == []


def test_moments_of_something_else_are_not_taken_up(tiny_model, interrupted):
    path, _, asked = interrupted
    before = path.with_name(".moments.safetensors.progress").read_bytes()
    other = replace(tiny_model, sha256="0" * 64)
    said = rf"layers \[1\] -> \[0\]; max_length 40 -> 30; model '{tiny_model.sha256}' -> '0+'; tokens 330 -> 331\)"
    with pytest.raises(InputError, match=said):
        make_moments(path, other, TEXT, [0], **asked | {"max_length": 30, "max_tokens": 331})
    for text in (TEXT[::-1], TEXT[:1]):
        with pytest.raises(InputError, match=r"text: does not begin with what was read for .*; give the same text"):
            make_moments(path, tiny_model, text, [1], **asked)
    assert path.with_name(".moments.safetensors.progress").read_bytes() == before


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


def test_a_file_says_what_it_was_made_of(tiny_model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(line + "\n" for line in TEXT), encoding="utf-8")
    found = second_moments(tiny_model, TEXT, [1], max_length=20, corpus="text.txt")
    read = load_moments(save_moments(found, tmp_path / "moments.safetensors")).of(NAMES[1])
    assert read.origin == found[NAMES[1]].origin
    assert read.origin.corpus == "text.txt"
    assert read.origin.texts == sha256(text)
    assert read.origin.model == tiny_model.sha256
    assert read.origin.max_length == 20
    assert read.origin.version == prunejax.__version__
    eigenvalues = np.linalg.eigvalsh(read.matrix.astype(np.float64))
    assert read.origin.kappa == pytest.approx(eigenvalues[-1] / eigenvalues[0], rel=6e-3)
    scale = np.diag(read.matrix) ** -0.5
    eigenvalues = np.linalg.eigvalsh((read.matrix * scale * scale[:, None]).astype(np.float64))
    assert read.origin.scaled_kappa == pytest.approx(eigenvalues[-1] / eigenvalues[0], rel=6e-3)


def test_the_hash_is_of_the_texts_that_were_read(tiny_model, ids):
    def hashed(texts, most=None):
        return second_moments(tiny_model, texts, [0], max_tokens=most)[NAMES[0]].origin.texts

    assert hashed(TEXTS, len(ids[0])) == hashed(TEXTS[:1]) != hashed(TEXTS)
    assert hashed(TEXTS, len(ids[0]) + 1) == hashed(TEXTS[:2])
    assert hashed(TEXTS[::-1]) != hashed(TEXTS)


def test_fewer_keys_than_dimensions_have_no_condition_number(tiny_model, tmp_path):
    found = second_moments(tiny_model, TEXT, [1], max_tokens=63)
    read = load_moments(save_moments(found, tmp_path / "moments.safetensors")).of(NAMES[1])
    assert (read.count, read.origin.kappa, read.origin.scaled_kappa) == (63, math.inf, math.inf)
    assert second_moments(tiny_model, TEXT, [1], max_tokens=200)[NAMES[1]].origin.kappa < math.inf


def test_made_again_it_is_the_same_to_the_byte(tiny_model, tmp_path):
    files = []
    for name in ("one", "other"):
        found = second_moments(tiny_model, TEXT, range(3), kernels=("down", "up"))
        files.append(save_moments(found, tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_a_file_without_origin_is_read(moments, tmp_path):
    plain = {name: SecondMoment(moment.matrix, moment.count) for name, moment in moments.items()}
    path = save_moments(plain, tmp_path / "old.safetensors")
    with safe_open(path, framework="numpy") as handle:
        assert handle.metadata() is None
    read = load_moments(path)
    assert [read.of(name).origin for name in NAMES] == [None] * 3
    np.testing.assert_array_equal(read.of(NAMES[0]).matrix, moments[NAMES[0]].matrix)


@pytest.mark.parametrize("written", ["", "[]", '{"w": 3}', '{"w": {}}', '{"w": {"corpus": "a"}}', "kappa"])
def test_an_origin_that_cannot_be_read(tmp_path, written):
    arrays = {"w.second_moment": np.eye(2, dtype=np.float32), "w.count": np.array(3)}
    save_file(arrays, tmp_path / "moments.safetensors", metadata={ORIGIN: written})
    with pytest.raises(InputError, match="is not what prunejax writes; make it again"):
        load_moments(tmp_path / "moments.safetensors")
    save_file(arrays, tmp_path / "moments.safetensors", metadata={"format": written, ORIGIN: json.dumps({})})
    assert load_moments(tmp_path / "moments.safetensors").of("w").origin is None


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
    rows = [" ".join(map(str, row)) for row in golden["chunks"].tolist()]
    model = replace(model, tokenizer=lambda texts, **_: {"input_ids": [list(map(int, t.split())) for t in texts]})
    measured = second_moments(model, rows, range(4))
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
