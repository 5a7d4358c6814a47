"""The value step against a search that runs the whole model on whole prompts at every step; what its settings mean."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from oracles import Search, distance, gpt2, search_target_value
from packed import packed
from prunejax.editors.anchor import wanted_values
from prunejax.editors.facts import Fact, facts_of
from prunejax.editors.rows import fact_rows
from prunejax.editors.shapes import shape_of
from prunejax.editors.value import FactRows, TargetValue, clamp, safe_norm, target_values
from prunejax.editors.value_settings import ValueSettings
from prunejax.models.checkpoints import Model, load_model
from prunejax.models.decoder import Overrides
from prunejax.requests import EditRequest
from prunejax.tokens import tokenize_fact
from tiny import EDITS, TEMPLATES, save_tiny

SETTINGS = ValueSettings(layer=1, steps=8, lr=0.3, weight_decay=0.1, clamp=4.0, kl_factor=0.1, stop_loss=0.0)


@pytest.fixture(scope="module")
def tensors(tiny_folder) -> dict[str, np.ndarray]:
    return load_file(tiny_folder / "model.safetensors")


@pytest.fixture(scope="module")
def rows(tiny_model) -> list[FactRows]:
    """Of each request alone."""
    return packed(tiny_model, EDITS, TEMPLATES, 64)


@pytest.fixture(scope="module")
def facts(tiny_model) -> list[Fact]:
    return facts_of(tiny_model.tokenizer, EDITS, TEMPLATES, 64)


def target_value(model: Model, rows: FactRows, settings: ValueSettings, overrides: Overrides | None = None):
    """Of the only request of these rows."""
    assert len(rows.tail) == 1
    return number_of(target_values(model.decoder, overrides or {}, rows, settings), 0)


def number_of(result: TargetValue, number: int) -> TargetValue:
    return jax.tree.map(lambda part: part[number], result)


@pytest.fixture(scope="module")
def found(tiny_model, rows) -> TargetValue:
    return target_value(tiny_model, rows[2], SETTINGS)


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
    result = target_value(tiny_model, rows[number], settings)
    assert_same(result, slowly(tiny_model, tensors, EDITS[number], settings))


def test_keys_and_values_are_the_unedited_ones_at_the_subject(tiny_model, tensors, found):
    for r, template in enumerate(TEMPLATES):
        edit = EDITS[2]
        fact = tokenize_fact(tiny_model.tokenizer, template.replace("{}", edit.prompt), edit.subject, edit.target_new)
        seen = gpt2(tensors, fact.ids, 2)
        assert distance(found.keys[r], seen.keys[1][fact.subject_last]) < 1e-5
        assert distance(found.values[r], seen.values[1][fact.subject_last]) < 1e-5


def assert_alike(result: TargetValue, expected: TargetValue) -> None:
    """Products of other shapes add up in another order, and Adam's first steps divide by the gradient's own size."""
    assert distance(result.delta, expected.delta) < 3e-5
    assert distance(result.value, expected.value) < 3e-5
    np.testing.assert_allclose(result.losses, expected.losses, rtol=1e-5)
    np.testing.assert_allclose(result.probability, expected.probability, rtol=1e-5)
    assert distance(result.keys, expected.keys) < 1e-5
    assert distance(result.values, expected.values) < 1e-5


def test_what_follows_the_tokens_that_are_read_changes_nothing(tiny_model, facts, found):
    """The target's last token, and " is a" behind the subject of the KL row: the same target value."""
    *contexts, tail = facts[2].suffixes
    is_a = tiny_model.tokenizer(" is a")["input_ids"]
    longer = facts[2]._replace(suffixes=(*((*row, facts[2].labels[-1]) for row in contexts), (*tail, *is_a)))
    result = target_value(tiny_model, fact_rows([longer], shape_of([longer])), SETTINGS)
    assert_alike(result, found)


def test_room_for_longer_requests_changes_nothing(tiny_model, facts, found):
    """Tokens, columns and reads that only other requests of the sequence need."""
    shape = shape_of([facts[2]])
    roomy = type(shape)(shape.rows, *(size + 5 for size in shape[1:]))
    assert_alike(target_value(tiny_model, fact_rows([facts[2]], roomy), SETTINGS), found)


def test_requests_together_are_each_alone(tiny_model, rows, facts):
    """Of other lengths, of targets of one token and of several."""
    together = target_values(tiny_model.decoder, {}, fact_rows(facts, shape_of(facts)), SETTINGS)
    assert together.losses.shape == (3, SETTINGS.steps)
    for number in range(3):
        assert_alike(number_of(together, number), target_value(tiny_model, rows[number], SETTINGS))


def test_a_request_that_stops_early_leaves_the_others_as_they_are(tiny_model, rows, facts):
    """Here only the last of three; alone it stops at the same evaluation, and the others go on without it."""
    whole = target_values(tiny_model.decoder, {}, fact_rows(facts, shape_of(facts)), SETTINGS)
    assert np.min(whole.losses[:2]) > float(np.max(whole.losses[2])), "its losses are the lowest by far"
    settings = replace(SETTINGS, stop_loss=float(np.mean(whole.losses[2, 2:4])))
    stopped = target_values(tiny_model.decoder, {}, fact_rows(facts, shape_of(facts)), settings)
    assert np.isfinite(stopped.losses).sum(axis=1).tolist() == [8, 8, 4]
    for number in range(3):
        assert_alike(number_of(stopped, number), target_value(tiny_model, rows[number], settings))
    for number in range(2):
        assert_alike(number_of(stopped, number), number_of(whole, number))


def test_a_request_that_breaks_leaves_the_others_as_they_are(tiny_model, rows):
    """A position that only a longer request reaches has no embedding."""
    long = replace(EDITS[2], prompt="I think that this is so. I think that this is so. I think that this is {}")
    facts = facts_of(tiny_model.tokenizer, [EDITS[2], long], TEMPLATES, 64)
    reached = [max(len(row) + len(fact.suffixes[0]) for row in fact.prefixes[:-1]) - 1 for fact in facts]
    assert reached[0] < reached[1]
    graph, state = nnx.split(nnx.clone(tiny_model.decoder))
    embeddings = state["wpe"]["embedding"]
    embeddings.set_value(embeddings[...].at[reached[1]].set(jnp.nan))
    found = target_values(nnx.merge(graph, state), {}, fact_rows(facts, shape_of(facts)), SETTINGS)
    assert np.isnan(found.losses[1]).all()
    assert_alike(number_of(found, 0), target_value(tiny_model, rows[2], SETTINGS))


def test_an_edited_model_is_searched_as_such(tiny_model, tensors, rows):
    """Kernels laid over the stack, below, at and above the layer, are the model."""
    rng = np.random.default_rng(3)
    names = {(n, "down"): f"transformer.h.{n}.mlp.c_proj.weight" for n in range(3)}
    laid = {at: (tensors[name] + rng.normal(0, 0.1, (64, 16))).astype(np.float32) for at, name in names.items()}
    result = target_value(tiny_model, rows[2], SETTINGS, laid)
    edited = tensors | {name: laid[at] for at, name in names.items()}
    assert_same(result, slowly(tiny_model, edited, EDITS[2], SETTINGS))


def test_steps_counts_evaluations(tiny_model, rows, found, searched):
    """One update fewer is made; the first evaluation is of delta = 0."""
    one = target_value(tiny_model, rows[2], replace(SETTINGS, steps=1))
    assert one.losses.shape == (1,)
    np.testing.assert_array_equal(one.delta, 0)
    np.testing.assert_allclose(one.losses[0], searched.losses[0], rtol=1e-5)
    five = target_value(tiny_model, rows[2], replace(SETTINGS, steps=5))
    assert distance(five.delta, searched.deltas[4]) < 1e-4
    np.testing.assert_allclose(five.losses, found.losses[:5], rtol=1e-5)


def test_stop_loss_stops_before_the_update(tiny_model, rows, searched):
    """The delta whose loss is the first under stop_loss is the one that is returned."""
    assert searched.losses == sorted(searched.losses, reverse=True)
    limit = float(np.mean(searched.losses[2:4]))
    result = target_value(tiny_model, rows[2], replace(SETTINGS, stop_loss=limit))
    assert np.isfinite(result.losses).tolist() == [True] * 4 + [False] * 4
    assert distance(result.delta, searched.deltas[3]) < 1e-4


def test_the_clamp_holds(tiny_model, tensors, rows, searched):
    settings = replace(SETTINGS, clamp=0.5)
    result = target_value(tiny_model, rows[2], settings)
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
    result = target_value(tiny_model, rows[2], SETTINGS, {(1, "down"): jnp.full((64, 16), jnp.nan)})
    assert np.isnan(result.losses).all()
    assert np.isnan(result.probability)


LONG = replace(SETTINGS, steps=25, lr=2.0, clamp=100.0, weight_decay=0.01, kl_factor=0.01)
SAYABLE = EditRequest("sayable", "I think that this is {}", "Grace Hopper", "Polish")
"""A target of two tokens that a value step can make the model below say."""


class Loud(NamedTuple):
    """A model with a loud vocabulary, its tensors, and the rows of SAYABLE."""

    model: Model
    tensors: dict[str, np.ndarray]
    rows: FactRows


@pytest.fixture(scope="module")
def loud(tmp_path_factory) -> Loud:
    folder = save_tiny(tmp_path_factory.mktemp("loud") / "model", vocabulary=1.0)
    model = load_model(folder)
    (rows,) = packed(model, [SAYABLE], TEMPLATES, 64)
    assert len(rows.labels[rows.share[0] > 0]) == 2 * len(TEMPLATES)
    return Loud(model, load_file(folder / "model.safetensors"), rows)


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_stops_so_many_updates_after_the_target_is_said_in_every_context(loud, patience):
    """Every token of it, per context."""
    first = slowly(loud.model, loud.tensors, SAYABLE, LONG).said.index(True)
    assert first > 1
    settings = replace(LONG, patience=patience)
    searched = slowly(loud.model, loud.tensors, SAYABLE, settings)
    assert len(searched.losses) == first + patience + 1
    assert_same(target_value(loud.model, loud.rows, settings), searched)


@pytest.mark.parametrize("layer", [0, 1])
def test_attention_may_move_too(loud, layer):
    """PMET's value step: two vectors, of which the MLP's is the target value's."""
    settings = replace(LONG, steps=8, layer=layer, sites=("attention", "value"))
    result = target_value(loud.model, loud.rows, settings)
    assert_same(result, slowly(loud.model, loud.tensors, SAYABLE, settings))
    alone = target_value(loud.model, loud.rows, replace(settings, sites=("value",)))
    assert distance(result.delta, alone.delta) > 0.1


@pytest.mark.parametrize("bound", [0.0, 1e-9, 1e9])
def test_where_the_target_is_said_its_nll_weighs_less_and_a_small_kl_stops(loud, bound):
    settings = replace(LONG, steps=10, sites=("attention", "value"), said_weight=0.1, stop_kl=bound)
    searched = slowly(loud.model, loud.tensors, SAYABLE, settings)
    assert any(searched.said)
    assert len(searched.losses) == (searched.said.index(True) + 1 if bound > 1 else 10)
    assert_same(target_value(loud.model, loud.rows, settings), searched)


def test_an_anchored_value_has_the_unedited_models_norm(tiny_model, rows):
    """Whatever earlier edits made of the weights."""
    kernel = 3 * tiny_model.weight(tiny_model.family.edited_tensor(1))
    unedited = target_values(tiny_model.decoder, {}, rows[2], SETTINGS)
    free = wanted_values(tiny_model.decoder, {(1, "down"): kernel}, rows[2], SETTINGS)
    anchored = wanted_values(tiny_model.decoder, {(1, "down"): kernel}, rows[2], replace(SETTINGS, anchor=True))
    norm = np.linalg.norm(unedited.value - unedited.delta)
    np.testing.assert_allclose(np.linalg.norm(anchored.value), norm, rtol=1e-5)
    assert np.linalg.norm(free.value) > 1.5 * norm
    assert distance(anchored.value / norm, free.value / np.linalg.norm(free.value)) < 1e-5
