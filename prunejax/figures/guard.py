"""Figures of a guard: what perplexity says of abilities, and which edits break a model alone."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from prunejax.figures.looks import GREY, handle

RULES = {"rome": ("ROME, as published", "#D55E00", "o"), "r-rome": ("r-ROME", "#0072B2", "s")}


def alarm_points(ax: Axes, points: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """A dot a recorded model: its mean ability against its perplexity over the unedited model's, on a logarithmic axis;
    the threshold dashed, half of the unedited ability dotted. Models beyond the axis, infinite ones among them, stand
    at its right end as triangles. `points` are `alarms.watched_points`; returns n of each corner."""
    most = 100.0
    shown, beyond = points[points["ratio"] <= most], points[points["ratio"] > most]
    ax.plot(shown["ratio"], shown["kept"], ".", color="#0072B2", ms=3, alpha=0.5, mew=0)
    ax.plot(np.full(len(beyond), most), beyond["kept"], ">", color="#0072B2", ms=3, alpha=0.5, mew=0)
    ax.axvline(threshold, color="#D55E00", ls="--", lw=0.9)
    ax.axhline(0.5, color=GREY, ls=":", lw=0.9)
    ax.set(xscale="log", xlim=(0.9, most * 1.15), ylim=(-0.03, 1.05))
    ax.set_xticks([1, 1.5, 3, 10, 30, 100], ["1", "1.5", "3", "10", "30", "100+"])
    ax.minorticks_off()
    ax.set(xlabel="perplexity / unedited", ylabel="mean ability / unedited")
    ax.set_title(f"{len(points)} models of {points['seed'].nunique()} orders", loc="left")
    ax.legend(
        handles=[
            handle("alarm", color="#D55E00", ls="--"),
            handle("half of the abilities lost", color=GREY, ls=":"),
        ],
        loc="upper right",
    )
    corners = points.assign(lost=points["kept"] < 0.5, alarm=points["ratio"] > threshold)
    return corners.groupby(["lost", "alarm"]).size().rename("models").reset_index()


def disabling_edits(ax: Axes, table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """A mark an edit made alone: perplexity over the unedited model's against the denominator |k . u|, both axes
    logarithmic; hollow where the subject does not open the text. `table` is `disabling.disabling_table`; returns of
    each rule and kind how many edits there are, and how many above the threshold."""
    for rule, (_, color, marker) in RULES.items():
        for opens, fill in ((False, "none"), (True, color)):
            own = table[(table["editor"] == rule) & (table["opens"] == opens)]
            ax.plot(own["denominator"], own["ratio"], marker, color=color, mfc=fill, ms=2.6, mew=0.5, ls="none")
    ax.axhline(threshold, color="#D55E00", ls="--", lw=0.9)
    ax.set(xscale="log", yscale="log", xlabel="denominator |k . u|", ylabel="perplexity / unedited")
    ax.set_yticks([1, 1.5, 3, 10], ["1", "1.5", "3", "10"])
    ax.minorticks_off()
    ax.set_title(f"{len(table) // len(RULES)} edits a rule, each alone", loc="left")
    handles = [handle(label, color=color, marker=marker, ls="none") for label, color, marker in RULES.values()]
    handles.append(handle("subject does not open the text", color=GREY, marker="o", mfc="none", ls="none"))
    ax.legend(handles=handles, loc="upper right")
    counted = table.assign(disabling=table["ratio"] > threshold).groupby(["editor", "opens"])["disabling"]
    return counted.agg(edits="size", disabling="sum").reset_index()
