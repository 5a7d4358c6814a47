"""The figure of key counts against the moment rows it was made of."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from prunejax import figures
from prunejax.enough import expected_cost
from prunejax.errors import InputError
from prunejax.intervals import student
from prunejax.records import MOMENT_COLUMNS, check

SHARES = (0.5, 2, 10, 100)
SEEDS = (0, 1, 2)
D = 64


def value(metric: str, settings: str, share: float, seed: int) -> float:
    if settings == "ridge=0" and share < 1:
        return math.nan
    if metric == "cost":
        return 1.0 if share == 100 else 1 + (1 + 0.1 * seed) / share
    return 0.9 - 0.1 * (settings == "ridge=1") - 0.02 * seed


@pytest.fixture
def rows() -> pd.DataFrame:
    found = []
    for settings in ("ridge=0", "ridge=1"):
        for metric in ("cost", "cosine", "locality_top1"):
            for share in SHARES:
                for seed in SEEDS:
                    mean = value(metric, settings, share, seed)
                    if metric == "locality_top1" and math.isnan(mean):
                        continue
                    found.append((seed, settings, int(share * D), metric, mean))
    found += [(seed, "second_moment=identity", 0, "locality_top1", 0.25) for seed in SEEDS]
    frame = pd.DataFrame(found, columns=["seed", "settings", "keys", "metric", "mean"])
    same = {"weights": "a", "corpus": "b", "texts": "c", "requests": "d", "tensor": "e", "d_in": D, "n": 40}
    frame = frame.assign(**same, model="world", lo=frame["mean"], hi=frame["mean"], nan_count=0)
    return check(frame[list(MOMENT_COLUMNS)])


PANELS = [("world", "cost"), ("world", "cosine"), ("world", "locality_top1")]


@pytest.fixture
def drawn(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    with figures.style():
        fig = Figure(figsize=(figures.WIDTH, 3))
        return fig, figures.key_counts(fig, rows, PANELS, columns=2, limits={"cost": 1.25, "cosine": 0.9})


def lines(ax, label: str) -> list[np.ndarray]:
    return [line.get_xydata() for line in ax.lines if line.get_label() == label]


def test_curves_are_the_means_of_the_seeds_with_their_intervals(drawn) -> None:
    fig, table = drawn
    found = table.set_index(["settings", "metric", "keys"])
    for settings in ("ridge=0", "ridge=1"):
        (curve,) = lines(fig.axes[1], settings)
        expected = [student([value("cosine", settings, share, seed) for seed in SEEDS]) for share in SHARES]
        assert_allclose(curve, [(share, e.mean) for share, e in zip(SHARES, expected, strict=True)])
        for share, e in zip(SHARES, expected, strict=True):
            assert_allclose(found.loc[(settings, "cosine", int(share * D)), ["mean", "lo", "hi"]].astype(float), e)
    assert list(table.columns) == [
        *("model", "settings", "metric", "d_in", "keys", "per_dimension", "n", "mean", "lo", "hi")
    ]
    thin = [line for line in fig.axes[1].lines if line.get_linewidth() == 0.4]
    assert len(thin) == 2 * len(SEEDS)


def test_costs_are_drawn_as_what_exceeds_one_and_all_of_the_text_is_left_out(drawn) -> None:
    cost = drawn[0].axes[0]
    (curve,) = lines(cost, "ridge=1")
    assert_allclose(curve, [(share, 1.1 / share) for share in SHARES[:-1]])
    (plain,) = lines(cost, "ridge=0")
    assert_allclose(plain, [(share, 1.1 / share) for share in SHARES[1:-1]])
    (expected,) = lines(cost, "_expected")
    assert_allclose(expected[:, 1], expected_cost(expected[:, 0] * D, D) - 1)
    assert cost.get_yscale() == "log"


def test_limits_controls_and_the_claimed_count_are_marked(drawn) -> None:
    cost, cosine, locality = drawn[0].axes
    assert [lines(ax, "_limit")[0][0, 1] for ax in (cost, cosine)] == [0.25, 0.9]
    assert lines(locality, "_limit") == []
    assert lines(locality, "_identity")[0][0, 1] == 0.25
    assert lines(cosine, "_identity") == []
    assert all(any(set(line.get_xdata()) == {10} for line in ax.lines) for ax in (cost, cosine, locality))
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts[:2] == ["no ridge, as published", "ridge 1 × mean diagonal"]
    assert {"expected of normal keys", "identity in place of C"} <= set(texts)
    assert cost.get_title(loc="left").strip() == "cost − 1, world"
    assert cost.get_title(loc="center") == "3 seeds × 40 requests"


def test_panels_of_a_metric_share_their_height(rows: pd.DataFrame) -> None:
    other = rows.assign(model="other", mean=1 + 3 * (rows["mean"] - 1), lo=rows["mean"], hi=rows["mean"])
    fig = Figure()
    both = pd.concat([rows, other])
    figures.key_counts(fig, both, [("world", "cost"), ("other", "cost"), ("world", "cosine")], columns=3)
    world, other, cosine = (ax.get_ylim() for ax in fig.axes)
    assert world == other != cosine
    assert world[0] < 0.11
    assert world[1] > 3 * 2.2


def test_a_panel_without_rows_is_named(rows: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no cost of gpt2; there are world"):
        figures.key_counts(Figure(), rows, [("gpt2", "cost")])
