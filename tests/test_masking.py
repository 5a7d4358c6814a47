"""Masks of single updates: which elements are kept, beside a sort in numpy."""

import jax
import numpy as np
import pytest

from prunejax.errors import InputError
from prunejax.masking import Mask, masked, parse_mask
from prunejax.schedule import parse_during, parse_schedule
from prunejax.update import Dense, LowRank, dense


@pytest.fixture
def drawn() -> tuple[LowRank, np.ndarray]:
    """A rank-one update [30, 20] and the weight that it is added to."""
    rng = np.random.default_rng(0)
    left, right, weight = rng.normal(size=(30, 1)), rng.normal(size=(1, 20)), rng.normal(size=(30, 20))
    return LowRank(*(part.astype(np.float32) for part in (left, right))), weight.astype(np.float32)


@pytest.mark.parametrize("percent", [0.5, 20, 40.01, 100])
def test_rect_keeps_the_largest_relative_changes_whole(drawn, percent):
    update, weight = drawn
    found = masked(parse_mask(f"rect:{percent}"), update, weight, jax.random.key(0))
    full = np.asarray(dense(update))
    order = np.argsort(np.abs(full / weight), axis=None)
    expected = full.copy()
    expected.reshape(-1)[order[: int(600 * ((100 - percent) / 100))]] = 0
    assert isinstance(found, Dense)
    np.testing.assert_array_equal(found.matrix, expected)


def test_the_control_keeps_as_many_at_random(drawn):
    update, weight = drawn
    first, second, again = (
        np.asarray(masked(parse_mask("mask:20"), update, weight, jax.random.key(seed)).matrix) for seed in (0, 1, 0)
    )
    full = np.asarray(dense(update))
    assert np.sum(first != 0) == np.sum(second != 0) == 120
    assert (first != second).any()
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[first != 0], full[first != 0])


def test_where_nothing_was_and_nothing_is_added_nothing_changed(drawn):
    """A weight of 0 that changes has changed by infinitely much."""
    update, weight = drawn
    weight, left = weight.copy(), np.asarray(update.left).copy()
    weight[:2], left[0] = 0, 0
    found = np.asarray(masked(parse_mask("rect:20"), LowRank(left, update.right), weight, jax.random.key(0)).matrix)
    assert np.isfinite(found).all()
    assert not found[0].any()
    assert found[1].all()


@pytest.mark.parametrize("spec", ["rect", "rect:", "rect:0", "rect:101", "mask:-5", "rect:nan", "rect:1e1", "clip"])
def test_a_mask_that_is_none_is_one_clear_line(spec):
    with pytest.raises(InputError, match="give rect:PERCENT, mask:PERCENT, PERCENT above 0 and at most 100"):
        parse_mask(spec)


def test_what_restrains_a_run():
    both = parse_during("rect:20+log:1.2@50,raw")
    assert both.mask == Mask("rect:20", chosen=True, percent=20)
    assert both.schedule == parse_schedule("log:1.2@50,raw")
    assert parse_during("log:1.2@50,raw+rect:20").schedule == both.schedule
    assert parse_during("").mask is parse_during("").schedule is None
    assert parse_during("mask:5").schedule is None
    capped = parse_during("log:e+cap:1.5@10").schedule
    assert (capped.restraint.spec, capped.restraint.point, capped.every) == ("log:e+cap:1.5", "weight", 10)
    for wrong in ("rect:20+mask:20", "log:e@5+clip@5"):
        with pytest.raises(InputError, match="at most one of rect:PERCENT, mask:PERCENT and one SPEC@EDITS"):
            parse_during(wrong)
