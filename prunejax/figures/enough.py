"""The figure of how many keys a second moment needs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from prunejax.enough import expected_cost
from prunejax.errors import InputError
from prunejax.figures.curves import PLAIN, number_decades
from prunejax.figures.looks import DASHES, GREY, LONG_DASHES, Look, handle, looks, name
from prunejax.intervals import student
from prunejax.records import is_score

SHOWN = {"cosine": "mean cosine", "cost": "cost − 1", "sigma_max:update": "norm of the update"}
LOGARITHMIC = ("cost", "sigma_max:update", "kappa", "scaled_kappa")
BY = ["model", "settings", "metric", "d_in", "keys"]


def key_counts(
    fig: Figure,
    rows: pd.DataFrame,
    panels: Sequence[tuple[str, str]],
    *,
    columns: int = 4,
    claimed: float = 10,
    limits: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """What second moments of ever more keys are good for: an axes for each (model, metric) of `panels`, a curve for
    each ridge against keys / d_ff, the mean of seeds with its t interval, each seed thin behind it; one legend below.

    `rows` are moment rows (`enough_records`). What the identity scores is a long-dashed line; `claimed` keys a
    dimension and the `limits` of metrics are dotted. The cost is drawn as its excess over 1, with what is expected of
    independent normal keys (`expected_cost`) dashed; all of the text, whose excess is 0 by definition, has no point
    there. Returns the means: model, settings, metric, d_in, keys, per_dimension, n seeds, mean, lo, hi. InputError for
    a panel without rows.
    """
    table = across_shuffles(rows)
    axes = fig.subplots(-(-len(panels) // columns), columns, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    shown = looks(rows.loc[rows["keys"] > 0, "settings"])
    for (model, metric), ax in zip(panels, axes.flat, strict=False):
        here, runs = (part[(part["model"] == model) & (part["metric"] == metric)] for part in (table, rows))
        if here.empty:
            raise InputError(f"figure: no {metric} of {model}; there are {', '.join(sorted(set(rows['model'])))}")
        _draw(ax, here, runs, metric, shown)
        ax.axvline(claimed, color=GREY, ls=":", lw=0.8, zorder=1)
        if (limit := (limits or {}).get(metric)) is not None:
            ax.axhline(limit - (metric == "cost"), color=GREY, ls=":", lw=0.8, label="_limit", zorder=1)
        ax.set_title(f"{SHOWN.get(metric, name(metric))}, {model}\n", loc="left")
        counted = f"{runs['seed'].nunique()} seeds × {runs['n'].max()} requests"
        ax.set_title(counted, loc="center", x=0, ha="left", color=GREY, fontsize=6)
    kinds = ["score" if is_score(metric) else metric for _, metric in panels]
    _share_heights(dict(zip(axes.flat[: len(panels)], kinds, strict=True)))
    fig.legend(handles=_handles(fig.axes, shown), loc="outside lower center", ncols=4)
    return table


def across_shuffles(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean of moment rows over seeds with a t interval, NaN where C has no inverse: model, settings, metric, d_in,
    keys, per_dimension, n, mean, lo, hi."""
    means = [(*key, len(group), *student(group["mean"])) for key, group in rows.groupby(BY)]
    table = pd.DataFrame(means, columns=[*BY, "n", "mean", "lo", "hi"])
    table.insert(len(BY), "per_dimension", table["keys"] / table["d_in"])
    return table


def _draw(ax: Axes, means: pd.DataFrame, runs: pd.DataFrame, metric: str, shown: Mapping[str, Look]) -> None:
    low, high = means.loc[means["keys"] > 0, "per_dimension"].agg(["min", "max"])
    for mean in means.loc[means["keys"] == 0, "mean"]:
        ax.axhline(mean, color=GREY, ls=LONG_DASHES, lw=0.8, label="_identity", zorder=1)
    if metric == "cost":
        d_in, each = means["d_in"].iloc[0], np.geomspace(1.01, high, 100)
        ax.plot(each, expected_cost(each * d_in, d_in) - 1, color=GREY, ls=DASHES, lw=0.9, label="_expected")
        means, runs = (_excess(rows) for rows in (means, runs))
    for settings, look in shown.items():
        curve = means[means["settings"] == settings]
        for _, run in runs[runs["settings"] == settings].groupby("seed"):
            ax.plot(run["keys"] / run["d_in"], run["mean"], color=look.color, lw=0.4, alpha=0.4, zorder=1)
        band = {"color": look.color, "alpha": 0.15, "lw": 0, "label": f"_interval:{settings}"}
        ax.fill_between(curve["per_dimension"], curve["lo"], curve["hi"], **band)
        line = {"color": look.color, "marker": look.marker, "label": settings}
        ax.plot(curve["per_dimension"], curve["mean"], **line)
    if metric in LOGARITHMIC:
        ax.set(yscale="log", ylim=(means["mean"].min() / 1.5, 1.5 * means["hi"].max()))
        number_decades(ax)
    elif is_score(metric) or metric == "cosine":
        ax.set_ylim(max(0.0, 0.1 * np.floor(10 * means["lo"].min())) - 0.02, 1.02)
    ax.set(xscale="log", xlim=(0.8 * low, 1.25 * high), xlabel=r"keys / $d_\mathrm{ff}$")
    ax.xaxis.set_major_formatter(PLAIN)
    ax.xaxis.set_minor_formatter(NullFormatter())


def _excess(rows: pd.DataFrame) -> pd.DataFrame:
    """Costs less 1, without those that are 1: of the longest text beside itself."""
    less = rows.assign(**{end: rows[end] - 1 for end in ("mean", "lo", "hi")})
    return less[less["mean"] > 1e-6]


def _share_heights(kinds: Mapping[Axes, str]) -> None:
    """The same y axis for all axes of a kind."""
    for kind in set(kinds.values()):
        alike = [ax for ax in kinds if kinds[ax] == kind]
        lows, highs = zip(*(ax.get_ylim() for ax in alike), strict=True)
        for ax in alike:
            ax.set_ylim(min(lows), max(highs))


def _handles(axes: Sequence[Axes], shown: Mapping[str, Look]) -> list:
    drawn = {str(artist.get_label()) for ax in axes for artist in ax.get_children()}
    handles = [handle(_words(label), color=look.color, marker=look.marker) for label, look in shown.items()]
    handles.append(handle("one seed", color=GREY, lw=0.5))
    handles.append(Patch(color=GREY, alpha=0.25, lw=0, label="95% interval of the mean"))
    if "_expected" in drawn:
        handles.append(handle("expected of normal keys", color=GREY, ls=DASHES))
    if "_identity" in drawn:
        handles.append(handle("identity in place of C", color=GREY, ls=LONG_DASHES, lw=0.8))
    if "_limit" in drawn:
        handles.append(handle("claimed count, and limit", color=GREY, ls=":"))
    return handles


def _words(settings: str) -> str:
    ridge = settings.partition("=")[2]
    return "no ridge, as published" if ridge == "0" else f"ridge {ridge} × mean diagonal"
