"""Figures of singular values: their course under edits, all of them at once, and the maps that restrain them."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from prunejax.errors import InputError
from prunejax.figures.curves import PLAIN, RESULTS, draw, edit_axis, legend_below, reference, unedited
from prunejax.figures.looks import DASHES, GREY, handle, looks
from prunejax.restraint import margin, parse

M = r"$m=\sigma_{\max}(W_0)$"
DOTS = (0, (1, 1.2))


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
    """Numbers of the spectrum of the edited weight W_n, or of its accumulated update, against edits: a metric an axes.

    `frame` as in `curves`; `case` is "weight" or "update", `tensor` the checkpoint's name. The grey line is W_0's own
    number; beside an update's sigma_max it is m = sigma_max(W_0), which restraints compare with. Returns the tables
    one under the other, and puts the legend below the figure that holds the axes.

    Misleads: kappa counts only what exceeds the numerical rank's tolerance, so it may fall as a matrix turns singular.
    """
    kept = frame[frame["n_edits"] > 0] if case == "update" else frame  # before any edit an update is zero
    m = unedited(frame[frame["metric"] == f"sigma_max:weight:{tensor}"], "restraint")
    above = {"xytext": (0, 1.5), "textcoords": "offset points", "ha": "right", "va": "bottom", "color": GREY}
    drawn = []
    for ax, metric in zip(axes, metrics, strict=True):
        drawn.append(draw(ax, kept, f"{metric}:{case}:{tensor}", "restraint", marked))
        edit_axis(ax, d_in)
        if metric == "sigma_max" and len(m):
            value = m["mean"].iloc[0]
            ax.annotate(M, (1, value), xycoords=("axes fraction", "data"), **above)
            if case == "update":
                reference(ax, value)
                drawn.append(m[["restraint", *RESULTS]])
    table = pd.concat(drawn, ignore_index=True)
    legend_below(axes[0].get_figure(), table, marked)
    return table


def singular_values(
    ax: Axes, original: ArrayLike, weights: Mapping[str, ArrayLike], updates: Mapping[str, ArrayLike]
) -> pd.DataFrame:
    """All singular values, sorted: of W_0, of edited weights (solid) and of the updates that made them (dotted).

    `weights` and `updates` map a restraint's spec to singular values [k]: "none" to those of W_n and of the accumulated
    update, "log:1.2" to those of W_0 + F and of F itself. m = sigma_max(W_0) is marked. Zeros, which a logarithmic axis
    cannot show, are left out; a spectrum that is not finite is named in the legend. Returns columns matrix ("original",
    "weight", "update"), restraint, index, sigma.
    """
    shown = looks([*weights, *updates])
    curves = [("original", "", original)]
    curves += [("weight", spec, values) for spec, values in weights.items()]
    curves += [("update", spec, values) for spec, values in updates.items()]
    drawn = []
    for matrix, spec, values in curves:
        sigma = np.sort(np.asarray(values, np.float64))[::-1]
        table = pd.DataFrame(
            {"matrix": matrix, "restraint": spec, "index": np.arange(1, sigma.size + 1), "sigma": sigma}
        )
        look = {"color": shown[spec].color} if spec else {"color": GREY, "lw": 2.6, "alpha": 0.5}
        line = DOTS if matrix == "update" else "-"
        ax.plot(table["index"], table["sigma"].where(sigma > 0), ls=line, label=f"{matrix}:{spec}", **look)
        drawn.append(table)
    table = pd.concat(drawn, ignore_index=True)
    m = float(np.max(original))
    ax.axhline(m, color=GREY, lw=0.6, label="_m", zorder=1)
    ax.annotate(M, (1, m), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=f"index, from the largest (of {np.size(original):,})",
        ylabel="singular value",
    )
    ax.xaxis.set_major_formatter(PLAIN)
    handles = [handle("$W_0$", color=GREY, lw=2.6, alpha=0.5)]
    handles += [handle("edited weight", color=GREY), handle("its accumulated update", color=GREY, ls=DOTS)]
    finite = table.groupby("restraint")["sigma"].apply(lambda sigma: np.isfinite(sigma).all())
    for spec, look in shown.items():
        handles.append(handle(look.text + ("" if finite[spec] else ": not finite"), color=look.color))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return table


def restraint_maps(ax: Axes, m: float, maps: Sequence[str], reach: float = 100.0) -> pd.DataFrame:
    """F(s) against s for the specs in `maps`, from m/3 to `reach` * m; above the identity a map amplifies (shaded).

    Maps whose `restraint.margin` is below 1 at this m are dashed and get a dagger. Returns columns restraint, s, F.
    InputError for a rescale control, which is no function of one singular value.
    """
    restraints = {spec: parse(spec) for spec in maps}
    marked = [spec for spec, restraint in restraints.items() if (margin(restraint, m) or 1.0) < 1]
    if scaled := [spec for spec in maps if spec.startswith("rescale:")]:
        raise InputError(f"figure: {scaled[0]} scales all singular values alike; it is no map of one")
    s = np.geomspace(m / 3, reach * m, 400)
    drawn = []
    for spec, look in looks(maps, marked).items():
        image = restraints[spec].function(s, m)
        ax.plot(s, image, color=look.color, ls=look.line, label=spec, zorder=3 if spec == "none" else 2)
        drawn.append(pd.DataFrame({"restraint": spec, "s": s, "F": image}))
    ax.fill_between(s, s, reach * m, color=GREY, alpha=0.12, lw=0)
    ax.text(0.04, 0.95, "amplified: $F(s)>s$", transform=ax.transAxes, va="top", color=GREY)
    ax.plot([m, m], [s[0], m], color=GREY, lw=0.6, label="_m", zorder=1)
    place = {"xycoords": ("data", "axes fraction"), "xytext": (2, 2), "textcoords": "offset points"}
    ax.annotate(rf"$m=\sigma_{{\max}}(W_0)$ = {m:.3g}", (m, 0), color=GREY, **place)
    ends = (s[0], s[-1])
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, ylabel="restrained singular value $F(s)$")
    ax.set_xlabel("singular value $s$ of the accumulated update")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PLAIN)
    handles = [handle(look.text, color=look.color, ls=look.line) for look in looks(maps, marked).values()]
    note = [handle("† map can amplify", color=GREY, ls=DASHES)] if marked else []
    ax.legend(handles=handles + note, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return pd.concat(drawn, ignore_index=True)
