"""Figures of singular values: their course under edits, all of them at once, and the maps that restrain them."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from prunejax.errors import InputError
from prunejax.figures.curves import UNEDITED, draw, edit_axis, failed, reference
from prunejax.figures.looks import GREY, key, looks, words
from prunejax.restraint import margin, parse

M = r"$m=\sigma_{\max}(W_0)$"
DOTS = (0, (1, 1.5))


def spectrum_curves(
    axes: Sequence[Axes],
    frame: pd.DataFrame,
    tensor: str,
    *,
    d_in: int,
    case: str = "weight",
    metrics: Sequence[str] = ("sigma_max", "sigma_min", "kappa"),
    marked: Collection[str] = (),
) -> pd.DataFrame:
    """Numbers of the spectrum of the edited weight, or of its accumulated update, against edits: one of `axes` a metric.

    `frame` as in `curves`; `case` is "weight" or "update", `tensor` the checkpoint's name. The grey line is W_0: its own
    value for a weight, m = sigma_max(W_0) beside the update's sigma_max. Returns the tables one under the other.

    Misleads: kappa counts only what exceeds the numerical rank's tolerance, so it may fall as a matrix turns singular.
    """
    drawn = []
    edited = frame[frame["n_edits"] > 0] if case == "update" else frame  # the update before any edit is zero
    for ax, metric in zip(axes, metrics, strict=True):
        drawn.append(draw(ax, edited, f"{metric}:{case}:{tensor}", "restraint", marked))
        edit_axis(ax, d_in)
    if case == "update" and "sigma_max" in metrics:
        original = (frame["n_edits"] == 0) & (frame["metric"] == f"sigma_max:weight:{tensor}")
        reference(axes[list(metrics).index("sigma_max")], frame.loc[original, "mean"].iloc[0])
    table = pd.concat(drawn, ignore_index=True)
    shown = looks(set(table["restraint"]) - {UNEDITED}, marked)
    axes[0].get_figure().legend(handles=key(shown, failed(table)), loc="outside lower center", ncols=4)
    return table


def singular_values(
    ax: Axes, original: ArrayLike, weights: Mapping[str, ArrayLike], updates: Mapping[str, ArrayLike]
) -> pd.DataFrame:
    """All singular values, sorted: of W_0, of edited weights (solid) and of the updates that made them (dotted).

    `weights` and `updates` map a restraint's spec to singular values: "none" to those of W_n and of the accumulated
    update, "log:1.2" to those of W_0 + F and of F. m = sigma_max(W_0) is marked. Zeros, which a logarithmic axis cannot
    show, are left out; a spectrum that is not finite is named in the legend. Returns columns matrix ("original",
    "weight", "update"), restraint, index, sigma.
    """
    shown = looks([*weights, *updates])
    curves = [("original", "", original)]
    curves += [("weight", spec, values) for spec, values in weights.items()]
    curves += [("update", spec, values) for spec, values in updates.items()]
    drawn = []
    for matrix, spec, values in curves:
        sigma = np.sort(np.asarray(values, np.float64))[::-1]
        index = np.arange(1, sigma.size + 1)
        text = {"original": "$W_0$", "weight": f"edited weight, {spec and words(spec)}"}.get(
            matrix, f"update, {spec and words(spec)}"
        )
        text += "" if np.isfinite(sigma).all() else " × not finite"
        look = {"color": shown[spec].color} if spec else {"color": GREY, "lw": 2.4, "alpha": 0.6}
        ax.plot(index, np.where(sigma > 0, sigma, np.nan), ls=DOTS if matrix == "update" else "-", label=text, **look)
        drawn.append(pd.DataFrame({"matrix": matrix, "restraint": spec, "index": index, "sigma": sigma}))
    m = float(np.max(original))
    ax.axhline(m, color=GREY, lw=0.6, ls="-", label="_m", zorder=1)
    ax.annotate(M, (1, m), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY)
    ax.set(xscale="log", yscale="log", xlabel="index of the singular value", ylabel="singular value")
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return pd.concat(drawn, ignore_index=True)


def restraint_maps(ax: Axes, m: float, maps: Sequence[str], reach: float = 30.0) -> pd.DataFrame:
    """F(s) against s for the specs in `maps`, from m/3 to `reach` * m; above the identity a map amplifies (shaded).

    Maps whose `restraint.margin` is below 1 at this m get a dash and a dagger. Returns columns restraint, s, F.
    InputError for a rescale control, which is no function of one singular value.
    """
    s = np.geomspace(m / 3, reach * m, 400)
    restraints = [parse(spec) for spec in maps if spec != "none"]
    for restraint in restraints:
        if restraint.spec.startswith("rescale:"):
            raise InputError(f"figure: {restraint.spec} scales all singular values alike; it is no map of one")
    marked = {restraint.spec for restraint in restraints if (margin(restraint, m) or 1.0) < 1}
    ax.fill_between(s, s, reach * m, color=GREY, alpha=0.12, lw=0)
    ax.text(0.04, 0.94, "amplified: $F(s)>s$", transform=ax.transAxes, va="top", color=GREY)
    ax.plot(s, s, color="black", lw=0.8, label="none")
    ax.axvline(m, color=GREY, lw=0.6)
    ax.annotate(
        "$m$", (m, 0), xycoords=("data", "axes fraction"), xytext=(2, 2), textcoords="offset points", color=GREY
    )
    drawn = []
    for restraint in restraints:
        look = looks(maps, marked)[restraint.spec]
        image = restraint.function(s, m)
        ax.plot(s, image, color=look.color, ls=look.line, label=restraint.spec)
        drawn.append(pd.DataFrame({"restraint": restraint.spec, "s": s, "F": image}))
    return pd.concat(drawn, ignore_index=True)
