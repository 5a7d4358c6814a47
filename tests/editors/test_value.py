"""The value step against a search that runs the whole model on whole prompts at every step; what its settings mean."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from oracles import Search, distance, gpt2, search_target_value
from prunejax.editors.keys import fact_rows
from prunejax.editors.value import FactRows, TargetValue, ValueSettings, clamp, safe_norm, target_value
from prunejax.models.checkpoints import Model
from prunejax.requests import EditRequest
from prunejax.tokens import tokenize_fact
from tiny import EDITS, TEMPLATES

SETTINGS = ValueSettings(layer=1, steps=8, lr=0.3, weight_decay=0.1, clamp=4.0, kl_factor=0.1, stop_loss=0.0)


@pytest.fixture(scope="module")
def tensors(tiny_folder) -> dict[str, np.ndarray]:
    return load_file(tiny_folder / "model.safetensors")


@pytest.fixture(scope="module")
def rows(tiny_model) -> list[FactRows]:
    return fact_rows(tiny_model.tokenizer, EDITS, TEMPLATES, 64)


@pytest.fixture(scope="module")
def found(tiny_model, rows) -> TargetValue:
    return target_value(tiny_model.decoder, {}, rows[2], SETTINGS)


def slowly(model: Model, tensors: dict[str, np.ndarray], edit: EditRequest, settings: ValueSettings) -> Search:
    facts = [
        tokenize_fact(model.tokenizer, t.replace("{}", edit.prompt), edit.subject, edit.target_new) for t in TEMPLATES
    ]
    tail = tokenize_fact(model.tokenizer, "{} is a", edit.subject)
    return search_target_value(tensors, 2, facts, (tail.ids, tail.subject_last), settings)


@pytest.fixture(scope="module")
def searched(tiny_model, tensors) -> Search:
    return slowly(tiny_model, tensors, EDITS[2], SETTINGS)


def assert_same(result: TargetValue, expected: Search) -> None:
    n = len(expected.losses)
    assert distance(result.delta, expected.deltas[-1]) < 1e-4
    assert distance(result.value, expected.v0 + expected.deltas[-1]) < 1e-4
    np.testing.assert_allclose(result.losses[:n], expected.losses, rtol=1e-4)
    assert np.isnan(result.losses[n:]).all()
    np.testing.assert_allclose(result.probability, np.exp(-expected.nll), rtol=1e-4)


def test_it_finds_what_the_slow_search_finds(found, searched):
    assert_same(found, searched)
    assert np.linalg.norm(searched.deltas[-1]) > 1
    assert searched.losses[-1] < searched.losses[0] - 0.3


@pytest.mark.parametrize(("layer", "number"), [(0, 1), (2, 2)])
def test_first_and_last_layer(tiny_model, tensors, rows, layer, number):
    """In the last layer nothing but the output matrix is above; the second request has a long target."""
    settings = replace(SETTINGS, layer=layer)
    result = target_value(tiny_model.decoder, {}, rows[number], settings)
    assert_same(result, slowly(tiny_model, tensors, EDITS[number], settings))


def test_keys_and_values_are_the_unedited_ones_at_the_subject(tiny_model, tensors, found):
    for r, template in enumerate(TEMPLATES):
        edit = EDITS[2]
        fact = tokenize_fact(tiny_model.tokenizer, template.replace("{}", edit.prompt), edit.subject, edit.target_new)
        seen = gpt2(tensors, fact.ids, 2)
        assert distance(found.keys[r], seen.keys[1][fact.subject_last]) < 1e-5
        assert distance(found.values[r], seen.values[1][fact.subject_last]) < 1e-5


def test_the_loop_recomputes_no_more_than_it_must(tiny_model, rows, found):
    """All columns after the subject, or just those that are read: the same target value."""
    width = rows[2].tokens.shape[1]
    longer = rows[2]._replace(suffix=np.ones(width, bool))
    assert len(rows[2].suffix) < width
    result = target_value(tiny_model.decoder, {}, longer, SETTINGS)
    assert distance(result.delta, found.delta) < 1e-5
    np.testing.assert_allclose(result.losses, found.losses, rtol=1e-5)


def test_room_for_longer_requests_changes_nothing(tiny_model, rows, found):
    """Columns, labels and offsets that only other requests of the sequence need."""
    wide = rows[2]._replace(
        tokens=np.pad(rows[2].tokens, ((0, 0), (0, 5)), constant_values=7),
        positions=np.pad(rows[2].positions, ((0, 0), (0, 5)), constant_values=-1),
        labels=np.pad(rows[2].labels, (0, 3), constant_values=9),
        label_mask=np.pad(rows[2].label_mask, (0, 3)),
        label_offset=np.pad(rows[2].label_offset, ((0, 0), (0, 3))),
        suffix=np.ones(len(rows[2].suffix) + 4, bool),
    )
    result = target_value(tiny_model.decoder, {}, wide, SETTINGS)
    assert distance(result.delta, found.delta) < 1e-5
    np.testing.assert_allclose(result.losses, found.losses, rtol=1e-5)


def test_an_edited_model_is_searched_as_such(tiny_model, tensors, rows):
    """Kernels laid over the stack, below, at and above the layer, are the model."""
    rng = np.random.default_rng(3)
    names = {(n, "down"): f"transformer.h.{n}.mlp.c_proj.weight" for n in range(3)}
    laid = {at: (tensors[name] + rng.normal(0, 0.1, (64, 16))).astype(np.float32) for at, name in names.items()}
    result = target_value(tiny_model.decoder, laid, rows[2], SETTINGS)
    edited = tensors | {name: laid[at] for at, name in names.items()}
    assert_same(result, slowly(tiny_model, edited, EDITS[2], SETTINGS))


def test_steps_counts_evaluations(tiny_model, rows, found, searched):
    """One update fewer is made; the first evaluation is of delta = 0."""
    one = target_value(tiny_model.decoder, {}, rows[2], replace(SETTINGS, steps=1))
    assert one.losses.shape == (1,)
    np.testing.assert_array_equal(one.delta, 0)
    np.testing.assert_allclose(one.losses[0], searched.losses[0], rtol=1e-5)
    five = target_value(tiny_model.decoder, {}, rows[2], replace(SETTINGS, steps=5))
    assert distance(five.delta, searched.deltas[4]) < 1e-4
    np.testing.assert_allclose(five.losses, found.losses[:5], rtol=1e-5)


def test_stop_loss_stops_before_the_update(tiny_model, rows, searched):
    """The delta whose loss is the first under stop_loss is the one that is returned."""
    assert searched.losses == sorted(searched.losses, reverse=True)
    limit = float(np.mean(searched.losses[2:4]))
    result = target_value(tiny_model.decoder, {}, rows[2], replace(SETTINGS, stop_loss=limit))
    assert np.isfinite(result.losses).tolist() == [True] * 4 + [False] * 4
    assert distance(result.delta, searched.deltas[3]) < 1e-4


def test_the_clamp_holds(tiny_model, tensors, rows, searched):
    settings = replace(SETTINGS, clamp=0.5)
    result = target_value(tiny_model.decoder, {}, rows[2], settings)
    radius = 0.5 * np.linalg.norm(searched.v0)
    assert np.linalg.norm(searched.deltas[-1]) > 1.5 * radius, "unclamped it goes farther"
    np.testing.assert_allclose(np.linalg.norm(result.delta), radius, rtol=1e-5)
    assert_same(result, slowly(tiny_model, tensors, EDITS[2], settings))


def test_the_gradient_of_the_weight_decay_at_zero_is_zero():
    np.testing.assert_array_equal(jax.grad(safe_norm)(jnp.zeros(4)), 0)
    np.testing.assert_allclose(safe_norm(jnp.array([3.0, 4.0])), 5)
    np.testing.assert_allclose(jax.grad(safe_norm)(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)


def test_clamp_scales_back_what_is_longer():
    x = jnp.array([3.0, 4.0])
    np.testing.assert_array_equal(clamp(x, 6.0), x)
    np.testing.assert_allclose(clamp(x, 2.5), [1.5, 2.0], rtol=1e-6)
    np.testing.assert_array_equal(clamp(jnp.zeros(2), 0.0), 0)


def test_a_broken_model_is_searched_to_the_end(tiny_model, rows):
    """NaN is neither hidden nor a reason to hang: it stays in the losses."""
    result = target_value(tiny_model.decoder, {(1, "down"): jnp.full((64, 16), jnp.nan)}, rows[2], SETTINGS)
    assert np.isnan(result.losses).all()
    assert np.isnan(result.probability)
