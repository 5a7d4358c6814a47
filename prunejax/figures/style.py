"""The page that figures are made for, and the file they become: a journal's widths, small fonts, thin lines."""

from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from prunejax.files import write_through

WIDTH = 7.2
"""Inches across both columns of a page."""
COLUMN = 3.5
"""Inches across one column."""
DPI = 200

TEXT = {  # the one font that comes with matplotlib, so that a figure is the same on any machine
    **{"font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans", "text.usetex": False, "font.size": 7},
    **{"axes.titlesize": 7, "axes.labelsize": 7, "legend.fontsize": 7, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5},
}
TICKS = {"major.width": 0.5, "major.size": 2.5, "major.pad": 2, "minor.width": 0.4, "minor.size": 1.3}
LINES = {
    **{"axes.linewidth": 0.5, "lines.linewidth": 1.1, "lines.markersize": 3},
    **{f"{axis}tick.{what}": value for axis in "xy" for what, value in TICKS.items()},
}
SPACE = {
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.titlepad": 4, "axes.labelpad": 2},
    **{"legend.frameon": False, "legend.handlelength": 2.4, "legend.labelspacing": 0.35, "legend.columnspacing": 1.5},
    **{"figure.constrained_layout.use": True, "figure.dpi": 120, "figure.facecolor": "white"},
    **{"savefig.facecolor": "white", "savefig.bbox": None},
}


def style() -> AbstractContextManager[None]:
    """The context in which figures are made: `with style(): fig, ax = plt.subplots()`. Nothing outlives it."""
    return mpl.rc_context(TEXT | LINES | SPACE)


def save(fig: Figure, folder: str | Path, name: str) -> Path:
    """Write `fig` as FOLDER/NAME.png at 200 dots an inch, whole or not at all; returns the path.

    The file names neither its maker nor a date: with the same matplotlib, an unchanged figure is an unchanged file. The
    layout is fixed by the first saving, since constrained layout does not come to rest when a figure is drawn again.
    """
    path = Path(folder) / f"{name}.png"
    with style():
        write_through(path, lambda part: fig.savefig(part, format="png", dpi=DPI, metadata={"Software": None}))
        fig.set_layout_engine("none")
    return path
