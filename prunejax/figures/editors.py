"""Figures that set editors beside one another: their curves, the values they write, the age of their edits."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter

from prunejax.figures.curves import PLAIN, draw, edit_axis
from prunejax.figures.looks import GREY, counts, handle, key, looks, name, words
from prunejax.intervals import across_seeds
from prunejax.records import is_score

IN_ORDER = ("rome", "r-rome", "memit", "mend")
"""The paper's, in its order, and r-ROME beside ROME."""


def editor_grid(
    fig: Figure, frame: pd.DataFrame, metrics: Sequence[str], *, d_in: int, marked: Collection[str] = ()
) -> pd.DataFrame:
    """Fill `fig` with `curves`: a row an editor, a column a metric, a colour a restraint, one legend below.

    `frame` holds summary rows of one model. Scores share their y axis. Returns the tables of all panels with a column
    `editor`, one under the other.
    """
    editors = [editor for editor in IN_ORDER if editor in set(frame["editor"])]
    axes = fig.subplots(len(editors), len(metrics), sharex=True, squeeze=False)
    drawn = []
    for editor, row in zip(editors, axes, strict=True):
        rows = frame[frame["editor"] == editor]
        for metric, ax in zip(metrics, row, strict=True):
            drawn.append(draw(ax, rows, metric, "restraint", marked).assign(editor=editor))
            edit_axis(ax, d_in, below=editor == editors[-1], above=editor == editors[0])
            if ax is row[0]:
                ax.set_ylabel(f"{words(editor)}\nscore" if is_score(metric) else words(editor))
            elif is_score(metric):
                ax.tick_params(labelleft=False)
    table = pd.concat(drawn, ignore_index=True)
    shown = looks(table.loc[table["n_edits"] > 0, "restraint"], marked)
    fig.legend(handles=key(fig.axes, shown), loc="outside lower center", ncols=4)
    return table


def editor_curves(axes: Sequence[Axes], frame: pd.DataFrame, metrics: Sequence[str], *, d_in: int) -> pd.DataFrame:
    """A metric an axes, a curve an editor, against the number of edits; the legend stands below their figure.

    `frame` holds summary rows of one model under one restraint. Returns the tables one under the other.
    """
    drawn = []
    for metric, ax in zip(metrics, axes, strict=True):
        drawn.append(draw(ax, frame, metric, "editor", ()))
        edit_axis(ax, d_in)
    table = pd.concat(drawn, ignore_index=True)
    shown = looks(table.loc[table["n_edits"] > 0, "editor"])
    wide = max(len(look.text) for look in shown.values()) > 8
    axes[0].get_figure().legend(handles=key(axes, shown), loc="outside lower center", ncols=4 if wide else 6)
    return table


def value_plane(ax: Axes, values: pd.DataFrame, n_edits: int, restraints: Sequence[str], early: int) -> pd.DataFrame:
    """The first edits' values in the plane of their two largest principal components: at birth (black), and after
    `n_edits` under each restraint, with a line from each fact's place at birth.

    `values` holds the case rows of `values.early_values` of one editor; birth is the row whose n_edits is the edit's
    own number, at most `early`. Returns columns restraint ("at birth", "unedited" too), n, and the root mean square
    distance from birth in the plane.
    """
    table = values[values["metric"].str.startswith("principal")].pivot(
        index=["restraint", "n_edits", "case"], columns="metric", values="value"
    )
    table.columns = ["x", "y"]
    places = table.reset_index()
    born = places[places["n_edits"].between(1, early)].set_index("case")[["x", "y"]]
    groups = {"unedited": places[places["n_edits"] == 0]}
    groups |= {r: places[(places["n_edits"] == n_edits) & (places["restraint"] == r)] for r in restraints}
    rows = [{"restraint": "at birth", "n": len(born), "distance": 0.0}]
    shown = looks(restraints)
    for label, group in groups.items():
        now = group.set_index("case")[["x", "y"]].loc[born.index]
        distance = float(np.sqrt(((now - born) ** 2).sum(axis=1).mean()))
        rows.append({"restraint": label, "n": len(now), "distance": distance})
        color, marker = (shown[label].color, shown[label].marker) if label in shown else (GREY, "*")
        if label in shown:
            ax.plot([born["x"], now["x"]], [born["y"], now["y"]], color=color, lw=0.3, alpha=0.4, zorder=1)
        ax.plot(now["x"], now["y"], marker, color=color, ms=2.5, zorder=2, alpha=0.8)
    ax.plot(born["x"], born["y"], "o", color="white", mec="black", ms=3.2, mew=0.7, zorder=3)
    near, far = (np.abs(part[["x", "y"]].to_numpy()).max() for part in (born, pd.concat(groups.values())))
    beyond = ""
    if far > 10 * near:
        powers = 10.0 ** np.arange(np.ceil(np.log10(near)), np.log10(far) + 1)
        ax.set_xscale("symlog", linthresh=near)
        ax.set_yscale("symlog", linthresh=near)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(FixedLocator([*-powers[::-1], 0, *powers]))
        beyond = f", log. beyond {near:.0f}"
    ax.set(xlabel=f"first component{beyond}", ylabel=f"second{beyond}")
    return pd.DataFrame(rows)


def value_legend(fig: Figure, restraints: Sequence[str]) -> None:
    """The legend of `value_plane`s, below the figure."""
    handles = [
        handle("right after its edit", color="white", mec="black", marker="o", ls="none"),
        handle("unedited model", color=GREY, marker="*", ls="none"),
    ]
    for look in looks(restraints).values():
        handles.append(handle(f"{look.text}, after all edits", color=look.color, marker=look.marker, lw=0.5))
    fig.legend(handles=handles, loc="outside lower center", ncols=3)


def age_curves(ax: Axes, frame: pd.DataFrame, metric: str, n_edits: int) -> pd.DataFrame:
    """A score of the edits of each age group after `n_edits`, a curve a restraint, with t intervals over runs.

    `frame` holds rows of `ages.by_age`, of one editor. Returns columns restraint, age (its first and last), n, mean,
    lo, hi.
    """
    rows = frame[(frame["n_edits"] == n_edits) & frame["metric"].str.startswith(f"{metric}:age ")]
    table = across_seeds(rows)
    ends = table["metric"].str.extract(r"age (\d+)-(\d+)").astype(int)
    table = table.assign(age=ends[0].astype(str) + "-" + ends[1].astype(str), middle=(ends[0] + ends[1]) / 2)
    table = table.sort_values(["restraint", "middle"], ignore_index=True)
    for label, look in looks(table["restraint"]).items():
        curve = table[table["restraint"] == label]
        ax.fill_between(curve["middle"], curve["lo"], curve["hi"], color=look.color, alpha=0.15, lw=0)
        ax.plot(curve["middle"], curve["mean"], color=look.color, marker=look.marker, label=look.text)
    ax.set(xscale="log", ylim=(-0.02, 1.02), xlabel="later edits", ylabel=name(metric))
    ax.xaxis.set_major_formatter(PLAIN)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title(f"{n_edits:,} edits, {counts(rows)}", loc="left")
    return table[["restraint", "age", "n", "mean", "lo", "hi"]]


def predictor_points(axes: Sequence[Axes], points: pd.DataFrame, predictors: Sequence[str]) -> None:
    """Loss of ability against each predictor, an axes each, a dot a point of `predictors.points`, a colour an editor;
    points without a finite number are left out. The legend stands below the figure."""
    shown = looks([editor for editor in IN_ORDER if editor in set(points["editor"])])
    for ax, predictor in zip(axes, predictors, strict=True):
        for editor, look in shown.items():
            rows = points[points["editor"] == editor]
            ax.plot(rows[predictor], rows["loss"], look.marker, color=look.color, ms=1.8, alpha=0.5, ls="none")
        ax.set(xscale="log", xlabel=PREDICTED[predictor])
    axes[0].set(ylabel="loss of mean ability", ylim=(-0.1, 1.05))
    axes[0].set_title(f"{len(points):,} points", loc="left")
    handles = [handle(look.text, color=look.color, marker=look.marker, ls="none") for look in shown.values()]
    axes[0].get_figure().legend(handles=handles, loc="outside lower center", ncols=3)


PREDICTED = {
    "kappa": r"$\kappa(W_n)\,/\,\kappa(W_0)$",
    "sigma_max": r"$\sigma_{\max}(W_n)\,/\,\sigma_{\max}(W_0)$",
    "frobenius": r"$\|D\|_F\,/\,\|W_0\|_F$",
    "drift": r"$\|D^\top K_0\|_F\,/\,\|W_0^\top K_0\|_F$",
    "edits": "edits",
}
"""How the numbers of `predictors` are written."""


def predictor_ranks(ax: Axes, ranks: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How well each number orders points by their loss of ability (Spearman's rho, t interval over orders): a row a
    number, a colour for each group of points in `ranks` (`predictors.rank`)."""
    labels = list(next(iter(ranks.values())).index)
    heights = np.arange(len(labels))
    colours = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7")
    for place, (group, table) in enumerate(ranks.items()):
        rows = table.loc[labels]
        reach = np.abs(rows[["lo", "hi"]].to_numpy().T - rows["mean"].to_numpy())
        shift = (place - (len(ranks) - 1) / 2) * 0.15
        style = {"fmt": "osDv^"[place], "color": colours[place], "ms": 3.5, "elinewidth": 0.7}
        ax.errorbar(rows["mean"], heights + shift, xerr=reach, label=words(group), **style)
    ax.axvline(0, color=GREY, lw=0.6)
    ax.set_yticks(heights, [PREDICTED[label] for label in labels])
    ax.set(xlim=(-1.05, 1.05), ylim=(len(labels) - 0.5, -0.5), xlabel=r"Spearman's $\rho$ with the loss of ability")
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return pd.concat({group: table.loc[labels] for group, table in ranks.items()}, names=["points"])
