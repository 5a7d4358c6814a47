"""The metric of the solve: which second moments are inverted and which are refused, and what float32 leaves of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from oracles import distance, rotation
from prunejax.editors import EDITORS, editor_row, settings_of
from prunejax.editors.metric import MOST_KAPPA, corpus_metric, inverse_second_moment
from prunejax.editors.moments import Moments, SecondMoment, second_moments
from prunejax.editors.settings import LocateSettings
from prunejax.errors import InputError
from tiny import TEXTS

TENSOR = "transformer.h.1.mlp.c_proj.weight"
LOCATE = [name for name, row in EDITORS.items() if issubclass(row.settings, LocateSettings) and name != "alphaedit"]
"""AlphaEdit inverts nothing."""
IDENTITY = LocateSettings(second_moment="identity")
every_locating = pytest.mark.parametrize("name", LOCATE)


def with_keys(seed: int, count: int, loud: float = 1.0) -> Moments:
    """The second moment of so many normal keys, the first dimension louder than the others."""
    keys = np.random.default_rng(seed).normal(size=(count, 64))
    keys[:, 0] *= loud
    return Moments({TENSOR: SecondMoment((keys.T @ keys / count).astype(np.float32), count)}, "0" * 64)


def conditioned(rng: np.random.Generator, kappa: float) -> np.ndarray:
    """A root L of C = L L^T [64, 64] with eigenvalues from 1 down to 1 / kappa in directions of no neuron."""
    return rotation(rng, 64) * np.geomspace(1, kappa**-0.5, 64)


def init(name: str, model: Any, moments: Moments | None, **changed: Any) -> np.ndarray:
    state = editor_row(name).make(settings_of(name, {"layers": [1], **changed})).init(model, moments, 8)
    fixed = state.fixed
    return np.asarray(fixed.inverse if hasattr(fixed, "inverse") else fixed.metrics[0].inverse)


@every_locating
def test_fewer_keys_than_dimensions_need_a_ridge(name, tiny_model):
    for count in (1, 63):
        with pytest.raises(InputError, match=f"{count} keys cannot fill 64 dimensions; collect more text, or set rid"):
            init(name, tiny_model, with_keys(0, count))
        assert np.isfinite(init(name, tiny_model, with_keys(0, count), ridge=0.1)).all()
    assert np.isfinite(init(name, tiny_model, with_keys(0, 64))).all()


@every_locating
def test_the_count_matters_even_where_rounding_lets_it_pass(name, tiny_model):
    """A matrix that would invert, of which somebody says that it is the mean of 63 keys."""
    moment = with_keys(0, 200).of(TENSOR)._replace(count=63)
    with pytest.raises(InputError, match="63 keys cannot fill 64 dimensions"):
        init(name, tiny_model, Moments({TENSOR: moment}, ""))


@every_locating
def test_second_moments_of_another_model_are_refused_and_of_an_edited_one_are_not(name, tiny_model):
    moments = Moments(second_moments(tiny_model, TEXTS * 2, [1]), "0" * 64)
    edited = tiny_model.with_weights({TENSOR: tiny_model.weight(TENSOR) * 2})
    assert distance(init(name, edited, moments, ridge=1.0), init(name, tiny_model, moments, ridge=1.0)) == 0
    other = replace(tiny_model, sha256="f" * 64)
    told = f"{TENSOR} is that of another model .weights {tiny_model.sha256[:8]}, this one's are ffffffff.; make this"
    with pytest.raises(InputError, match=told):
        init(name, other, moments, ridge=1.0)
    old = Moments({TENSOR: moments.of(TENSOR)._replace(origin=None)}, "0" * 64)
    assert np.isfinite(init(name, other, old, ridge=1.0)).all()


@pytest.mark.parametrize("count", [1, 63])
def test_a_null_space_of_too_few_keys_is_refused(tiny_model, count):
    """Directions that no key was seen in are not directions that none goes."""
    with pytest.raises(InputError, match=f"{count} keys cannot fill 64 dimensions"):
        init("alphaedit", tiny_model, with_keys(0, count))


def test_the_identity_asks_for_nothing(tiny_model):
    for moments in (None, with_keys(0, 1)):
        np.testing.assert_array_equal(corpus_metric(tiny_model, moments, TENSOR, IDENTITY).inverse, np.eye(64))


@pytest.mark.parametrize("kappa", [1e8, 1e10])
def test_a_second_moment_that_float32_cannot_invert_is_refused_unless_ridged(kappa):
    root = conditioned(np.random.default_rng(1), kappa)
    c = (root @ root.T).astype(np.float32)
    with pytest.raises(
        InputError, match=r"(cannot be inverted in float32|singular).*; collect more text, or set ridge"
    ):
        inverse_second_moment(c, 0.0, 64)
    ridged = root @ root.T + 0.1 * np.mean(np.diag(c)) * np.eye(64)
    assert distance(inverse_second_moment(c, 0.1, 64), np.linalg.inv(ridged)) < 1e-5


def test_a_ridge_that_is_too_small_is_refused_too():
    root = conditioned(np.random.default_rng(1), 1e10)
    c = (root @ root.T).astype(np.float32)
    with pytest.raises(InputError, match="cannot be inverted in float32, its scaled condition number is"):
        inverse_second_moment(c, 1e-7, 64)


@pytest.mark.parametrize(("kappa", "lost"), [(1e2, 1e-10), (1e4, 1e-7), (MOST_KAPPA / 3, 1e-3)])
def test_what_is_not_refused_keeps_its_directions_in_float32(kappa, lost):
    """C^-1 k as an edit computes it, beside exact arithmetic on the same keys; above the bound it would not hold."""
    rng = np.random.default_rng(2)
    root = conditioned(rng, kappa)
    exact, keys = root @ root.T, (root @ rng.normal(size=(64, 100))).astype(np.float32)
    found = (inverse_second_moment(exact.astype(np.float32), 0.0, 64) @ keys).astype(np.float64)
    wanted = np.linalg.solve(exact, keys.astype(np.float64))
    cosine = np.sum(found * wanted, 0) / np.linalg.norm(found, axis=0) / np.linalg.norm(wanted, axis=0)
    assert 1 - cosine.min() < lost


@pytest.mark.parametrize("loud", [1e3, 1e5])
def test_a_loud_neuron_is_no_reason_to_refuse(tiny_model, loud):
    """kappa(C) is the square of its loudness, and every entry of the inverse is right all the same."""
    moments = with_keys(3, 2000, loud)
    matrix = moments.of(TENSOR).matrix.astype(np.float64)
    assert np.linalg.cond(matrix) > 0.5 * loud**2
    inverse = np.asarray(corpus_metric(tiny_model, moments, TENSOR, LocateSettings()).inverse, np.float64)
    units = np.diag(np.sqrt(np.diag(matrix)))
    expected = np.linalg.inv(np.linalg.inv(units) @ matrix @ np.linalg.inv(units))
    assert distance(units @ inverse @ units, expected) < 1e-6


def test_the_matrix_of_another_size():
    with pytest.raises(InputError, match=r"the second moment is \(4, 4\), the model's keys have 64 dimensions"):
        inverse_second_moment(np.eye(4, dtype=np.float32), 0.0, 64)
