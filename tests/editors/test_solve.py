"""The one solve, beside dense linear algebra in float64, and the identities between methods, in both precisions."""

from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracles import distance, rotation
from prunejax.editors.neurons import loudest, solve_within
from prunejax.editors.null_space import null_basis, null_metric
from prunejax.editors.solve import KeyCache, Metric, filled, no_keys, remember, solve
from prunejax.editors.ultraedit import Normal, UltraEditSettings, ridge_update
from prunejax.errors import InputError

D, N, M = 40, 5, 12
PRECISIONS = {"float32": 1e-4, "float64": 1e-9}


class Drawn(NamedTuple):
    """Float64 on the host: C [D, D], the keys of a batch [N, D], those of earlier edits [M, D]."""

    c: np.ndarray
    keys: np.ndarray
    earlier: np.ndarray


@pytest.fixture
def drawn() -> Drawn:
    rng = np.random.default_rng(0)
    root = rotation(rng, D) * np.geomspace(1, 0.03, D)
    return Drawn(root @ root.T, rng.normal(size=(N, D)) @ root.T, rng.normal(size=(M, D)) @ root.T)


@pytest.fixture(params=PRECISIONS)
def tolerance(request: pytest.FixtureRequest) -> Iterator[float]:
    with jax.enable_x64(True) if request.param == "float64" else nullcontext():
        yield PRECISIONS[request.param]


def metric_of(c: np.ndarray, weight: float, *, whole: bool = False) -> Metric:
    return Metric(jnp.asarray(np.linalg.inv(c)), weight, jnp.asarray(c) if whole else None)


def cache_of(metric: Metric, earlier: np.ndarray, room: int = 2 * M) -> KeyCache:
    """Remembered in batches of four."""
    cache = no_keys(room, D)
    for start in range(0, len(earlier), 4):
        cache = remember(metric, jnp.asarray(earlier[start : start + 4]), cache)
    return cache


@pytest.mark.parametrize("slack", [1.0, 0.1])
def test_without_a_past_it_is_the_dense_solve(drawn, tolerance, slack):
    exact = np.linalg.solve(slack * 3.0 * drawn.c + drawn.keys.T @ drawn.keys, drawn.keys.T)
    assert distance(solve(metric_of(drawn.c, 3.0), jnp.asarray(drawn.keys), slack), exact) < tolerance


@pytest.mark.parametrize("slack", [1.0, 0.1])
def test_earlier_keys_are_part_of_s(drawn, tolerance, slack):
    metric = metric_of(drawn.c, 3.0)
    cache = cache_of(metric, drawn.earlier)
    assert int(cache.used) == M
    s = 3.0 * drawn.c + drawn.earlier.T @ drawn.earlier
    exact = np.linalg.solve(slack * s + drawn.keys.T @ drawn.keys, drawn.keys.T)
    assert distance(solve(metric, jnp.asarray(drawn.keys), slack, cache), exact) < tolerance
    assert distance(solve(metric, jnp.asarray(drawn.keys), slack), exact) > 0.1


def test_an_empty_cache_changes_nothing(drawn, tolerance):
    metric, keys = metric_of(drawn.c, 3.0), jnp.asarray(drawn.keys)
    assert distance(solve(metric, keys, 1.0, no_keys(M, D)), solve(metric, keys)) < tolerance


def test_a_key_that_is_known_is_written_twice_as_softly(drawn, tolerance):
    """Of one key, remembered and edited again, S + k k^T has k k^T twice."""
    metric, key = metric_of(drawn.c, 3.0), drawn.keys[:1]
    found = solve(metric, jnp.asarray(key), 1.0, cache_of(metric, key))
    assert distance(found, np.linalg.solve(3.0 * drawn.c + 2 * key.T @ key, key.T)) < tolerance


def test_as_many_keys_as_dimensions_stay_right_in_float32(monkeypatch):
    """Nearly all of S is earlier keys: X is a difference of things some hundred times as large, and refined."""
    rng, d = np.random.default_rng(1), 200
    root = rotation(rng, d) * np.geomspace(1, 0.03, d)
    c, keys = root @ root.T, 3 * rng.normal(size=(d, d)) @ root.T
    metric, cache = Metric(jnp.asarray(np.linalg.inv(c), jnp.float32), 1.0), no_keys(d, d)
    step = jax.jit(remember)
    for key in keys[:-1].astype(np.float32):
        cache = step(metric, jnp.asarray(key[None]), cache)
    exact = np.linalg.solve(c + keys.T @ keys, keys[-1:].T)
    refined, plain = [], []
    for number, found in ((1, refined), (0, plain)):
        monkeypatch.setattr(import_module("prunejax.editors.solve"), "REFINEMENTS", number)
        found.append(distance(solve(metric, jnp.asarray(keys[-1:], jnp.float32), 1.0, cache), exact))
    assert refined[0] < 5e-5
    assert plain[0] > 2 * refined[0]


def test_a_full_cache_says_so(drawn):
    metric = metric_of(drawn.c, 3.0)
    full = cache_of(metric, drawn.earlier[:8], room=8)
    assert np.isfinite(full.factor).all()
    over = remember(metric, jnp.asarray(drawn.keys[:1]), full)
    assert np.isnan(solve(metric, jnp.asarray(drawn.keys), 1.0, over)).any()


@pytest.mark.parametrize("room", [8, 9, 20])
def test_only_what_is_used_of_a_cache_is_stored(drawn, room):
    """The rest is as in a new one; of a cache that had no room, all is."""
    metric = metric_of(drawn.c, 3.0)
    cache, new = cache_of(metric, drawn.earlier[:8], room), no_keys(room, D)
    for found, start, stored in zip(cache[:3], new[:3], filled(cache)[:3], strict=True):
        again = np.array(start)
        again[tuple(map(slice, stored.shape))] = stored
        np.testing.assert_array_equal(again, found)
        assert len(stored) == 8
    over = remember(metric, jnp.asarray(drawn.keys), remember(metric, jnp.asarray(drawn.keys), cache_of(metric, [], 5)))
    assert [stored.shape for stored in filled(over)] == [(5, D), (5, D), (5, 5), ()]


def test_emmet_is_memit_with_lambda_w_epsilon(drawn, tolerance):
    keys = jnp.asarray(drawn.keys)
    emmet = solve(metric_of(drawn.c, 20.0), keys, slack=0.1)
    memit = solve(metric_of(drawn.c, 2.0), keys)
    assert distance(emmet, memit) < tolerance
    assert distance(emmet, solve(metric_of(drawn.c, 20.0), keys)) > 0.1


def test_memit_of_one_key_with_lambda_to_0_is_r_rome(drawn, tolerance):
    """u / (k . u), u = C^-1 k; without slack it is so at any lambda (EMMET)."""
    key = drawn.keys[:1]
    u = np.linalg.solve(drawn.c, key[0])
    rome = (u / (key[0] @ u))[:, None]
    assert distance(solve(metric_of(drawn.c, tolerance * 1e-3), jnp.asarray(key)), rome) < tolerance
    assert distance(solve(metric_of(drawn.c, 7.0), jnp.asarray(key), slack=0.0), rome) < tolerance
    assert distance(solve(metric_of(drawn.c, 7.0), jnp.asarray(key)), rome) > 0.1


@pytest.mark.parametrize(("cut", "threshold"), [("relative", 0.1), ("absolute", 0.05), ("energy", 0.2), ("none", 1.0)])
def test_alphaedit_reduced_is_the_released_form(drawn, tolerance, cut, threshold):
    """R K^T P (K_p K_p^T P + K K^T P + L2 I)^-1, as released, not symmetric."""
    basis = null_basis(drawn.c, cut, threshold)
    p, gram = basis @ basis.T, drawn.keys.T @ drawn.keys + drawn.earlier.T @ drawn.earlier
    released = np.linalg.solve(p @ gram + 2.0 * np.eye(D), p @ drawn.keys.T)
    metric = null_metric(drawn.c, cut, threshold, 2.0)
    metric = metric._replace(inverse=jnp.asarray(p))  # the package holds it in float32
    found = solve(metric, jnp.asarray(drawn.keys), 1.0, cache_of(metric, drawn.earlier))
    assert distance(found, released) < tolerance
    assert distance(p @ np.asarray(found, np.float64), found) < tolerance, "it stays in the null space"


def test_what_counts_as_null_space(drawn):
    values = np.sort(np.linalg.eigvalsh(drawn.c))
    ranks = {cut: null_basis(drawn.c, cut, 0.1).shape[1] for cut in ("relative", "absolute", "energy", "none")}
    assert ranks["relative"] == np.sum(values < 0.1 * values[-1])
    assert ranks["absolute"] == np.sum(values < 0.1)
    assert ranks["energy"] == np.sum(np.cumsum(values) <= 0.1 * values.sum())
    assert ranks["none"] == D
    scaled = null_basis(100 * drawn.c, "relative", 0.1).shape[1], null_basis(100 * drawn.c, "absolute", 0.1).shape[1]
    assert scaled[0] == ranks["relative"]
    assert scaled[1] < ranks["absolute"], "the published cut depends on the scale of the activations"
    with pytest.raises(InputError, match="threshold=1e-06 cut=absolute: no eigenvalue of the second moment is below"):
        null_basis(drawn.c, "absolute", 1e-6)


def test_ultraedit_dual_is_primal(drawn, tolerance):
    """(H^T H + a I_m)^-1 H^T V, of keys with a row that is padding."""
    rng = np.random.default_rng(2)
    gradients, real = rng.normal(size=(N, 7)), np.array([True] * (N - 1) + [False])
    keys = np.where(real[:, None], drawn.keys, 0.0)
    gradients = np.where(real[:, None], gradients, 0.0)
    normal = Normal(jnp.asarray(9.0), jnp.asarray(rng.normal(size=D + 7)), jnp.asarray(rng.uniform(1, 2, size=D + 7)))
    settings = UltraEditSettings((0,), lr=0.3, key_ridge=0.7)
    update = ridge_update(jnp.asarray(keys), jnp.asarray(gradients), normal, jnp.asarray(real), settings)
    deviation = np.sqrt(np.asarray(normal.squares, np.float64) / 8)
    hats = (np.concatenate([keys, gradients], axis=1) - np.asarray(normal.mean, np.float64)) / deviation
    values = -0.3 * np.sum(hats[:, :D] ** 2, axis=1, keepdims=True) * hats[:, D:] * real[:, None]
    primal = np.linalg.solve(keys.T @ keys + 0.7 * np.eye(D), keys.T @ values)
    assert distance(update.left @ update.right, primal) < max(tolerance, 1e-6)  # its divisors are raised by 1e-7


def test_the_loudest_neurons_are_the_fewest_that_hold_a_share(drawn):
    loud = np.abs(drawn.keys).sum(0)
    for keep in (0.3, 0.8, 1.0):
        chosen = np.asarray(loudest(jnp.asarray(drawn.keys), keep))
        assert loud[chosen].sum() >= keep * loud.sum() * (1 - 1e-6)
        assert loud[chosen].sum() - loud[chosen].min() < keep * loud.sum()
        assert loud[chosen].min() >= loud[~chosen].max(initial=0.0)


def test_on_few_neurons_it_is_the_dense_solve_on_their_block(drawn, tolerance):
    metric = metric_of(drawn.c, 3.0, whole=True)
    found = np.asarray(solve_within(metric, jnp.asarray(drawn.keys), 0.6, cache_of(metric, drawn.earlier)), np.float64)
    within = np.asarray(loudest(jnp.asarray(drawn.keys), 0.6))
    block = np.ix_(within, within)
    s = (3.0 * drawn.c + drawn.earlier.T @ drawn.earlier)[block]
    keys = drawn.keys[:, within]
    assert distance(found[within], np.linalg.solve(s + keys.T @ keys, keys.T)) < tolerance
    assert not found[~within].any()
    every = solve_within(metric, jnp.asarray(drawn.keys), 1.0, cache_of(metric, drawn.earlier))
    assert distance(every, solve(metric, jnp.asarray(drawn.keys), 1.0, cache_of(metric, drawn.earlier))) < tolerance
