"""Figures of what edits achieved: one edit before and after, and what a restraint saves against what it costs."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from prunejax.errors import InputError
from prunejax.figures.curves import over_runs, unedited
from prunejax.figures.looks import GREY, counts, handle, looks, name
from prunejax.intervals import across_seeds, mean_ability
from prunejax.records import is_score
from prunejax.restraint import margin, parse

ONE_EDIT = ("efficacy_top1", "generalization_top1", "locality_top1", "portability")
MOMENTS = (("before the edit", "#0072B2", "white", -0.13), ("after one edit", "#D55E00", "#D55E00", 0.13))


def single_edit(ax: Axes, frame: pd.DataFrame, metrics: Sequence[str] = ONE_EDIT) -> pd.DataFrame:
    """Scores before an edit (hollow) and after it (filled), a pair a metric from top to bottom, each with its interval.

    `frame` is drawn as it is: one run's summary rows (intervals over its cases) or `across_seeds` of several (t
    intervals over runs), at 0 edits and at 1. Returns columns metric, n_edits, n, mean, lo, hi. InputError if a metric
    is not there once before and once after.
    """
    here = frame[frame["n_edits"].isin((0, 1))].sort_values("n_edits")
    pairs = {metric: here[here["metric"] == metric] for metric in metrics}
    for metric, pair in pairs.items():
        if list(pair["n_edits"]) != [0, 1]:
            raise InputError(f"figure: {metric} needs one row at 0 edits and one at 1, not {list(pair['n_edits'])}")
    table = pd.concat(pairs.values(), ignore_index=True)[["metric", "n_edits", "n", "mean", "lo", "hi"]]
    heights = np.arange(len(metrics))
    for n_edits, (label, color, fill, lift) in enumerate(MOMENTS):
        rows = table[table["n_edits"] == n_edits]
        bars = {"xerr": _reach(rows["mean"], rows["lo"], rows["hi"]), "elinewidth": 0.8}
        ax.errorbar(rows["mean"], heights + lift, fmt="o", color=color, mfc=fill, label=label, **bars)
    for height, pair in zip(heights, pairs.values(), strict=True):
        ax.plot(pair["mean"], [height + lift for *_, lift in MOMENTS], color=GREY, lw=0.5, zorder=1, label="_change")
    ax.set_yticks(heights, [f"{name(metric)}\n{counts(pair)}" for metric, pair in pairs.items()])
    ax.set(xlim=(-0.02, 1.02), ylim=(len(metrics) - 0.5, -0.5), xlabel="score, 95% interval")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return table


def update_sizes(ax: Axes, cases: pd.DataFrame) -> pd.DataFrame:
    """How large single updates are: the sorted sigma_max of each, in units of m = sigma_max(W_0), against its quantile.

    `cases` holds case rows with metric sigma_max: one a request at 1 edit (the update's), and the unedited weight's at
    0. Returns quantile (0-1) and sigma_max / m at five quantiles.
    """
    sigma = cases[cases["metric"] == "sigma_max"]
    m = float(sigma.loc[sigma["n_edits"] == 0, "value"].iloc[0])
    share = np.sort(sigma.loc[sigma["n_edits"] == 1, "value"].to_numpy()) / m
    ax.plot(share, (np.arange(share.size) + 0.5) / share.size, color="black")
    ax.axvline(1.0, color=GREY, lw=0.6)
    ax.set(
        xscale="log",
        ylim=(0, 1),
        xlabel=r"$\sigma_{\max}$ of one update / $\sigma_{\max}(W_0)$",
        ylabel=f"share of {share.size} updates",
    )
    quantiles = [0.0, 0.25, 0.5, 0.75, 1.0]
    return pd.DataFrame({"quantile": quantiles, "sigma_max / m": np.quantile(share, quantiles)})


def pareto(
    ax: Axes,
    frame: pd.DataFrame,
    n_edits: int,
    *,
    x: str = "efficacy_top1",
    y: str = "ability",
    marked: Collection[str] = (),
) -> pd.DataFrame:
    """What restraints save (`y`) and cost (`x`) after `n_edits`: a point a restraint, better towards the upper right.

    Points are means over seeds of summary rows, crosses their t intervals (each score's own: they do not tell how the
    two vary together), arrows start at the unrestrained run, a star is the unedited model. `y` "ability" is
    `mean_ability`. Returns columns restraint ("unedited" for the star), n_edits, x, x_lo, x_hi, y, y_lo, y_hi.
    InputError where a restraint has one score without the other, or for a metric that is no score.
    """
    if not is_score(x) or not is_score(y):
        raise InputError(f"figure: {x} and {y} must both be scores in [0, 1]")
    rows = pd.concat([frame, mean_ability(frame)]) if "ability" in (x, y) else frame
    edited = rows[rows["n_edits"] == n_edits]
    table = _side(rows, x, n_edits, "x").merge(_side(rows, y, n_edits, "y"), on=["restraint", "n_edits"], how="outer")
    if table[["x", "y"]].isna().any(axis=None) or n_edits not in set(table["n_edits"]):
        raise InputError(f"figure: {x} and {y} after {n_edits} edits are not there for every restraint alike")
    points = table[table["n_edits"] > 0].set_index("restraint")
    for restraint, look in looks(points.index, marked).items():
        at = points.loc[restraint]
        bars = {f"{axis}err": _reach(at[axis], at[f"{axis}_lo"], at[f"{axis}_hi"]) for axis in "xy"}
        mark = {"color": look.color, "fmt": look.marker, "mfc": look.fill, "ms": 4, "elinewidth": 0.7}
        ax.errorbar(at["x"], at["y"], label=restraint, **mark, **bars)
        if restraint != "none" and "none" in points.index:
            arrow = {"arrowstyle": "->", "color": look.color, "lw": 0.6, "alpha": 0.6, "shrinkA": 4, "shrinkB": 4}
            ends = [tuple(points.loc[end, ["x", "y"]]) for end in (restraint, "none")]
            ax.annotate("", *ends, arrowprops=arrow, zorder=1)
    start = table[table["n_edits"] == 0]
    ax.plot(start["x"], start["y"], marker="*", ms=7, color=GREY, ls="none", label="unedited")
    for axis, metric in (("x", x), ("y", y)):
        label = f"{name(metric)} ({counts(edited[edited['metric'] == metric])})"
        ax.set(**{f"{axis}lim": (-0.04, 1.04), f"{axis}label": label})
    ax.set_title(f"{n_edits:,} edits", loc="left")
    return table


def base_sweep(
    ax: Axes, frame: pd.DataFrame, n_edits: int, *, m: float, metrics: Sequence[str] = ("ability", "efficacy_top1")
) -> pd.DataFrame:
    """Scores under log:BASE after `n_edits` against m ln(BASE), a curve a metric with its t interval over seeds.

    m = sigma_max(W_0). To the left of the line at 1 the map can amplify; far to the left it is no restraint, far to the
    right a clip. Returns columns restraint, metric, n, mean, lo, hi and "m ln(base)".
    """
    rows = pd.concat([frame, mean_ability(frame)]) if "ability" in metrics else frame
    rows = rows[(rows["n_edits"] == n_edits) & rows["metric"].isin(metrics) & rows["restraint"].str.startswith("log:")]
    table = across_seeds(rows)[["restraint", "metric", "n", "mean", "lo", "hi"]]
    table["m ln(base)"] = [margin(parse(spec), m) for spec in table["restraint"]]
    table = table.sort_values(["metric", "m ln(base)"]).reset_index(drop=True)
    for metric, color, marker in zip(metrics, ("#0072B2", "#D55E00", "#009E73"), "osv", strict=False):
        curve = table[table["metric"] == metric]
        ax.fill_between(curve["m ln(base)"], curve["lo"], curve["hi"], color=color, alpha=0.15, lw=0)
        ax.plot(curve["m ln(base)"], curve["mean"], color=color, marker=marker, label=name(metric))
    ax.axvline(1, color=GREY, lw=0.8)
    ax.annotate("can amplify", (1, 1.02), xytext=(-3, 0), textcoords="offset points", ha="right", color=GREY)
    ax.set(xscale="log", ylim=(-0.02, 1.08), xlabel=r"$m\,\ln(\mathrm{base})$", ylabel="score, 95% interval")
    ax.set_title(f"{n_edits:,} edits, {counts(rows[rows['metric'] == metrics[-1]])}", loc="left")
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
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
    """`pareto` for each count in `edits`, side by side, with one legend; returns the tables one under the other.

    The unedited model's row is repeated in every table.
    """
    axes = fig.subplots(1, len(edits), sharex=True, sharey=True, squeeze=False)[0]
    table = pd.concat([pareto(ax, frame, n, x=x, y=y, marked=marked) for ax, n in zip(axes, edits, strict=True)])
    for ax, n in zip(axes, edits, strict=True):
        ax.set_title(rf"{n:,} edits = {n / d_in:.2g} $d_\mathrm{{in}}$", loc="left")
        ax.label_outer()
    shown = looks(table.loc[table["n_edits"] > 0, "restraint"], marked)
    dots = {look.text: {"color": look.color, "marker": look.marker, "mfc": look.fill} for look in shown.values()}
    dots["unedited model"] = {"color": GREY, "marker": "*"}
    note = [handle("† map can amplify", color=GREY, marker="o", mfc="white", ls="none")] if marked else []
    handles = [handle(text, ls="none", ms=5, **look) for text, look in dots.items()]
    fig.legend(handles=handles + note, loc="outside lower center", ncols=4)
    return table.reset_index(drop=True)


def _side(rows: pd.DataFrame, metric: str, n_edits: int, axis: str) -> pd.DataFrame:
    here = rows[rows["metric"] == metric]
    after = over_runs(here[here["n_edits"] == n_edits], "restraint")
    means = pd.concat([unedited(here, "restraint"), after])[["restraint", "n_edits", "mean", "lo", "hi"]]
    return means.rename(columns={"mean": axis, "lo": f"{axis}_lo", "hi": f"{axis}_hi"})


def _reach(mean: ArrayLike, lo: ArrayLike, hi: ArrayLike) -> np.ndarray:
    """The lengths of error bars, below and above [2, n]: 0 where there is no interval."""
    lengths = np.array([np.subtract(mean, lo), np.subtract(hi, mean)], np.float64)
    return np.nan_to_num(lengths.reshape(2, -1))
