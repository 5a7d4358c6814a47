"""Restraints of the weight itself, beside full decompositions in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from prunejax.errors import InputError
from prunejax.restraint import is_idle, parse, restrained_values, restrained_weight, update_under, weight_under
from prunejax.spectra import sigma_max
from prunejax.sweep import Sweep
from prunejax.update import LowRank, dense


@pytest.fixture
def sweep() -> Sweep:
    """A weight [30, 20] under an update of rank 3 that outgrows it."""
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.normal(size=(30, 20)), jnp.float32)
    left, right = (rng.normal(size=shape).astype(np.float32) * 3 for shape in ((30, 3), (3, 20)))
    return Sweep(weight, LowRank(left, right), sigma_max(weight))


def edited(sweep: Sweep) -> np.ndarray:
    return np.asarray(sweep.weight, np.float64) + np.asarray(dense(sweep.update), np.float64)


@pytest.mark.parametrize("most", [1, 1.5, 3])
def test_a_cap_bounds_singular_values_and_leaves_the_others(sweep, most):
    left, sigma, right = np.linalg.svd(edited(sweep), full_matrices=False)
    assert np.sum(sigma > most * sweep.m) > 0
    expected = (left * np.minimum(sigma, most * sweep.m)) @ right
    assert oracles.distance(weight_under(parse(f"cap:{most}"), sweep), expected) < 1e-5


def test_scaling_by_either_norm(sweep):
    after, before = edited(sweep), np.asarray(sweep.weight, np.float64)
    by_frobenius = after * np.linalg.norm(before) / np.linalg.norm(after)
    assert oracles.distance(weight_under(parse("frobenius"), sweep), by_frobenius) < 1e-5
    by_sigma = after * sweep.m / np.linalg.norm(after, 2)
    assert oracles.distance(weight_under(parse("spectral"), sweep), by_sigma) < 1e-5


def test_a_cap_behind_a_map_acts_on_what_comes_of_it(sweep):
    restraint = parse("log:e+cap:1.2")
    assert (restraint.spec, restraint.point) == ("log:e+cap:1.2", "weight")
    inner = np.asarray(weight_under(parse("log:e"), sweep), np.float64)
    left, sigma, right = np.linalg.svd(inner, full_matrices=False)
    expected = (left * np.minimum(sigma, 1.2 * sweep.m)) @ right
    found = weight_under(restraint, sweep)
    assert oracles.distance(found, expected) < 1e-5
    assert oracles.distance(found, weight_under(parse("cap:1.2"), sweep)) > 1e-2
    change = dense(update_under(restraint, sweep))
    assert oracles.distance(np.asarray(sweep.weight) + np.asarray(change), found) < 1e-6
    values = restrained_values(restraint, sweep, sweep.sigma)
    np.testing.assert_allclose(values, np.linalg.svd(np.asarray(change), compute_uv=False), atol=1e-4)


def test_what_is_under_the_cap_stays_to_the_bit(sweep):
    small = Sweep(sweep.weight, LowRank(*(part * 1e-3 for part in sweep.update)), sweep.m)
    plain, capped = (np.asarray(weight_under(parse(spec), small)) for spec in ("none", "cap:2"))
    np.testing.assert_array_equal(plain, capped)


def test_before_the_first_edit_a_cap_is_idle_and_a_broken_weight_stays_broken(sweep):
    nothing = LowRank(np.zeros((30, 0), np.float32), np.zeros((0, 20), np.float32))
    assert is_idle(parse("cap:1"), Sweep(sweep.weight, nothing, sweep.m))
    assert not is_idle(parse("cap:1"), sweep)
    broken = LowRank(np.full((30, 1), np.nan, np.float32), np.ones((1, 20), np.float32))
    for spec in ("cap:1.5", "spectral", "frobenius"):
        assert np.isnan(np.asarray(restrained_weight(parse(spec), sweep.weight, broken, sweep.m))).any()


@pytest.mark.parametrize("spec", ["cap", "cap:0.5", "cap:x", "spectral:2", "cap:2+cap:3", "clip+cap:2+frobenius"])
def test_a_cap_that_is_none_is_one_clear_line(spec):
    with pytest.raises(InputError, match="restraint"):
        parse(spec)
