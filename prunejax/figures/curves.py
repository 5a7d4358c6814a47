"""Curves against the number of edits: the mean of runs with its interval, every run behind it, the unedited model.

A run is one order of the requests (a seed). A mean that is not finite is a collapse: its line breaks off, and a cross
in its colour stands in a strip along the upper edge that says so.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from prunejax.errors import InputError
from prunejax.figures.looks import GREY, LONG_DASHES, Look, counts, key, looks, name
from prunejax.intervals import COMPARABLE, across_seeds
from prunejax.records import is_score

UNEDITED = "unedited"
RESULTS = ["metric", "n_edits", "n", "mean", "lo", "hi", "nan_count"]
LOGARITHMIC = ("perplexity", "sigma_max", "sigma_min", "kappa", "frobenius", "eta", "drift")
EDITING = ("efficacy", "generalization", "locality")
PLAIN = FuncFormatter(lambda value, _: f"{value:,.6g}")


def amplifying(frame: pd.DataFrame) -> frozenset[str]:
    """The restraints that some row of a spectra summary shows to enlarge singular values, or to be able to.

    That is a `margin` (m ln(BASE)) below 1, or an `amplification` (largest F(s)/s) above 1 by more than rounding.
    """
    kind = frame["metric"].str.partition(":")[0]
    able = (kind == "margin") & (frame["mean"] < 1) | (kind == "amplification") & (frame["mean"] > 1 + 1e-4)
    return frozenset(frame.loc[able, "restraint"])


def curves(
    ax: Axes, frame: pd.DataFrame, metric: str, *, d_in: int, by: str = "restraint", marked: Collection[str] = ()
) -> pd.DataFrame:
    """Draw `metric` against edits, a curve for each restraint (or editor, preset, model: `by`), a legend on the right.

    `frame` holds summary rows: their mean over seeds is drawn with its t interval, and the seeds behind it. Rows
    without seeds, as `intervals.across_models` and `paired` make them, are drawn as they are, differences about zero.
    `marked` restraints (`amplifying`) are dashed, hollow and get a dagger. `d_in` is the number of key dimensions of an
    edited kernel.

    Returns what was drawn: `by` ("unedited" for the line at 0 edits), metric, n_edits, n runs, mean, lo, hi, nan_count.
    InputError without rows, or where rows of several models or editors would share a curve.

    Misleads: a t interval of scores may leave [0, 1], where the axes cut it; on a logarithmic axis an interval that
    reaches 0 runs off the lower edge. One outlier lifts a mean: look at the thin lines.
    """
    drawn = draw(ax, frame, metric, by, marked)
    edit_axis(ax, d_in)
    last = drawn[drawn["n_edits"] > 0].groupby(by)["mean"].last().fillna(np.inf)
    shown = looks(last.index, marked)
    ranked = {label: shown[label] for label in sorted(shown, key=lambda label: -last[label])}
    ax.legend(handles=key([ax], ranked), loc="center left", bbox_to_anchor=(1.02, 0.5))
    return drawn


def panel(
    fig: Figure,
    frame: pd.DataFrame,
    *,
    d_in: int,
    metrics: Sequence[str] | None = None,
    columns: int = 4,
    marked: Collection[str] = (),
) -> pd.DataFrame:
    """Fill `fig` with small `curves`, one for each of `metrics`, with shared axes and one legend below.

    Without `metrics`: the abilities found, then efficacy, generalization, locality and perplexity. Scores share their
    y axis. Returns the tables of all panels, one under the other.
    """
    abilities = sorted({metric for metric in frame["metric"] if metric.startswith("ability:")})
    metrics = [*abilities, *EDITING, "perplexity"] if metrics is None else list(metrics)
    axes = fig.subplots(-(-len(metrics) // columns), columns, sharex=True, squeeze=False)
    for ax in axes.flat[len(metrics) :]:
        ax.remove()
    drawn = []
    for place, (metric, ax) in enumerate(zip(metrics, axes.flat, strict=False)):
        drawn.append(draw(ax, frame, metric, "restraint", marked))
        edit_axis(ax, d_in, below=place + columns >= len(metrics), above=place < columns)
        if is_score(metric) and place % columns == 0:
            ax.set_ylabel("score")
        elif is_score(metric):
            ax.tick_params(labelleft=False)
    table = pd.concat(drawn, ignore_index=True)
    legend_below(fig, table, marked)
    return table


def draw(ax: Axes, frame: pd.DataFrame, metric: str, by: str, marked: Collection[str]) -> pd.DataFrame:
    """The curves of `curves` without the x axes and the legend; returns the same table.

    Artists are labelled: a mean by its value of `by`; then "_run:...", "_interval:...", "_failed:...", "_unedited".
    """
    rows = frame[frame["metric"] == metric]
    edited = rows[rows["n_edits"] > 0]
    if edited.empty:
        raise InputError(f"figure: no rows of {metric!r} after an edit; there are {sorted(set(frame['metric']))}")
    means, start = over_runs(edited, by), unedited(rows, by)
    difference = means[by].str.contains(" - ", regex=False).any()
    if metric.partition(":")[0] in LOGARITHMIC and not difference:
        ax.set_yscale("log")
    shown = looks(means[by], marked)
    for label, look in shown.items():
        _draw_one(ax, label, look, means[means[by] == label], edited[edited[by] == label])
    for mean, lo, hi in start[["mean", "lo", "hi"]].itertuples(index=False):
        reference(ax, mean, lo, hi)
    failures = means[~np.isfinite(means["mean"])].groupby(by)["n_edits"].apply(list).to_dict()
    if is_score(metric) and not difference:
        ax.set_ylim(-0.02, 1.02)
    else:
        ends = means["hi"] if ax.get_yscale() == "log" else means[["lo", "hi"]].stack()
        _limit(ax, pd.concat([edited["mean"], start["mean"], ends]), room=_strip(len(failures)))
        if ax.get_yscale() == "log":
            number_decades(ax)
    if difference:
        ax.axhline(0, color=GREY, lw=0.5, label="_zero", zorder=1)
    _mark_failures(ax, {label: failures[label] for label in shown if label in failures}, shown)
    # Two titles at the same place, the first with an empty second line: they cannot meet, however narrow the panel.
    ax.set_title(f"{name(metric)}{', difference' if difference else ''}\n", loc="left")
    ax.set_title(counts(edited), loc="center", x=0, ha="left", color=GREY, fontsize=6)
    return pd.concat([start, means])[[by, *RESULTS]].reset_index(drop=True)


def over_runs(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """The means over seeds, or rows without seeds, sorted; InputError if one curve would have two values."""
    means = across_seeds(rows) if "seed" in rows and len(rows) else rows
    if means.duplicated([by, "n_edits"]).any():
        others = [column for column in COMPARABLE if column in means and column not in (by, "n_edits")]
        mixed = [column for column in others if means[column].nunique() > 1]
        raise InputError(f"figure: rows of more than one {' and '.join(mixed)} for one {by}; choose among them first")
    return means.sort_values([by, "n_edits"])


def unedited(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """The mean over seeds at 0 edits, where neither editor nor restraint has done anything: one row a model.

    Several runs that evaluated the unedited model with the same seed count once.
    """
    same = {column: UNEDITED for column in ("run_id", "editor", "preset", "restraint") if column in rows}
    start = rows[rows["n_edits"] == 0].assign(batch=1, **same)
    return over_runs(start.drop_duplicates([c for c in ("model", "requests", "seed", "metric") if c in start]), by)


def reference(ax: Axes, mean: float, lo: float = np.nan, hi: float = np.nan) -> None:
    """A long-dashed grey line at the unedited model's value, and its interval as a grey stripe where it has one."""
    ax.axhline(mean, color=GREY, ls=LONG_DASHES, lw=0.8, label="_unedited", zorder=1.5)
    if hi > lo:
        ax.axhspan(lo, hi, color=GREY, alpha=0.15, lw=0)


def edit_axis(ax: Axes, d_in: int, below: bool = True, above: bool = True) -> None:
    """A logarithmic x axis of edits and, above, the same as edits / d_in: the share of key directions they can fill."""
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(PLAIN)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(labelbottom=below)
    if below:
        ax.set_xlabel("sequential edits")
    if above:
        upper = ax.secondary_xaxis("top", functions=(lambda edits: edits / d_in, lambda share: share * d_in))
        upper.xaxis.set_major_formatter(PLAIN)
        upper.xaxis.set_minor_formatter(NullFormatter())
        upper.tick_params(which="both", color=GREY, labelcolor=GREY)
        upper.spines["top"].set_color(GREY)
        upper.set_xlabel(rf"edits / $d_\mathrm{{in}}$,  $d_\mathrm{{in}}$ = {d_in:,}", color=GREY, labelpad=4)


def legend_below(fig: Figure, drawn: pd.DataFrame, marked: Collection[str]) -> None:
    """One legend for all axes of a figure whose tables of restraints are `drawn`."""
    shown = looks(drawn.loc[drawn["n_edits"] > 0, "restraint"], marked)
    fig.legend(handles=key(fig.axes, shown), loc="outside lower center", ncols=4)


def _draw_one(ax: Axes, label: str, look: Look, curve: pd.DataFrame, rows: pd.DataFrame) -> None:
    if "seed" in rows and rows["seed"].nunique() > 1:
        for _, run in rows.sort_values("n_edits").groupby("seed"):
            ax.plot(run["n_edits"], run["mean"], color=look.color, lw=0.4, alpha=0.4, label=f"_run:{label}", zorder=1)
    if curve["lo"].notna().any():
        band = {"color": look.color, "alpha": 0.15, "lw": 0, "label": f"_interval:{label}"}
        ax.fill_between(curve["n_edits"], curve["lo"], curve["hi"], **band)
    line = {"color": look.color, "ls": look.line, "marker": look.marker, "mfc": look.fill, "zorder": 3}
    ax.plot(curve["n_edits"], curve["mean"], label=label, **line)


def _limit(ax: Axes, values: pd.Series, room: float) -> None:
    """Fit the y axis to the finite values that it can show, `room` of its height kept free above them."""
    scale = ax.yaxis.get_transform()
    fit = values[np.isfinite(values) & ((values > 0) | (ax.get_yscale() == "linear"))]
    if fit.empty:
        return
    low, high = scale.transform(np.array([fit.min(), fit.max()]))
    pad = 0.05 * (high - low) or 0.1
    ends = [low - pad, low + (high + pad - low) / (1 - room)]
    ax.set_ylim(*scale.inverted().transform(np.array(ends)))


def number_decades(ax: Axes) -> None:
    """Plain numbers at the decades of the y axis, and at 2 and 5 of each where there are few."""
    low, high = ax.get_ylim()
    ax.yaxis.set_major_formatter(PLAIN)
    ax.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    ax.yaxis.set_minor_formatter(PLAIN if high < 300 * low else NullFormatter())


def _mark_failures(ax: Axes, failures: Mapping[str, Sequence[int]], shown: Mapping[str, Look]) -> None:
    for place, (label, n_edits) in enumerate(failures.items()):
        cross = {"color": shown[label].color, "marker": "x", "ms": 3.5, "ls": "none", "zorder": 3}
        heights = np.full(len(n_edits), 0.965 - 0.055 * place)
        ax.plot(n_edits, heights, transform=ax.get_xaxis_transform(), label=f"_failed:{label}", **cross)
    if failures:
        height = _strip(len(failures))
        grey = {"color": GREY, "alpha": 0.15, "lw": 0, "transform": ax.transAxes}
        ax.add_patch(Rectangle((0, 1 - height), 1, height, **grey))
        ax.text(0.02, 0.985, "not finite", transform=ax.transAxes, va="top", color=GREY, fontsize=6)


def _strip(failures: int) -> float:
    """The share of the axes' height in which so many rows of crosses stand."""
    return 0.025 + 0.055 * failures if failures else 0.0
