"""Curves against the number of edits: the mean of runs with its interval, every run behind it, the unedited model.

A run is one order of the requests (a seed). A mean that is not finite is a collapse: the line breaks off, and a cross
in its colour stands at the upper edge of the axes.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from prunejax.errors import InputError
from prunejax.figures.looks import GREY, LONG_DASHES, counts, key, looks, name
from prunejax.intervals import across_seeds
from prunejax.records import is_score

UNEDITED = "unedited"
RESULTS = ["metric", "n_edits", "n", "mean", "lo", "hi", "nan_count"]
LOGARITHMIC = ("perplexity", "sigma_max", "sigma_min", "kappa", "frobenius")
EDITING = ("efficacy", "generalization", "locality")


def amplifying(frame: pd.DataFrame) -> frozenset[str]:
    """The restraints that some row of a spectra summary shows to enlarge singular values, or to be able to.

    That is a margin (m ln(BASE)) below 1, or an `amplification` (largest F(s)/s) above 1 by more than rounding.
    """
    kind = frame["metric"].str.partition(":")[0]
    able = (kind == "margin") & (frame["mean"] < 1) | (kind == "amplification") & (frame["mean"] > 1 + 1e-4)
    return frozenset(frame.loc[able, "restraint"])


def curves(
    ax: Axes, frame: pd.DataFrame, metric: str, *, d_in: int, by: str = "restraint", marked: Collection[str] = ()
) -> pd.DataFrame:
    """Draw `metric` against edits, one curve for each value of the column `by`, and a legend on the right.

    `frame` holds summary rows: their mean over seeds is drawn with its t interval, and the seeds behind it. Rows
    without seeds, as `intervals.across_models` and `paired` make them, are drawn as they are. `marked` restraints
    (`amplifying`) are dashed and get a dagger. `d_in` is the number of key dimensions of an edited kernel.

    Returns what was drawn: `by` ("unedited" for the line at 0 edits), metric, n_edits, n runs, mean, lo, hi, nan_count.
    InputError without rows, or where rows of several models or editors would share a curve.

    Misleads: a t interval of scores may leave [0, 1], where the axes cut it; on a logarithmic axis an interval that
    reaches 0 runs off the lower edge. One outlier lifts a mean: look at the thin lines.
    """
    drawn = draw(ax, frame, metric, by, marked)
    edit_axis(ax, d_in)
    last = drawn[drawn[by] != UNEDITED].groupby(by)["mean"].last().fillna(np.inf)
    shown = looks(last.index, marked)
    ranked = {label: shown[label] for label in sorted(shown, key=lambda label: -last[label])}
    ax.legend(handles=key(ranked, failed(drawn)), loc="center left", bbox_to_anchor=(1.02, 0.5))
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
    for i, (metric, ax) in enumerate(zip(metrics, axes.flat, strict=False)):
        drawn.append(draw(ax, frame, metric, "restraint", marked))
        edit_axis(ax, d_in, below=i + columns >= len(metrics), above=i < columns)
        if is_score(metric) and i % columns:
            ax.tick_params(labelleft=False)
        if is_score(metric) and not i % columns:
            ax.set_ylabel("score")
    table = pd.concat(drawn, ignore_index=True)
    shown = looks(set(table["restraint"]) - {UNEDITED}, marked)
    fig.legend(handles=key(shown, failed(table)), loc="outside lower center", ncols=columns)
    return table


def draw(ax: Axes, frame: pd.DataFrame, metric: str, by: str, marked: Collection[str]) -> pd.DataFrame:
    """The curves of `curves` without the x axes and the legend; returns the same table.

    Artists are labelled: the mean by its value of `by`, then "_run:...", "_interval:...", "_failed:...", "_unedited".
    """
    rows = frame[frame["metric"] == metric]
    edited = rows[rows["n_edits"] > 0]
    if edited.empty:
        raise InputError(f"figure: no rows of {metric!r} after an edit; there are {sorted(set(frame['metric']))}")
    means, start = over_runs(edited, by), unedited(rows, by)
    for mean, lo, hi in start[["mean", "lo", "hi"]].itertuples(index=False):
        reference(ax, mean, lo, hi)
    for place, (label, look) in enumerate(looks(means[by], marked).items()):
        for _, run in edited[edited[by] == label].groupby("seed") if "seed" in edited else ():
            ordered = run.sort_values("n_edits")
            ax.plot("n_edits", "mean", data=ordered, color=look.color, lw=0.4, alpha=0.4, label=f"_run:{label}")
        curve = means[means[by] == label]
        ax.fill_between(
            "n_edits", "lo", "hi", data=curve, color=look.color, alpha=0.15, lw=0, label=f"_interval:{label}"
        )
        line = {"color": look.color, "ls": look.line, "marker": look.marker, "zorder": 3}
        ax.plot(curve["n_edits"], curve["mean"], label=label, **line)
        lost = curve.loc[~np.isfinite(curve["mean"]), "n_edits"]
        if len(lost):
            cross = {"color": look.color, "marker": "x", "ls": "none", "transform": ax.get_xaxis_transform()}
            ax.plot(lost, np.full(len(lost), 0.97 - 0.05 * place), label=f"_failed:{label}", **cross)
    if metric.partition(":")[0] in LOGARITHMIC:
        ax.set_yscale("log")
    elif is_score(metric) and means["mean"].min() >= 0:
        ax.set_ylim(-0.02, 1.02)
    ax.set_title(name(metric), loc="left")
    ax.set_title(counts(edited), loc="right", color=GREY, fontsize=6)
    return pd.concat([start, means])[[by, *RESULTS]].reset_index(drop=True)


def unedited(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """The mean over seeds at 0 edits, where neither editor nor restraint has done anything: one row a model.

    Several runs that evaluated the unedited model of one seed count once.
    """
    same = {column: UNEDITED for column in ("run_id", "editor", "preset", "restraint") if column in rows}
    start = rows[rows["n_edits"] == 0].assign(batch=1, **same)
    start = start.drop_duplicates([column for column in ("model", "requests", "seed", "metric") if column in start])
    return over_runs(start, by)


def reference(ax: Axes, mean: float, lo: float = np.nan, hi: float = np.nan) -> None:
    """A long-dashed grey line at the unedited model's value, and its interval as a grey stripe where it has one."""
    ax.axhline(mean, color=GREY, ls=LONG_DASHES, lw=0.8, label="_unedited", zorder=1.5)
    if hi > lo:
        ax.axhspan(lo, hi, color=GREY, alpha=0.15, lw=0)


def edit_axis(ax: Axes, d_in: int, below: bool = True, above: bool = True) -> None:
    """A logarithmic x axis of edits and, above, the same as edits / d_in: the share of key directions they can fill."""
    plain = FuncFormatter(lambda value, _: f"{value:,.6g}")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(plain)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(labelbottom=below)
    if below:
        ax.set_xlabel("sequential edits")
    if above:
        upper = ax.secondary_xaxis("top", functions=(lambda edits: edits / d_in, lambda share: share * d_in))
        upper.xaxis.set_major_formatter(plain)
        upper.xaxis.set_minor_formatter(NullFormatter())
        upper.tick_params(colors=GREY)
        upper.set_xlabel(f"edits / d_in (d_in = {d_in:,})", color=GREY)


def failed(drawn: pd.DataFrame) -> bool:
    """Whether a table of `draw` holds a mean that is not finite."""
    return not np.isfinite(drawn["mean"]).all()


def over_runs(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    means = across_seeds(rows) if "seed" in rows and len(rows) else rows
    if means.duplicated([by, "n_edits"]).any():
        mixed = [
            column for column in ("model", "requests", "editor", "preset", "batch", "restraint") if column in means
        ]
        mixed = [column for column in mixed if column != by and means[column].nunique() > 1]
        raise InputError(
            f"figure: rows of several {' and '.join(mixed)} share a curve of one {by}; choose among them first"
        )
    return means.sort_values([by, "n_edits"])
