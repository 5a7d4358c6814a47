"""What few keys are beside all of the text, on a record small enough to work out by hand."""

import numpy as np
import pandas as pd
import pytest

from prunejax.enough_claims import NORM, SCORES, all_above, at_most, beside_all, identity_beside_all, stands_on
from prunejax.enough_records import IDENTITY
from prunejax.intervals import Interval, student


def record() -> pd.DataFrame:
    """Three shuffles of a model of 4 dimensions: 8 keys, all 40 of them, and the identity."""
    rows = []
    for seed, shift in enumerate((0.0, 0.01, 0.03)):
        for settings, keys, score, norm in (
            ("ridge=0", 8, 0.8, 3.0),
            ("ridge=0", 40, 0.9, 2.0),
            (IDENTITY, 0, 0.7, 1.0),
        ):
            rows += [(settings, keys, metric, seed, score + shift * (keys == 8)) for metric in SCORES]
            rows += [(settings, keys, NORM, seed, norm * (1 + shift)), (settings, keys, "cost", seed, 2.0)]
    found = pd.DataFrame(rows, columns=["settings", "keys", "metric", "seed", "mean"])
    return found.assign(model="small", d_in=4, n=7)


def test_differences_are_paired_by_shuffle():
    found = beside_all(record(), "small", "ridge=0", 2)
    assert found.keys() == {*SCORES, "norm"}
    for metric in SCORES:
        np.testing.assert_allclose(found[metric], student(pd.Series([-0.1, -0.09, -0.07])))
    np.testing.assert_allclose(found["norm"], [1.5] * 3)  # each shuffle's own factor is the same
    for row in identity_beside_all(record(), "small", "ridge=0").values():
        np.testing.assert_allclose(row, [-0.2] * 3)


@pytest.mark.parametrize(
    ("lo", "hi", "answer"), [(1.0, 1.2, "holds"), (1.2, 1.3, "undecided"), (1.3, 1.4, "does not hold")]
)
def test_a_limit_is_held_against_the_interval(lo, hi, answer):
    assert at_most(Interval((lo + hi) / 2, lo, hi), 1.25) == answer
    assert at_most(pd.Series({"mean": (lo + hi) / 2, "lo": lo, "hi": hi}), 1.25) == answer


def test_all_models_must_lie_above():
    high, low = (pd.Series({"mean": m, "lo": m - 0.1, "hi": m + 0.1}) for m in (2.0, 1.0))
    assert all_above({"a": high, "b": high}, 1.5)[0] == "holds"
    assert all_above({"a": high, "b": low}, 1.5) == ("does not hold", "a 2.000 [1.900, 2.100]; b 1.000 [0.900, 1.100]")


def test_it_says_what_it_stands_on():
    assert stands_on(record(), ["small"]) == {"small": "3 shuffles of the text x 7 requests (small)"}
