"""The figure of a record: how many times faster, and which share of the machine's rate."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measurements import CLAIMS, Claim
from benchmarks.rates import LEAST
from prunejax.figures.looks import DASHES, GREY, handle

COLORS = {"prunejax": "#0072B2", "pytorch": "#D55E00"}
MARKS = {1: ("at least", ">"), -1: ("at most", "<")}
"""Words and marker of what is asked, by a claim's sign."""

WORDS = {
    ("rome", "pytorch"): "ROME: PyTorch / prunejax",
    ("memit", "pytorch"): "MEMIT: PyTorch / prunejax",
    ("restraint", "reference"): "restraint: authors' / prunejax",
    ("restraint", "eight bases"): "restraint, factors: 8 bases / 1",
    ("restraint", "eight weights"): "restraint, weights: 8 bases / 1",
    ("kappa", "thin SVD"): "κ along a run: thin SVDs / prunejax",
    ("world-long", "last thousand"): "10,000 edits: last / second thousand",
    ("saving", "rome"): "saving, ROME: run folder / in memory",
    ("saving", "alphaedit"): "saving, AlphaEdit: run folder / in memory",
    ("saving", "rome guarded every ten"): "guard, ROME: every 10 edits / none",
    ("saving", "alphaedit guarded every ten"): "guard, AlphaEdit: every 10 edits / none",
    ("moments-gpt2", "prunejax"): "moments, GPT-2: whole / parts alone",
    ("moments-world", "prunejax"): "moments, world: whole / parts alone",
}
"""What the ratio of a row is one of; rows of other names are named by case and side."""


def draw_comparisons(fig: Figure, rows: pd.DataFrame) -> None:
    """Left, of every comparison, the ratio of times, on a logarithmic axis, with what is asked for as a mark; right, of
    the edits, the share of its own matrix-product rate that each side reached (prunejax on useful operations, PyTorch
    on those that it does)."""
    compared = rows[rows["ratio"].notna()]
    left, right = fig.subplots(1, 2, width_ratios=(3, 2))
    _draw_ratios(left, compared)
    _draw_fractions(right, rows[rows["fraction"].notna()])
    handles = [handle(f"asked: {word}", color=GREY, marker=mark, ls="none") for word, mark in MARKS.values()]
    handles += [handle(side, color=color, marker="o", ls="none") for side, color in COLORS.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=4)


def _draw_ratios(ax: Axes, rows: pd.DataFrame) -> None:
    claims = {(claim.case, claim.side): claim for claim in CLAIMS if claim.column == "ratio"}
    words = []
    for place, row in enumerate(rows.itertuples()):
        what = WORDS.get((row.case, row.side), f"{row.case}: {row.side}")
        words.append(f"{what} (n = {row.n}, {row.cores} core{'s' if row.cores > 1 else ''})")
        ax.plot([1, row.ratio], [place, place], color=COLORS["prunejax"], lw=3, solid_capstyle="butt", label="_ratio")
        claim: Claim | None = claims.get((row.case, row.side))
        behind = max(row.ratio, 1, claim.bound if claim else 1)
        ax.annotate(f"{row.ratio:.3g}", (behind, place), (4, 0), textcoords="offset points", va="center")
        if claim is not None:
            look = {"color": GREY, "marker": MARKS[claim.sign][1], "ls": "none", "zorder": 3}
            ax.plot([claim.bound], [place], label="_asked", **look)
    ax.axvline(1, color=GREY, lw=0.5)
    ax.set_yticks(range(len(words)), words)
    ax.set(xscale="log", xlabel="ratio of times", ylim=(max(len(words), 1) - 0.5, -0.5))
    ax.margins(x=0.15)


def _draw_fractions(ax: Axes, rows: pd.DataFrame) -> None:
    cases = list(dict.fromkeys(rows["case"]))
    for row in rows.itertuples():
        place = cases.index(row.case) + (0.1 if row.side == "pytorch" else -0.1)
        ax.plot([row.fraction], [place], color=COLORS[row.side], marker="o", ms=4, ls="none", label=f"_{row.side}")
    for bound, word, side in ((LEAST, "PyTorch \nrefused \nbelow ", "right"), (0.5, " prunejax\n asked", "left")):
        ax.axvline(bound, color=GREY, ls=DASHES, lw=0.7, label="_bound")
        ax.annotate(word, (bound, -0.45), ha=side, va="top", color=GREY, fontsize="small")
    ax.set_yticks(range(len(cases)), cases)
    ax.set(xlim=(0, 1), xlabel="share of its own matrix-product rate", ylim=(max(len(cases), 1) - 0.5, -0.5))
