"""Figures of what edits achieved: one edit before and after, and what a restraint saves against what it costs."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunejax.errors import InputError
from prunejax.figures.curves import over_runs, unedited
from prunejax.figures.looks import GREY, counts, handle, looks, name
from prunejax.records import RESULTS, is_score

ONE_EDIT = ("efficacy_top1", "generalization_top1", "locality_top1", "portability")
MOMENTS = (("before the edit", "#0072B2", "white", -0.13), ("after one edit", "#D55E00", "#D55E00", 0.13))


def single_edit(ax: Axes, frame: pd.DataFrame, metrics: Sequence[str] = ONE_EDIT) -> pd.DataFrame:
    """Scores before an edit (hollow) and after it (filled), a pair a metric from top to bottom, each with its interval.

    `frame` is drawn as it is: one run's summary rows (intervals over its cases) or `across_seeds` of several (t
    intervals over runs), at 0 edits and at 1. Returns columns metric, n_edits, n, mean, lo, hi. InputError if a metric
    is not there once before and once after.
    """
    pairs = [
        frame[(frame["metric"] == metric) & frame["n_edits"].isin((0, 1))].sort_values("n_edits") for metric in metrics
    ]
    for metric, pair in zip(metrics, pairs, strict=True):
        if list(pair["n_edits"]) != [0, 1]:
            raise InputError(f"figure: {metric} needs one row at 0 edits and one at 1, not {list(pair['n_edits'])}")
    table = pd.concat(pairs, ignore_index=True)[["metric", "n_edits", "n", "mean", "lo", "hi"]]
    heights = np.arange(len(metrics))
    before, after = (table[table["n_edits"] == n_edits] for n_edits in (0, 1))
    ax.hlines(heights, before["mean"], after["mean"], color=GREY, lw=0.6, zorder=1)
    for rows, (label, color, fill, lift) in zip((before, after), MOMENTS, strict=True):
        reach = _reach(rows["mean"], rows["lo"], rows["hi"])
        ax.errorbar(
            rows["mean"], heights + lift, xerr=reach, fmt="o", color=color, mfc=fill, elinewidth=0.8, label=label
        )
    ax.set_yticks(heights, [f"{name(metric)}\n{counts(pair)}" for metric, pair in zip(metrics, pairs, strict=True)])
    ax.set(xlim=(-0.02, 1.02), ylim=(len(metrics) - 0.5, -0.5), xlabel="score (95% interval)")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return table


def mean_ability(frame: pd.DataFrame) -> pd.DataFrame:
    """Summary rows of metric "ability": the unweighted mean over the abilities of each run, ends NaN, n cases in all.

    InputError where a run has fewer abilities than another, whose mean would be of other tasks.
    """
    rows = frame[frame["metric"].str.startswith("ability:")]
    by = [column for column in frame.columns if column not in RESULTS and column != "metric"]
    groups = rows.groupby(by)
    tasks = groups["metric"].nunique()
    if rows.empty or tasks.min() < rows["metric"].nunique():
        raise InputError(f"figure: not every run has the abilities {sorted(set(rows['metric']))}")
    means = groups.agg(n=("n", "sum"), mean=("mean", "mean"), nan_count=("nan_count", "sum")).reset_index()
    return means.assign(metric="ability", lo=np.nan, hi=np.nan)[list(frame.columns)]


def pareto(
    ax: Axes,
    frame: pd.DataFrame,
    n_edits: int,
    *,
    x: str = "efficacy_top1",
    y: str = "ability",
    marked: Collection[str] = (),
) -> pd.DataFrame:
    """What restraints save (`y`) against what they cost (`x`) after `n_edits`: a point a restraint, up and right is better.

    Points are means over seeds of summary rows, crosses their t intervals (each score's own: they do not tell how the
    two vary together), arrows start at the unrestrained run, a star is the unedited model. `y` "ability" is the
    mean of all abilities. Returns columns restraint ("unedited" for the star), n_edits, x, x_lo, x_hi, y, y_lo, y_hi.
    InputError where a restraint lacks either score, or for a metric that is no score.
    """
    if not is_score(x) or not is_score(y):
        raise InputError(f"figure: {x} and {y} must both be scores in [0, 1]")
    rows = pd.concat([frame, mean_ability(frame)]) if "ability" in (x, y) else frame
    sides = []
    for axis, metric in (("x", x), ("y", y)):
        here = rows[(rows["metric"] == metric) & rows["n_edits"].isin((0, n_edits))]
        means = pd.concat([unedited(here, "restraint"), over_runs(here[here["n_edits"] > 0], "restraint")])
        renamed = means.rename(columns={"mean": axis, "lo": f"{axis}_lo", "hi": f"{axis}_hi"})
        sides.append(renamed[["restraint", "n_edits", axis, f"{axis}_lo", f"{axis}_hi"]])
    table = sides[0].merge(sides[1], on=["restraint", "n_edits"], how="outer")
    if table[["x", "y"]].isna().any(axis=None) or n_edits not in set(table["n_edits"]):
        raise InputError(f"figure: {x} and {y} after {n_edits} edits are not there for every restraint alike")
    edited = table[table["n_edits"] > 0].set_index("restraint")
    for restraint, look in looks(edited.index, marked).items():
        point = edited.loc[restraint]
        reach = [_reach(*point[[axis, f"{axis}_lo", f"{axis}_hi"]]) for axis in "xy"]
        hollow = {"mfc": "white"} if restraint in marked else {}
        ax.errorbar(
            point["x"], point["y"], xerr=reach[0], yerr=reach[1], color=look.color, fmt=look.marker, ms=4,
            elinewidth=0.7, label=restraint, **hollow,
        )  # fmt: skip
        if restraint != "none" and "none" in edited.index:
            arrow = {"arrowstyle": "->", "color": look.color, "lw": 0.6, "alpha": 0.6, "shrinkA": 4, "shrinkB": 4}
            ax.annotate("", tuple(point[["x", "y"]]), tuple(edited.loc["none", ["x", "y"]]), arrowprops=arrow, zorder=1)
    for _, point in table[table["n_edits"] == 0].iterrows():
        ax.plot(point["x"], point["y"], marker="*", ms=7, color=GREY, ls="none", label="unedited")
    ax.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xlabel=name(x), ylabel=name(y))
    ax.set_title(f"{n_edits:,} edits", loc="left")
    ax.set_title(
        counts(rows[(rows["metric"] == x) & (rows["n_edits"] == n_edits)]), loc="right", color=GREY, fontsize=6
    )
    return table


def pareto_panel(
    fig: Figure,
    frame: pd.DataFrame,
    edits: Sequence[int],
    *,
    d_in: int,
    x: str = "efficacy_top1",
    y: str = "ability",
    marked: Collection[str] = (),
) -> pd.DataFrame:
    """`pareto` for each count in `edits`, side by side, with shared axes and one legend; returns the tables together."""
    axes = fig.subplots(1, len(edits), sharex=True, sharey=True, squeeze=False)[0]
    table = pd.concat([pareto(ax, frame, n, x=x, y=y, marked=marked) for ax, n in zip(axes, edits, strict=True)])
    for ax, n in zip(axes, edits, strict=True):
        ax.set_title(f"{n:,} edits ({n / d_in:.2g} d_in)", loc="left")
        ax.label_outer()
    shown = looks(set(table.loc[table["n_edits"] > 0, "restraint"]), marked)
    handles = [handle(look.text, color=look.color, marker=look.marker, ls="none") for look in shown.values()]
    handles.append(handle("unedited model", color=GREY, marker="*", ms=7, ls="none"))
    fig.legend(handles=handles, loc="outside lower center", ncols=4)
    return table.reset_index(drop=True)


def _reach(mean, lo, hi):
    """Error bars' lengths, below and above: nothing where there is no interval."""
    lengths = np.array([np.subtract(mean, lo), np.subtract(hi, mean)], np.float64)
    return np.nan_to_num(lengths.reshape(2, -1))
