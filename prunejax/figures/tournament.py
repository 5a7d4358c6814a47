"""Figures of a tournament: editors beside one another, under no restraint and under some."""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from prunejax.figures.looks import EDITOR_NAMES, GREY, handle, name, words
from prunejax.standings import front

RESTRAINED = {
    "none": ("#000000", "o"),
    "log:e": ("#0072B2", "s"),
    "log:1.35": ("#56B4E9", "^"),
    "rect:20": ("#D55E00", "v"),
    "log:e@50": ("#009E73", "D"),
}
"""Colour and marker of what a tournament restrains with."""


PALE = "#C8C8C8"


def tournament_front(
    fig: Figure,
    tables: Mapping[int, pd.DataFrame],
    *,
    d_in: int,
    x: str = "efficacy_top1",
    y: str = "ability",
) -> pd.DataFrame:
    """Fill `fig` with an axes for each number of edits: a point an editor and restraint, means over orders with t
    intervals, better towards the upper right. A thin line joins an editor's points; its name stands at the unrestrained
    one. The Pareto front, of points that none beats in both scores, is a grey staircase.

    `tables` are `standings.standings` by number of edits. Returns n_edits, editor, restraint, x, y and `front`.
    """
    axes = fig.subplots(1, len(tables), sharex=True, sharey=True, squeeze=False)[0]
    drawn = []
    for ax, (n_edits, table) in zip(axes, tables.items(), strict=True):
        points = _points(table, x, y)
        points["front"] = front(points, "x", "y")
        for editor, own in points.groupby("editor", sort=False):
            ax.plot(own["x"], own["y"], color=GREY, lw=0.4, zorder=1)
            start = own[own["restraint"] == "none"]
            for at in start.itertuples():
                ax.annotate(words(editor), (at.x, at.y), xytext=(3, 2), textcoords="offset points", fontsize=5)
        _entrants(ax, points)
        _staircase(ax, points[points["front"]].sort_values("x"))
        ax.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xlabel=name(x))
        share = rf"{n_edits:,} edits = {n_edits / d_in:.2g} $d_\mathrm{{in}}$"
        ax.set_title(f"{share}, {table['n'].max()} orders", loc="left")
        drawn.append(points.assign(n_edits=n_edits))
    axes[0].set_ylabel(name(y))
    handles = _handles({restraint for table in tables.values() for restraint in table["restraint"]})
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return pd.concat(drawn, ignore_index=True)[["n_edits", "editor", "restraint", "x", "y", "front"]]


def tournament_panels(
    fig: Figure, table: pd.DataFrame, *, title: str, columns: int, x: str = "efficacy_top1", y: str = "ability"
) -> pd.DataFrame:
    """Fill `fig` with an axes for each editor, better towards the upper right: under each restraint the mean over
    orders with t intervals, among the means of all the others in light grey. The Pareto front of all of them, of points
    that none beats in both scores, is a dotted staircase, the same in every axes; what stands on it has a ring.

    `table` are `standings.standings` at one number of edits, which `title` says. Returns editor, restraint, x, y and
    `front`.
    """
    points = _points(table, x, y)
    points["front"] = front(points, "x", "y")
    best = points[points["front"]].sort_values("x")
    editors = [editor for editor in EDITOR_NAMES if editor in set(points["editor"])]
    rows = -(-len(editors) // columns)
    axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, editor in zip(axes, editors, strict=False):
        own = points[points["editor"] == editor]
        ax.plot(points["x"], points["y"], ls="none", marker=".", ms=2, color=PALE, zorder=0)
        _staircase(ax, best)
        _entrants(ax, own)
        ringed = own[own["front"]]
        ax.plot(ringed["x"], ringed["y"], ls="none", marker="o", ms=7, mfc="none", mec=GREY, mew=0.6, zorder=3)
        ax.set_title(words(editor), loc="left")
    for ax in axes[len(editors) :]:
        ax.set_axis_off()
    for ax in axes[max(len(editors) - columns, 0) : len(editors)]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(name(x))
    for ax in axes[::columns]:
        ax.set_ylabel(name(y))
    axes[0].set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    fig.suptitle(f"{title}, {table['n'].max()} orders", fontsize="medium", x=0.01, ha="left")
    handles = _handles(set(table["restraint"]))
    handles.append(handle("others", color=PALE, marker=".", ls="none"))
    fig.legend(handles=handles, loc="outside lower center", ncols=4)
    return points[["editor", "restraint", "x", "y", "front"]]


def batch_sizes(axes: Sequence[Axes], table: pd.DataFrame, metrics: Sequence[str], total: int) -> pd.DataFrame:
    """A metric an axes, a curve an editor: the score after `total` edits against how many were edited at once, means
    over orders with t intervals. `table` are rows of `standings.standings`, which are returned as they were drawn."""
    colours = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7")
    editors = list(dict.fromkeys(table["editor"]))
    shown = table[table["metric"].isin(metrics)].sort_values("batch")
    for metric, ax in zip(metrics, axes, strict=True):
        for editor, color, marker in zip(editors, colours, "ovsD^", strict=False):
            curve = shown[(shown["metric"] == metric) & (shown["editor"] == editor)]
            ax.fill_between(curve["batch"], curve["lo"], curve["hi"], color=color, alpha=0.15, lw=0)
            ax.plot(curve["batch"], curve["mean"], color=color, marker=marker)
        ax.set(xscale="log", ylim=(-0.02, 1.02), xlabel="edited at once")
        ax.set_title(name(metric), loc="left")
        sizes = sorted(set(shown["batch"]))
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.minorticks_off()
    axes[0].set_ylabel(f"score after {total:,} edits")
    handles = [
        handle(words(editor), color=color, marker=marker)
        for editor, color, marker in zip(editors, colours, "ovsD^", strict=False)
    ]
    handles.append(Patch(color=GREY, alpha=0.25, lw=0, label=f"95% interval over {shown['n'].max()} orders"))
    axes[0].get_figure().legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return shown


def _entrants(ax: Axes, points: pd.DataFrame) -> None:
    """Means and intervals by restraint."""
    for restraint, (color, marker) in RESTRAINED.items():
        here = points[points["restraint"] == restraint]
        bars = {f"{axis}err": [here[axis] - here[f"{axis}_lo"], here[f"{axis}_hi"] - here[axis]] for axis in "xy"}
        ax.errorbar(here["x"], here["y"], fmt=marker, color=color, ms=3, elinewidth=0.4, **bars)


def _staircase(ax: Axes, best: pd.DataFrame) -> None:
    """The front, through the points on it in order of x, and what they all beat to the left of it and below."""
    x, y = best["x"].tolist(), best["y"].tolist()
    ax.step([0, *x, x[-1]], [y[0], *y, 0], where="pre", color=GREY, lw=1.0, ls=":", zorder=0)


def _handles(there: Collection[str]) -> list[Artist]:
    """The legend of the restraints that are there, intervals and the front."""
    shown = [
        handle(words(restraint), color=color, marker=marker, ls="none")
        for restraint, (color, marker) in RESTRAINED.items()
        if restraint in there
    ]
    shown.append(handle("95% interval over orders", color=GREY, lw=0.5))
    shown.append(handle("Pareto front", color=GREY, ls=":"))
    return shown


def _points(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """A row an editor and restraint with both scores and their ends."""
    by = ["editor", "restraint"]
    sides = []
    for metric, axis in ((x, "x"), (y, "y")):
        rows = table[table["metric"] == metric].set_index(by)[["mean", "lo", "hi"]]
        sides.append(rows.rename(columns={"mean": axis, "lo": f"{axis}_lo", "hi": f"{axis}_hi"}))
    points = sides[0].join(sides[1]).reset_index()
    order = {restraint: place for place, restraint in enumerate(RESTRAINED)}
    return points.sort_values(["editor", "restraint"], key=lambda c: c.map(order) if c.name == "restraint" else c)
