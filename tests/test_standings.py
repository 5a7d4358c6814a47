"""Standings, differences and the Pareto front, beside the same by hand; and how a tournament is drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from prunejax import figures
from prunejax.errors import InputError
from prunejax.intervals import student
from prunejax.records import SUMMARY_COLUMNS
from prunejax.standings import difference, front, seconds, standings

METRICS = ("ability:a", "ability:b", "efficacy_top1", "perplexity")
ENTRANTS = {("rome", "none"): 0.1, ("rome", "log:e"): 0.3, ("alphaedit", "none"): 0.2, ("alphaedit", "rect:20"): 0.4}


@pytest.fixture
def summary() -> pd.DataFrame:
    """Scores that rise by 0.01 with the order; ability:b is 0.2 above ability:a."""
    rows = []
    for (editor, restraint), base in ENTRANTS.items():
        for order in (0, 1, 2):
            for place, metric in enumerate(METRICS):
                value = base + 0.01 * order + 0.2 * (place == 1)
                rows.append((editor, restraint, order, 10, metric, value))
            rows.append((editor, restraint, order, 10, "seconds", 0.5 + order))
    frame = pd.DataFrame(rows, columns=["editor", "restraint", "seed", "n_edits", "metric", "mean"])
    constant = {"model": "world", "requests": "r", "preset": "world", "batch": 1, "n": 5, "nan_count": 0}
    frame = frame.assign(**constant, run_id="x", lo=frame["mean"], hi=frame["mean"])
    return frame[list(SUMMARY_COLUMNS)]


def test_standings_are_means_over_orders_and_abilities_are_one_score(summary):
    found = standings(summary, 10).set_index(["editor", "restraint", "metric"])
    row = found.loc["alphaedit", "rect:20", "ability"]
    assert row["n"] == 3
    assert tuple(row[["mean", "lo", "hi"]]) == pytest.approx(student([0.5, 0.51, 0.52]))
    assert "seconds" not in set(standings(summary, 10)["metric"])
    times = seconds(summary).set_index(["editor", "restraint"])
    assert times.loc[("rome", "log:e"), "mean"] == 1.5


def test_entrants_of_other_orders_do_not_stand_beside_one_another(summary):
    short = summary[(summary["editor"] == "rome") | (summary["seed"] > 0)]
    with pytest.raises(InputError, match="did not all run the same orders to 10 edits"):
        standings(short, 10)
    with pytest.raises(InputError, match="to 300 edits"):
        standings(summary, 300)
    with pytest.raises(InputError, match="rome under none and alphaedit under none have no efficacy_top1 in common"):
        difference(short, 10, "efficacy_top1", ("rome", "none"), ("alphaedit", "none"))


def test_differences_are_paired(summary):
    mean, lo, hi = difference(summary, 10, "ability", ("alphaedit", "rect:20"), ("rome", "none"))
    assert (mean, lo, hi) == pytest.approx((0.3, 0.3, 0.3))


def test_the_front_is_who_none_beats():
    points = pd.DataFrame({"x": [0.1, 0.5, 0.5, 0.9, 0.5], "y": [0.9, 0.5, 0.4, 0.1, 0.5]})
    assert front(points, "x", "y").tolist() == [True, True, False, True, True]


def test_a_tournament_is_drawn_point_by_point(summary):
    with figures.style():
        fig = plt.figure()
        drawn = figures.tournament_front(fig, {10: standings(summary, 10)}, d_in=100)
    assert len(drawn) == len(ENTRANTS)
    best = drawn.set_index(["editor", "restraint"])
    assert best["front"].sum() == 1
    assert best.loc[("alphaedit", "rect:20"), "front"]
    (ax,) = fig.axes
    assert "10 edits = 0.1" in ax.get_title("left")
    written = {text.get_text() for text in ax.texts}
    assert written == {"ROME", "AlphaEdit"}
    plt.close("all")


def test_every_editor_has_its_own_axes_and_the_front_is_the_same_in_all(summary):
    with figures.style():
        fig = plt.figure()
        drawn = figures.tournament_panels(fig, standings(summary, 10), title="10 edits", columns=3)
    best = drawn.set_index(["editor", "restraint"])
    assert best.index[best["front"]].tolist() == [("alphaedit", "rect:20")]
    axes = [ax for ax in fig.axes if ax.axison]
    assert [ax.get_title("left") for ax in axes] == ["ROME", "AlphaEdit"]
    for ax, restraints in zip(axes, (["none", "log:e"], ["none", "rect:20"]), strict=True):
        lines = {line.get_linestyle(): line for line in ax.get_lines() if line.get_linestyle() == ":"}
        assert lines[":"].get_xdata().tolist() == pytest.approx([0, 0.41, 0.41])
        assert lines[":"].get_ydata().tolist() == pytest.approx([0.51, 0.51, 0])
        shown = np.array([c.lines[0].get_xydata()[0] for c in ax.containers if len(c.lines[0].get_xydata())])
        editor = "rome" if ax is axes[0] else "alphaedit"
        assert shown == pytest.approx(best.loc[[(editor, spec) for spec in restraints], ["x", "y"]].to_numpy())
    assert fig.get_suptitle() == "10 edits, 3 orders"
    plt.close("all")


def test_batches_are_drawn_against_their_size(summary):
    table = pd.concat([standings(summary.assign(batch=size), 10) for size in (1, 10, 300)], ignore_index=True)
    plain = table[table["restraint"] == "none"]
    with figures.style():
        fig, axes = plt.subplots(1, 2)
        drawn = figures.batch_sizes(axes, plain, ["ability", "efficacy_top1"], 10)
    assert set(drawn["metric"]) == {"ability", "efficacy_top1"}
    for ax in axes:
        assert [line.get_xdata().tolist() for line in ax.get_lines()] == [[1, 10, 300]] * 2
        assert np.isclose(ax.get_ylim()[1], 1.02)
    assert [text.get_text() for text in fig.legends[0].texts] == ["AlphaEdit", "ROME", "95% interval over 3 orders"]
    plt.close("all")
