"""Figures of what edits achieved: one edit before and after, and what a restraint saves against what it costs."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunejax.errors import InputError
from prunejax.figures.curves import UNEDITED, unedited
from prunejax.figures.looks import GREY, counts, looks, name
from prunejax.intervals import across_seeds
from prunejax.records import RESULTS, is_score

ONE_EDIT = ("efficacy_top1", "generalization_top1", "locality_top1", "portability")
BEFORE, AFTER = "#0072B2", "#D55E00"


def single_edit(ax: Axes, frame: pd.DataFrame, metrics: Sequence[str] = ONE_EDIT) -> pd.DataFrame:
    """Scores before an edit (hollow) and after it (filled), a line a metric, each with its interval.

    `frame` is drawn as it is: one run's summary rows (Wilson intervals over its cases) or `across_seeds` of several (t
    intervals over runs), at 0 edits and at one other count. Returns columns metric, n_edits, n, mean, lo, hi.
    InputError if a metric is not there exactly once before and once after.
    """
    drawn = []
    for height, metric in enumerate(metrics):
        rows = frame[frame["metric"] == metric].sort_values("n_edits")
        if len(rows) != 2 or rows["n_edits"].iloc[0] != 0 or rows["n_edits"].iloc[1] == 0:
            raise InputError(f"figure: {metric} needs one row at 0 edits and one after, not {len(rows)} in all")
        before, after = rows["mean"]
        arrow = {"arrowstyle": "-|>,head_length=0.25,head_width=0.12", "color": GREY, "lw": 0.6, "shrinkA": 3, "shrinkB": 3}
        if abs(after - before) > 0.05:
            ax.annotate("", (after, height), (before, height), arrowprops=arrow)
        for (_, row), color, lift in zip(rows.iterrows(), (BEFORE, AFTER), (-0.12, 0.12), strict=True):
            fill = {"mfc": "white"} if row["n_edits"] == 0 else {}
            _cross(ax, row, (height + lift), color, fill)
        drawn.append(rows)
    return pd.concat(drawn, ignore_index=True)
