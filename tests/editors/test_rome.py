"""ROME and r-ROME: the closed form written out, what it does to the model, and when it refuses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracles import distance
from packed import unpacked
from prunejax.editors.anchor import wanted_values
from prunejax.editors.editor import State
from prunejax.editors.metric import inverse_second_moment
from prunejax.editors.moments import Moments, SecondMoment
from prunejax.editors.rome import Fixed, RomeSettings, rome
from prunejax.editors.value import FactRows, TargetValue, target_values
from prunejax.editors.value_settings import ValueSettings
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import logits
from prunejax.update import apply, dense
from tiny import EDITS, TEMPLATES

TENSOR = "transformer.h.1.mlp.c_proj.weight"
COMMON: dict[str, Any] = {"steps": 6, "lr": 0.5, "weight_decay": 0.05, "clamp": 4.0, "kl_factor": 0.0625}
VALUE = ValueSettings(layer=1, stop_loss=0.05, **COMMON)
both = pytest.mark.parametrize("consistent", [False, True], ids=["rome", "r-rome"])


def settings(**changed: Any) -> RomeSettings:
    return RomeSettings(**{"layers": (1,), **COMMON, **changed})


@pytest.fixture(scope="module")
def c() -> np.ndarray:
    """A second moment that is far from the identity."""
    samples = np.random.default_rng(0).normal(size=(200, 64)) * np.geomspace(0.1, 3, 64)
    return (samples.T @ samples / 200).astype(np.float32)


@pytest.fixture(scope="module")
def moments(c) -> Moments:
    return Moments({TENSOR: SecondMoment(c, 200)}, "0" * 64)


def edit(
    model: Model, moments: Moments | None, chosen: RomeSettings, consistent: bool, number: int = 2, contexts=TEMPLATES
):
    """One edit: the update, the diagnostics and the rows."""
    editor = rome(chosen, consistent=consistent)
    rows = editor.prepare(model, EDITS, contexts, 1)[number]
    updates, _, _, diagnostics = editor.step(model, editor.init(model, moments, 8), rows, jax.random.key(0))
    return updates[TENSOR], diagnostics, rows


def target_value(model: Model, rows: FactRows) -> TargetValue:
    """Of the only request of these rows."""
    assert len(rows.tail) == 1
    return jax.tree.map(lambda part: part[0], target_values(model.decoder, {}, rows, VALUE))


@both
def test_the_closed_form(tiny_model, moments, c, consistent):
    """u = C^-1 k* / |C^-1 k*| with k* the mean key; DeltaW = u (z - W k)^T / (k . u)."""
    update, diagnostics, rows = edit(tiny_model, moments, settings(), consistent)
    target = jax.tree.map(lambda x: np.asarray(x, np.float64), target_value(tiny_model, rows))
    k_star = target.keys.mean(0)
    u = np.linalg.solve(c.astype(np.float64), k_star)
    u /= np.linalg.norm(u)
    key, output = (k_star, target.values.mean(0)) if consistent else (target.keys[0], target.values[0])
    expected = np.outer(u, (target.value - output) / (key @ u))
    assert distance(dense(update), expected) < 1e-4
    assert update.left.shape == (64, 1)
    assert update.right.shape == (1, 16)
    assert distance(update.left[:, 0], u) < 1e-4

    np.testing.assert_allclose(diagnostics["denominator"], key @ u, rtol=1e-4)
    np.testing.assert_allclose(diagnostics["update_norm"], np.linalg.norm(expected), rtol=1e-4)
    np.testing.assert_allclose(diagnostics["delta_norm"], np.linalg.norm(target.delta), rtol=1e-5)
    np.testing.assert_allclose(diagnostics["loss_first"], target.losses[0], rtol=1e-6)
    np.testing.assert_allclose(diagnostics["loss_last"], target.losses[-1], rtol=1e-6)
    np.testing.assert_allclose(diagnostics["probability"], target.probability, rtol=1e-6)
    assert diagnostics["steps"] == 6
    assert diagnostics["finite"]


@both
def test_the_edited_matrix_answers_the_key_with_the_target_value(tiny_model, moments, consistent):
    """At the bare prompt as published; in r-ROME on the average over contexts, bare prompt included."""
    update, _, rows = edit(tiny_model, moments, settings(), consistent)
    target = target_value(tiny_model, rows)
    edited = tiny_model.with_weights({TENSOR: apply(tiny_model.weight(TENSOR), update)})
    read = unpacked(rows)
    h = tiny_model.decoder.embed(read.tokens, read.positions)
    seen = edited.decoder.run_layers(h, read.positions, 0, 2, taps=("value",), overrides=edited.overrides)
    values = np.asarray(seen.taps["value"])[1, np.arange(len(TEMPLATES)), read.subject_last[:-1]]
    bare, average = distance(values[0], target.value), distance(values.mean(0), target.value)
    hit, missed = (average, bare) if consistent else (bare, average)
    assert hit < 1e-4
    assert missed > 1e-2


def test_with_the_identity_the_update_lies_along_the_mean_key(tiny_model, moments):
    update, _, rows = edit(tiny_model, None, settings(second_moment="identity"), False)
    k_star = np.asarray(target_value(tiny_model, rows).keys).mean(0)
    assert distance(update.left[:, 0], k_star / np.linalg.norm(k_star)) < 1e-5
    ignored, *_ = edit(tiny_model, moments, settings(second_moment="identity"), False)
    np.testing.assert_array_equal(ignored.left, update.left)


def test_with_the_bare_prompt_alone_both_methods_are_one(tiny_model, moments):
    published, consistent = (
        edit(tiny_model, moments, settings(), which, contexts=("{}",))[0] for which in (False, True)
    )
    assert distance(dense(published), dense(consistent)) < 1e-5
    published, consistent = (edit(tiny_model, moments, settings(), which)[0] for which in (False, True))
    assert distance(dense(published), dense(consistent)) > 0.01


@both
@pytest.mark.parametrize("number", range(len(EDITS)))
def test_the_target_becomes_likelier(tiny_model, moments, consistent, number):
    update, _, rows = edit(tiny_model, moments, settings(), consistent, number)
    edited = tiny_model.with_weights({TENSOR: apply(tiny_model.weight(TENSOR), update)})
    read = unpacked(rows)
    bare = (rows.share[0] > 0) & (read.row == 0)

    def log_p(model: Model) -> float:
        predicted = jax.nn.log_softmax(
            logits(model.decoder, read.tokens[:1], read.positions[:1], model.overrides)[0], axis=-1
        )
        return float(np.mean(np.asarray(predicted)[read.column[bare], rows.labels[bare]]))

    assert log_p(edited) > log_p(tiny_model) + (0.1 if number == 2 else 0)


@both
def test_a_sequence_compiles_a_program_a_shape(tiny_model, moments, consistent):
    """Every request on the weights that the earlier ones left; few requests share one shape, and a second pass compiles
    nothing."""
    editor = rome(settings(), consistent=consistent)
    batches, state = editor.prepare(tiny_model, EDITS, TEMPLATES, 1), editor.init(tiny_model, moments, 8)
    weights = {TENSOR: tiny_model.weight(TENSOR)}
    assert len({tuple(np.shape(part) for part in jax.tree.leaves(batch)) for batch in batches}) == 1
    wanted_values.clear_cache()
    for number, batch in enumerate(batches * 2):
        updates, _, state, _ = editor.step(tiny_model.with_weights(weights), state, batch, jax.random.key(number))
        weights = {TENSOR: apply(weights[TENSOR], updates[TENSOR])}
        assert wanted_values._cache_size() == 1


def test_as_many_programs_as_shapes(tiny_model, moments, monkeypatch):
    """Where compiling is as good as free, each request has its own."""
    monkeypatch.setattr("prunejax.editors.shapes.COMPILING", 1.0)
    editor = rome(settings())
    batches, state = editor.prepare(tiny_model, EDITS, TEMPLATES, 1), editor.init(tiny_model, moments, 8)
    model = tiny_model.with_weights({TENSOR: tiny_model.weight(TENSOR)})
    shapes = {tuple(np.shape(part) for part in jax.tree.leaves(batch)) for batch in batches}
    assert len(shapes) > 1
    wanted_values.clear_cache()
    for _ in range(2):
        for batch in batches:
            editor.step(model, state, batch, jax.random.key(0))
        assert wanted_values._cache_size() == len(shapes)


@both
@pytest.mark.parametrize("broken", ["weight", "inverse"])
def test_what_is_not_finite_is_flagged_and_not_applied(tiny_model, consistent, broken):
    """A collapsed weight; a second moment in which the key has no length."""
    editor = rome(settings(), consistent=consistent)
    rows = editor.prepare(tiny_model, EDITS, TEMPLATES, 1)[2]
    kernel = jnp.full((64, 16), jnp.nan) if broken == "weight" else tiny_model.weight(TENSOR)
    inverse = jnp.eye(64) if broken == "weight" else jnp.zeros((64, 64))
    updates, _, _, diagnostics = editor.step(
        tiny_model.with_weights({TENSOR: kernel}), State(Fixed(inverse, {})), rows, jax.random.key(0)
    )
    assert not diagnostics["finite"]
    np.testing.assert_array_equal(dense(updates[TENSOR]), 0)
    assert diagnostics["update_norm"] == 0
    assert np.isnan(diagnostics["loss_last"]) == (broken == "weight")


def test_the_inverse_of_the_second_moment(c):
    assert distance(inverse_second_moment(c, 0.0, 64), np.linalg.inv(c.astype(np.float64))) < 1e-6
    ridged = c + 0.1 * np.trace(c) / 64 * np.eye(64)
    assert distance(inverse_second_moment(c, 0.1, 64), np.linalg.inv(ridged)) < 1e-6


def test_the_ridge_reaches_the_edit(tiny_model, moments, c):
    ridged = Moments(
        {TENSOR: SecondMoment(c + np.float32(0.1 * np.trace(c) / 64) * np.eye(64, dtype=np.float32), 200)}, ""
    )
    with_ridge, *_ = edit(tiny_model, moments, settings(ridge=0.1), False)
    by_hand, *_ = edit(tiny_model, ridged, settings(), False)
    without, *_ = edit(tiny_model, moments, settings(), False)
    assert distance(with_ridge.left, by_hand.left) < 1e-4
    assert distance(with_ridge.left, without.left) > 0.01


def test_a_singular_second_moment_is_refused_unless_ridged(c):
    few = c.copy()
    few[7], few[:, 7] = 0, 0
    with pytest.raises(InputError, match="singular; collect more text, or set ridge"):
        inverse_second_moment(few, 0.0, 64)
    assert np.isfinite(inverse_second_moment(few, 0.1, 64)).all()


def test_second_moments_of_another_model_are_refused(tiny_model, c):
    small = Moments({TENSOR: SecondMoment(c[:8, :8], 1)}, "")
    with pytest.raises(InputError, match=r"\(8, 8\), the model's keys have 64 dimensions"):
        rome(settings()).init(tiny_model, small, 8)
    other = Moments({"transformer.h.0.mlp.c_proj.weight": SecondMoment(c, 1)}, "")
    with pytest.raises(InputError, match=f"none for {TENSOR}"):
        rome(settings()).init(tiny_model, other, 8)


def test_without_second_moments_it_says_how_to_make_them(tiny_model):
    with pytest.raises(InputError, match="prunejax moments"):
        rome(settings()).init(tiny_model, None, 8)


@pytest.mark.parametrize("layer", [3, -1])
def test_a_layer_that_the_model_has_not(tiny_model, layer):
    with pytest.raises(InputError, match="the model has layers 0 to 2"):
        rome(settings(layers=(layer,))).tensors(tiny_model)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"layers": ()}, "exactly one layer"),
        ({"layers": (1, 2)}, "exactly one layer"),
        ({"second_moment": "none"}, "corpus or identity"),
        ({"steps": 0}, "at least 1"),
        ({"lr": 0.0}, "above 0"),
        ({"clamp": 0.0}, "above 0"),
        ({"weight_decay": -0.1}, "not be negative"),
        ({"kl_factor": -0.1}, "not be negative"),
        ({"stop_loss": -0.1}, "not be negative"),
        ({"ridge": -0.1}, "not be negative"),
    ],
)
def test_settings_that_make_no_sense(changed, told):
    with pytest.raises(InputError, match=told):
        settings(**changed)
