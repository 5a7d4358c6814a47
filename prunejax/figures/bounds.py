"""Figures of the perturbation bounds: how close systems come to them, and past which of them they go."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from prunejax.figures.curves import PLAIN, edit_axis
from prunejax.figures.looks import GREY, LONG_DASHES, handle, looks
from prunejax.theory import wide_bound

FAMILIES = {
    "tall, consistent": ("tall, random", "#000000"),
    "wide": ("wide, random", "#56B4E9"),
    "attained": ("tall, adversarial", "#009E73"),
    "wide, two smallest": ("wide, adversarial", "#D55E00"),
    "tall, steered residual": ("inconsistent, adversarial", "#CC79A7"),
}
"""Words and colour of the families that are drawn."""

SHOWN = 1500
"""Points drawn of each family; the table counts them all."""


def bound_ratios(ax: Axes, systems: pd.DataFrame, bound: str, families: Sequence[str]) -> pd.DataFrame:
    """How far solutions moved as a share of a bound ("wedin", "simplified") against eta, a point a valid system.

    `systems` is `systems.draw_systems`, `families` names those to draw. Above 1 (shaded) the bound is exceeded. Beside
    the simplified bound the dashed curve is what the sharp bound for wide systems allows. Returns a row a family: n,
    and the median and largest ratio of all its valid systems.
    """
    rows = []
    for family in families:
        words, colour = FAMILIES[family]
        kept = systems[(systems["family"] == family) & systems["valid"]]
        ratio = kept["moved"] / kept[bound]
        rows.append({"family": family, "n": len(ratio), "median": ratio.median(), "largest": ratio.max()})
        points = {"ms": 1.5, "alpha": 0.5, "color": colour, "rasterized": True}
        ax.plot(kept["eta"][:SHOWN], ratio[:SHOWN], ".", label=words, **points)
    eta = np.geomspace(1e-3, 0.999, 200)
    if bound == "simplified":
        sharp = wide_bound(eta) / (eta / (1 - eta))
        ax.plot(eta, sharp, color=GREY, ls=LONG_DASHES, lw=0.9, label="sharp bound for wide systems")
    ax.axhline(1, color=GREY, lw=0.8, zorder=1)
    top = 1.1 * max(1.0, *(row["largest"] for row in rows))
    ax.axhspan(1, top, color=GREY, alpha=0.12, lw=0)
    ax.text(0.98, 0.985, "bound exceeded", transform=ax.transAxes, ha="right", va="top", color=GREY)
    name = bound.replace("wedin", "Wedin's")
    ax.set(xscale="log", xlabel=r"$\eta=\|A^+\|\,\|E\|$", ylabel=f"moved / {name} bound", ylim=(0, top))
    ax.set_title(f"{min(row['n'] for row in rows):,} systems a family, {SHOWN:,} drawn")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, markerscale=5)
    return pd.DataFrame(rows).set_index("family")


def guarantee_curves(ax: Axes, guarantees: pd.DataFrame, *, d_in: int) -> pd.DataFrame:
    """sigma_max of the edited weight (solid: the mean of runs, thin: each) and what is guaranteed (dashed) against
    edits, a colour a restraint; `claims.guarantees` of one model. Returns the means that were drawn."""
    means = guarantees.groupby(["restraint", "n_edits"])[["measured", "guarantee"]].mean().reset_index()
    shown = looks(means["restraint"].unique())
    for restraint, look in shown.items():
        for _, run in guarantees[guarantees["restraint"] == restraint].groupby("seed"):
            ax.plot(run["n_edits"], run["measured"], color=look.color, lw=0.4, alpha=0.4, zorder=1)
        mean = means[means["restraint"] == restraint]
        ax.plot(mean["n_edits"], mean["measured"], color=look.color)
        ax.plot(mean["n_edits"], mean["guarantee"], color=look.color, ls=LONG_DASHES, lw=0.9)
    edit_axis(ax, d_in)
    ax.set(yscale="log", ylabel=r"$\sigma_{\max}$ of the edited weight")
    ax.yaxis.set_major_formatter(PLAIN)
    ax.set_title(f"mean of {guarantees['seed'].nunique()} runs, thin: one run")
    handles = [handle(look.text, color=look.color) for look in shown.values()]
    handles.append(handle("at most, by the guarantee", color=GREY, ls=LONG_DASHES, lw=0.9))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return means
