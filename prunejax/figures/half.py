"""The figure of what half precision costs: what is lost beside float32, and how much of an update rounding eats."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from prunejax.errors import InputError
from prunejax.figures.looks import DASHES, EDITOR_NAMES, GREY, handle, name
from prunejax.half_costs import CONTROL, SCORED, unit
from prunejax.verdicts import MARGIN

COLORS = {"bfloat16": "#0072B2", "float16": "#D55E00"}
ARMS = {
    CONTROL[0]: ("other prefixes (control)", GREY, "D", GREY),
    **{half: (f"{half}, beside float32", color, "o", color) for half, color in COLORS.items()},
    **{f"{half}/summed": (f"{half} sums, beside float32 sums", color, "s", "white") for half, color in COLORS.items()},
}
"""Words, colour, marker and its filling, from top to bottom."""
MARKS = {"rome": "o", "memit": "^"}
"""The markers of editors, where points are tensors."""


def half_costs(fig: Figure, costs: pd.DataFrame, roundings: pd.DataFrame, n_edits: int) -> pd.DataFrame:
    """An axes an editor: what each of ARMS loses after `n_edits` (`half_costs.costs`), a metric's mean with its t
    interval, over a stripe as wide as the margin within which nothing is said to be lost. Then one of `roundings`: the
    share of an update that is rounded away against its size beside W_0, a point a tensor, order and number of edits,
    filled where D is rounded once, as it is stored, hollow where it is after every edit; dashed what is expected of
    rounding once.

    Returns what the editors' axes show: editor, arm, metric, n orders, mean, lo, hi. InputError without rows.
    """
    shown = costs[(costs["n_edits"] == n_edits) & costs["arm"].isin(ARMS) & costs["metric"].isin(SCORED)]
    editors = [editor for editor in EDITOR_NAMES if editor in set(shown["editor"])]
    if not editors:
        raise InputError(f"figure: no costs after {n_edits} edits; there are {sorted(set(costs['n_edits']))}")
    *axes, last = fig.subplots(1, len(editors) + 1)
    for ax, editor in zip(axes, editors, strict=True):
        here = shown[shown["editor"] == editor]
        _draw_costs(ax, here)
        ax.set_title(f"{EDITOR_NAMES[editor]}, {n_edits:,} edits, n = {here['n'].max()} orders", loc="left")
        ax.sharex(axes[0])
        ax.tick_params(labelleft=ax is axes[0])
    _draw_roundings(last, roundings)
    fig.legend(handles=_handles(roundings), loc="outside lower center", ncols=4)
    return shown[["editor", "arm", "metric", "n", "mean", "lo", "hi"]].reset_index(drop=True)


def _draw_costs(ax: Axes, rows: pd.DataFrame) -> None:
    ax.axvspan(-MARGIN, MARGIN, color=GREY, alpha=0.15, lw=0, label="_margin")
    ax.axvline(0, color=GREY, lw=0.5, zorder=1)
    metrics = [metric for metric in SCORED if metric in set(rows["metric"])]
    for place, (arm, (_, color, marker, fill)) in enumerate(ARMS.items()):
        found = rows[rows["arm"] == arm].set_index("metric").reindex(metrics)
        heights = np.arange(len(metrics)) + 0.15 * (place - (len(ARMS) - 1) / 2)
        reach = np.nan_to_num([found["mean"] - found["lo"], found["hi"] - found["mean"]])
        look = {"color": color, "fmt": marker, "mfc": fill, "ms": 2.8, "elinewidth": 0.8}
        ax.errorbar(found["mean"], heights, xerr=reach, label=arm, **look)
    words = {"perplexity": "perplexity\n(nats a token)"}
    ax.set_yticks(range(len(metrics)), [words.get(metric, name(metric)) for metric in metrics])
    ax.set(ylim=(len(metrics) - 0.5, -0.5), xlabel="lost (score, or nats), 95% interval")


def _draw_roundings(ax: Axes, rows: pd.DataFrame) -> None:
    span = np.geomspace(rows["size"].min() / 2, rows["size"].max() * 2, 100)
    for dtype, color in COLORS.items():
        ax.plot(span, unit(dtype) * np.sqrt(1 + span**-2), color=color, ls=DASHES, lw=0.9, label=f"_expected:{dtype}")
        for editor, marker in MARKS.items():
            for arm, fill in ((f"{dtype}/stored", color), (f"{dtype}/summed", "white")):
                here = rows[(rows["arm"] == arm) & (rows["editor"] == editor)]
                look = {"color": color, "marker": marker, "mfc": fill, "mew": 0.6, "ms": 2.8, "ls": "none"}
                ax.plot(here["size"], here["share"], label=f"{editor}:{arm}", **look)
    ax.set(xscale="log", yscale="log", xlabel=r"$\|D\|_F / \|W_0\|_F$", ylabel=r"rounded away / $\|D\|_F$")
    edits = ", ".join(f"{n:,}" for n in sorted(rows["n_edits"].unique()))
    ax.set_title(f"after {edits} edits", loc="left")


def _handles(roundings: pd.DataFrame) -> list:
    handles = [
        handle(text, color=color, marker=marker, mfc=fill, ls="none") for text, color, marker, fill in ARMS.values()
    ]
    handles.append(Patch(color=GREY, alpha=0.25, lw=0, label=f"margin of ±{MARGIN}"))
    marks: Mapping[str, str] = {editor: mark for editor, mark in MARKS.items() if editor in set(roundings["editor"])}
    for editor, marker in marks.items():
        handles.append(handle(f"{EDITOR_NAMES[editor]}, rounded once", color=GREY, marker=marker, ls="none"))
    handles.append(handle("rounded after every edit", color=GREY, marker="o", mfc="white", ls="none"))
    return [*handles, handle("expected, rounded once", color=GREY, ls=DASHES)]
