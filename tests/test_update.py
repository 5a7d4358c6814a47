import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.errors import InputError
from prunejax.update import Dense, LowRank, apply, dense, shape, total


def low_rank(seed: int, r: int, d_in: int = 7, d_out: int = 4) -> LowRank:
    rng = np.random.default_rng(seed)
    return LowRank(jnp.asarray(rng.normal(size=(d_in, r)), "f4"), jnp.asarray(rng.normal(size=(r, d_out)), "f4"))


def test_low_rank_is_a_sum_of_outer_products():
    update = low_rank(0, r=3)
    outer = sum(np.outer(update.left[:, i], update.right[i]) for i in range(3))
    np.testing.assert_allclose(dense(update), outer, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("update", [low_rank(0, 1), low_rank(0, 9), Dense(jnp.ones((7, 4)))])
def test_shape_is_the_matrix_shape(update):
    assert shape(update) == dense(update).shape == (7, 4)


def test_total_of_low_ranks_keeps_every_edit_in_order():
    parts = [low_rank(seed, r) for seed, r in ((0, 1), (1, 3), (2, 1))]
    together = total(parts)
    assert isinstance(together, LowRank)
    np.testing.assert_array_equal(together.left[:, 1:4], parts[1].left)
    np.testing.assert_array_equal(together.right[4:], parts[2].right)
    np.testing.assert_allclose(dense(together), sum(np.asarray(dense(part)) for part in parts), rtol=1e-5, atol=1e-5)


def test_total_with_one_dense_is_the_dense_sum():
    parts = [low_rank(0, 2), Dense(jnp.full((7, 4), 0.5)), low_rank(1, 1)]
    together = total(parts)
    assert isinstance(together, Dense)
    np.testing.assert_allclose(dense(together), sum(np.asarray(dense(part)) for part in parts), rtol=1e-5, atol=1e-5)


def test_total_refuses_what_has_no_sum():
    with pytest.raises(InputError, match="no updates"):
        total([])
    with pytest.raises(InputError, match=r"\(5, 4\), \(7, 4\)"):
        total([low_rank(0, 2), low_rank(0, 2, d_in=5)])


def test_apply_adds_and_leaves_its_inputs_alone():
    weight, update = jnp.arange(28.0).reshape(7, 4), low_rank(0, 2)
    before = np.array(weight)
    np.testing.assert_allclose(apply(weight, update), before + np.asarray(dense(update)), rtol=1e-6)
    np.testing.assert_array_equal(weight, before)


def test_apply_keeps_half_precision_and_rounds_once():
    weight, update = jnp.ones((7, 4), jnp.bfloat16), Dense(jnp.full((7, 4), 0.003, jnp.float32))
    assert apply(weight, update).dtype == jnp.bfloat16
    # Spacing of bfloat16 above 1 is 1/128: one such update vanishes, the sum of three does not.
    np.testing.assert_array_equal(apply(weight, update), weight)
    assert float(apply(weight, total([update] * 3))[0, 0]) == 1.0078125


def test_apply_refuses_to_broadcast():
    with pytest.raises(InputError, match=r"shape \(1, 4\) does not fit a weight of shape \(7, 4\)"):
        apply(jnp.ones((7, 4)), Dense(jnp.ones((1, 4))))
