"""Nested second moments are those of the prefixes, and their inverses compare as dense algebra says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import distance
from prunejax.editors.moments import SecondMoment, second_moments
from prunejax.enough import compare_inverses, expected_cost, nested_moments
from prunejax.errors import InputError
from tiny import TEXTS

TENSOR = "transformer.h.1.mlp.c_proj.weight"
TEXT = tuple(line + end for end in ("", " I think.", " Rome.") for line in TEXTS)


@pytest.mark.parametrize("longest", [5, 64])
def test_each_is_the_second_moment_of_so_many_tokens(tiny_model, longest):
    counts = [200, 30, 31, 30, 90]
    found = list(nested_moments(tiny_model, TEXT, 1, counts, seed=3, max_length=longest))
    shuffled = [TEXT[number] for number in np.random.default_rng(3).permutation(len(TEXT))]
    assert [moment.count for moment in found] == sorted(counts)
    for count, moment in zip(sorted(counts), found, strict=True):
        prefix = second_moments(tiny_model, shuffled, [1], max_length=longest, max_tokens=count)[TENSOR]
        assert prefix.count == count
        assert distance(moment.matrix, prefix.matrix) < 1e-6


def test_all_of_the_text_is_all_of_it_in_any_order(tiny_model):
    whole = second_moments(tiny_model, TEXT, [1])[TENSOR]
    (found,) = nested_moments(tiny_model, TEXT, 1, [whole.count], seed=5)
    assert distance(found.matrix, whole.matrix) < 1e-6


def test_the_order_is_the_seeds(tiny_model):
    one, again, other = (next(nested_moments(tiny_model, TEXT, 1, [40], seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.matrix, again.matrix)
    assert distance(one.matrix, other.matrix) > 1e-3


def test_counts_that_cannot_be(tiny_model):
    for counts in ([], [0, 10]):
        with pytest.raises(InputError, match="at least one number of tokens, each above 0"):
            next(nested_moments(tiny_model, TEXT, 1, counts))
    with pytest.raises(InputError, match="tokens in it, 100000 were asked for"):
        list(nested_moments(tiny_model, TEXT, 1, [10, 100_000]))
    with pytest.raises(InputError, match="the model has layers 0 to 2"):
        next(nested_moments(tiny_model, TEXT, 3, [10]))


def nested(seed: int, counts: list[int], d: int) -> tuple[list[SecondMoment], np.ndarray]:
    """Second moments of nested normal keys of uneven size, and other keys of their kind [3, d]."""
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(max(counts) + 3, d)) * np.geomspace(0.2, 2, d) + 0.3
    return [SecondMoment((keys[:n].T @ keys[:n] / n).astype(np.float32), n) for n in counts], keys[-3:]


@given(st.integers(0, 999), st.sampled_from([0.0, 0.1, 1.0]))
def test_the_table_is_what_dense_algebra_says(seed, ridge):
    d, counts = 6, [8, 300, 20]
    moments, keys = nested(seed, counts, d)
    table = compare_inverses(moments, keys, ridge)
    assert table["count"].tolist() == [n for n in counts for _ in keys]
    assert table["key"].tolist() == [0, 1, 2] * 3
    matrices = [m.matrix.astype(float) + ridge * np.mean(np.diag(m.matrix.astype(float))) * np.eye(d) for m in moments]
    for number, row in enumerate(table.itertuples()):
        c, whole, key = matrices[number // 3], matrices[1], keys[number % 3]
        u, best = np.linalg.inv(c) @ key, np.linalg.inv(whole) @ key
        assert row.cosine == pytest.approx(u @ best / np.linalg.norm(u) / np.linalg.norm(best), rel=1e-6)
        disturbed = [(v / (key @ v)) @ whole @ (v / (key @ v)) for v in (u, best)]
        assert row.cost == pytest.approx(disturbed[0] / disturbed[1], rel=1e-6)
        assert row.cost >= 1 - 1e-9
        assert row.per_dimension == counts[number // 3] / d
        assert row.kappa == pytest.approx(np.linalg.cond(c), rel=6e-3)
        scale = np.diag(np.diag(c) ** -0.5)
        assert row.scaled_kappa == pytest.approx(np.linalg.cond(scale @ c @ scale), rel=6e-3)
    longest = table[table["count"] == 300]
    np.testing.assert_allclose(longest[["cosine", "cost"]], 1, rtol=1e-9)


def test_more_keys_cost_less():
    moments, keys = nested(0, [10, 40, 160, 10_000], 8)
    cost = compare_inverses(moments, keys).groupby("count")["cost"].mean()
    assert cost.is_monotonic_decreasing
    assert cost.iloc[0] > 1.05


def test_fewer_keys_than_dimensions_have_no_inverse_without_a_ridge():
    moments, keys = nested(0, [5, 50], 6)
    moments[0] = moments[0]._replace(matrix=moments[1].matrix)  # rounding may let a singular one pass
    few = compare_inverses(moments, keys).query("count == 5")
    assert few[["cosine", "cost"]].isna().all(axis=None)
    assert set(few["kappa"]) | set(few["scaled_kappa"]) == {math.inf}
    assert compare_inverses(moments, keys, 0.1).notna().all(axis=None)
    with pytest.raises(InputError, match="the longest text has 5 keys of 6 dimensions"):
        compare_inverses(moments[:1], keys)


@pytest.mark.parametrize("count", [12, 20, 60])
def test_normal_keys_cost_what_is_expected(count):
    d, rng = 6, np.random.default_rng(0)
    scale = np.geomspace(0.2, 2, d)
    truth = SecondMoment(np.diag(scale**2), 10**9)
    costs = []
    for _ in range(400):
        keys = rng.normal(size=(count, d)) * scale
        moments = [SecondMoment(keys.T @ keys / count, count), truth]
        costs.append(compare_inverses(moments, rng.normal(size=(1, d)))["cost"].iloc[0])
    assert np.mean(costs) == pytest.approx(expected_cost(count, d), rel=0.05)
    np.testing.assert_array_equal(expected_cost([d - 1, d, 2 * d], d), [math.inf, math.inf, (2 * d - 1) / d])
