"""An alarm held against models of known fate."""

import numpy as np
import pandas as pd
import pytest

from prunejax.alarms import Alarms, alarms_at, rank_correlations, watched_points
from prunejax.errors import InputError
from prunejax.guard import Guard
from prunejax.records import SUMMARY_COLUMNS, read_records
from prunejax.sources import RECORDS


def scores(seed: int, fates: list[tuple[float, float, float]]) -> pd.DataFrame:
    """Summary rows of one run: perplexity, arithmetic and questions after 0, 1, 2, ... edits."""
    metrics = ("perplexity", "ability:arithmetic", "ability:questions")
    row = dict.fromkeys(SUMMARY_COLUMNS, "x") | {"batch": 1, "seed": seed, "n": 1, "nan_count": 0}
    return pd.DataFrame(
        [
            row | {"n_edits": n, "metric": metric, "mean": value, "lo": value, "hi": value}
            for n, fate in enumerate(fates)
            for metric, value in zip(metrics, fate, strict=True)
        ]
    )


FATES = [(2.0, 1.0, 0.8), (2.2, 0.9, 0.9), (2.6, 0.5, 0.2), (4.0, 0.9, 0.8), (8.0, 0.1, 0.1), (np.nan, 0.0, 0.0)]


def test_models_are_seen_beside_the_unedited_one() -> None:
    points = watched_points(scores(0, FATES))
    assert points["n_edits"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(points["ratio"], [1.1, 1.3, 2.0, 4.0, np.inf])
    np.testing.assert_allclose(points["ability"], [0.9, 0.35, 0.85, 0.1, 0.0])
    np.testing.assert_allclose(points["kept"], np.array([0.9, 0.35, 0.85, 0.1, 0.0]) / 0.9)


def test_who_passes_and_who_is_accused_wrongly_is_counted() -> None:
    points = watched_points(scores(0, FATES))
    assert alarms_at(points, 1.5) == Alarms(models=5, lost=3, passed=1, alarms=3, false=1)
    assert alarms_at(points, 1.2) == Alarms(models=5, lost=3, passed=0, alarms=4, false=1)
    assert alarms_at(points, 3.0) == Alarms(models=5, lost=3, passed=1, alarms=2, false=0)


def test_ranks_are_correlated_order_by_order() -> None:
    """Perplexity rises as arithmetic falls in one order, and with it in the other."""
    falling = [(2.0 + n, 0.9 - 0.1 * n, 0.5 - 0.1 * n) for n in range(5)]
    rising = [(2.0 + n, 0.1 + 0.1 * n, 0.9 - 0.15 * n) for n in range(5)]
    found = rank_correlations(watched_points(pd.concat([scores(0, falling), scores(1, rising)])))
    assert found.loc["ability:arithmetic", "mean"] == pytest.approx(0.0)
    assert found.loc["ability:arithmetic", "n"] == 2
    alone = rank_correlations(watched_points(scores(1, rising)))
    assert alone.loc["ability:questions", "mean"] == pytest.approx(-1.0)


@pytest.mark.parametrize("missing", ["perplexity", "ability", "the unedited model"])
def test_what_is_not_on_record_is_an_error(missing: str) -> None:
    rows = scores(0, FATES)
    gone = rows["n_edits"] == 0 if missing == "the unedited model" else rows["metric"].str.startswith(missing)
    with pytest.raises(InputError, match="an alarm is held against perplexity and abilities"):
        watched_points(rows[~gone])


def test_the_default_threshold_is_the_one_that_the_tune_pool_chose() -> None:
    """The largest of these that lets no tune run pass which has lost half of its mean ability."""
    points = watched_points(read_records(RECORDS / "tune-evaluation.csv"))
    safe = [at for at in (1.05, 1.1, 1.25, 1.5, 2.0, 3.0) if alarms_at(points, at).passed == 0]
    assert Guard("stop", 1).perplexity == max(safe)
