"""The bounds against slow versions, against systems that reach them, and against what they do not promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import with_spectrum
from prunejax.restraint import parse
from prunejax.theory import (
    System,
    amplified_until,
    movement,
    sigma_max_guarantee,
    solve,
    vanishing_update,
    wide_bound,
)

SHAPES = [(7, 4), (5, 5), (4, 9)]


def system(rng: np.random.Generator, p: int, q: int, eta: float, residual: float = 0.0, moved: float = 0.0) -> System:
    sigma = np.geomspace(20.0, 0.5, min(p, q))
    a = with_spectrum(rng, p, q, list(sigma))
    e = rng.normal(size=(p, q))
    e *= eta * sigma[-1] / np.linalg.norm(e, 2)
    return System(a, e, a @ rng.normal(size=q) + residual * rng.normal(size=p), moved * rng.normal(size=p))


@pytest.mark.parametrize(("p", "q"), SHAPES)
def test_movement_is_what_pseudo_inverses_say(p, q):
    rng = np.random.default_rng(p)
    a, e, b, db = given_system = system(rng, p, q, 0.3, residual=1.0, moved=0.1)
    x, moved_x = np.linalg.pinv(a) @ b, np.linalg.pinv(a + e) @ (b + db)
    sigma = np.linalg.svd(a)[1]
    kappa, eps_a = sigma[0] / sigma[-1], np.linalg.svd(e)[1][0] / sigma[0]
    eta, size = kappa * eps_a, math.dist(x, 0 * x)
    eps_b, r = math.dist(db, 0 * db) / math.dist(b, 0 * b), math.dist(b, a @ x)
    terms = eps_a * size + math.dist(db, 0 * db) / sigma[0] + eps_a * kappa * r / sigma[0]
    wedin = kappa / (1 - eta) * terms + (eps_a * kappa * size if q > p else 0.0)
    found = movement(given_system)
    np.testing.assert_allclose(found.moved, math.dist(moved_x, x) / size, rtol=1e-9)
    np.testing.assert_allclose(found.wedin, wedin / size, rtol=1e-9)
    np.testing.assert_allclose(found.simplified, kappa / (1 - eta) * (eps_a + eps_b), rtol=1e-9)
    np.testing.assert_allclose((found.kappa, found.eta), (kappa, eta), rtol=1e-9)
    assert found.valid


def test_a_stack_is_its_systems():
    rng = np.random.default_rng(1)
    systems = [system(rng, 6, 4, eta, residual=eta) for eta in (0.1, 0.9, 1.7)]
    stack = movement(System(*(np.stack(parts) for parts in zip(*systems, strict=True))))
    for i, one in enumerate(systems):
        np.testing.assert_allclose([part[i] for part in stack], movement(one), rtol=1e-12)


def test_beyond_eta_1_nothing_is_promised():
    found = movement(system(np.random.default_rng(2), 6, 4, 1.01))
    assert not found.valid
    assert found.wedin == found.simplified == math.inf


def test_a_perturbation_that_adds_a_rank_is_not_valid():
    """However small it is: the minimum-norm solution jumps, and no bound in eta can hold."""
    rng = np.random.default_rng(3)
    a = with_spectrum(rng, 5, 4, [3.0, 2.0])
    e = 1e-6 * rng.normal(size=(5, 4))
    found = movement(System(a, e, a @ rng.normal(size=4) + rng.normal(size=5), np.zeros(5)))
    assert found.eta < 1e-4
    assert not found.valid
    assert found.moved > 100


def test_rank_deficient_systems_are_solved_with_least_norm():
    rng = np.random.default_rng(4)
    a, b = with_spectrum(rng, 5, 4, [3.0, 2.0]), rng.normal(size=5)
    x, norm, norm_inverse, rank = solve(a, b)
    np.testing.assert_allclose(x, np.linalg.pinv(a, rcond=1e-10) @ b, rtol=1e-10)
    np.testing.assert_allclose((norm, norm_inverse, rank), (3.0, 0.5, 2), rtol=1e-12)


@pytest.mark.parametrize("eta", [1e-3, 0.1, 0.9])
def test_the_bound_is_attained(eta):
    """A tall A, E = -eta sigma_n u_n v_n^T, x = v_n: x~ = x / (1 - eta)."""
    rng = np.random.default_rng(5)
    a = with_spectrum(rng, 6, 4, [9.0, 5.0, 2.0, 0.1])
    u, sigma, vt = np.linalg.svd(a, full_matrices=False)
    found = movement(System(a, -eta * sigma[-1] * np.outer(u[:, -1], vt[-1]), a @ vt[-1], np.zeros(6)))
    np.testing.assert_allclose(found.moved, eta / (1 - eta), rtol=1e-9)
    np.testing.assert_allclose((found.wedin, found.simplified), found.moved, rtol=1e-9)


@pytest.mark.parametrize("eta", [1e-3, 0.1, 0.5])
def test_the_wide_bound_is_approached_and_the_simplified_one_exceeded(eta):
    """Two equal smallest singular values; the row space turns away from x while the rest of E is amplified."""
    rng = np.random.default_rng(6)
    u, vt = np.linalg.qr(rng.normal(size=(3, 3)))[0], np.linalg.qr(rng.normal(size=(8, 4)))[0].T
    a = u @ np.diag([5.0, 0.2, 0.2]) @ vt[:3]
    e = eta * 0.2 * (np.outer(u[:, 2], vt[3]) - np.outer(u[:, 1], vt[2]))
    found = movement(System(a, e, a @ vt[2], np.zeros(3)))
    assert found.valid
    assert found.moved <= wide_bound(eta) <= found.wedin
    np.testing.assert_allclose(wide_bound(eta), math.sqrt(eta**2 + (eta / (1 - eta)) ** 2), rtol=1e-12)
    if eta == 1e-3:
        np.testing.assert_allclose(found.moved / found.simplified, math.sqrt(2), rtol=2e-3)
        np.testing.assert_allclose(found.moved / wide_bound(eta), 1, rtol=2e-3)


@pytest.mark.parametrize(("p", "q"), SHAPES)
@pytest.mark.parametrize("spec", ["log:e", "log:1.2", "scaled-log:e", "linear", "clip"])
def test_an_update_that_no_restraint_touches_makes_kappa_infinite(p, q, spec):
    weight = with_spectrum(np.random.default_rng(7), p, q, list(np.geomspace(4.0, 0.3, min(p, q))))
    update = vanishing_update(weight)
    sigma = np.linalg.svd(update, compute_uv=False)
    np.testing.assert_allclose(sigma[0], 0.3, rtol=1e-12)
    np.testing.assert_array_equal(parse(spec).function(sigma, 4.0), sigma)
    edited = np.linalg.svd(weight + update, compute_uv=False)
    assert edited[0] / edited[-1] > 1e12


@given(st.integers(0, 2**32 - 1), st.sampled_from(["log:e", "log:1.2", "scaled-log:2", "linear", "clip", "none"]))
def test_sigma_max_stays_under_its_guarantee(seed, spec):
    rng = np.random.default_rng(seed)
    weight, update = rng.normal(size=(6, 4)), rng.normal(size=(6, 4)) * rng.choice([0.1, 1, 30])
    m, (u, sigma, vt) = np.linalg.svd(weight)[1][0], np.linalg.svd(update, full_matrices=False)
    restrained = weight + (u * parse(spec).function(sigma, m)) @ vt
    assert np.linalg.norm(restrained, 2) <= sigma_max_guarantee(parse(spec), sigma[0], m) * (1 + 1e-12)


def test_the_guarantee_is_the_papers_formula_and_is_reached():
    m, s_max = 2.0, 50.0
    reached = 2 * m + math.log(s_max / m) / math.log(1.5)
    assert sigma_max_guarantee(parse("log:1.5"), s_max, m) == pytest.approx(reached, rel=1e-12)
    weight, update = np.diag([m, 1.0]), np.diag([s_max, 0.0])
    restrained = weight + np.diag(parse("log:1.5").function(np.diag(update), m))
    assert np.linalg.norm(restrained, 2) == pytest.approx(reached, rel=1e-12)


@pytest.mark.parametrize(("m", "base"), [(1.0, 1.2), (3.0, 1.2), (0.5, math.e), (1.0, 2.0)])
def test_a_log_map_amplifies_until_there_and_restrains_beyond(m, base):
    until, function = amplified_until(m, math.log(base)), parse(f"log:{base}").function
    assert until > m
    inside, outside = np.linspace(m, until, 9)[1:-1], until * np.array([1.001, 2.0, 10.0])
    assert (function(inside, m) > inside).all()
    assert (function(outside, m) < outside).all()
    np.testing.assert_allclose(function(np.array([until]), m), until, rtol=1e-9)


def test_a_log_map_with_a_margin_of_1_never_amplifies():
    assert amplified_until(1.0, 1.0) == 1.0
    assert amplified_until(8.0, math.log(1.2)) == 8.0
