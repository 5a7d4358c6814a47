"""The figure of identities between editors: how far apart two forms of one method are."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from prunejax.figures.looks import GREY, handle

DOTS = {"float32": ("#0072B2", "o"), "float64": ("#D55E00", "s")}


def identity_distances(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """A row an identity, a dot a precision: the relative distance of its two sides on a logarithmic axis, with the
    bound of each precision dotted in its colour. `rows` are those of `identities.check_identities`, which is returned
    with a row an identity."""
    names = list(dict.fromkeys(rows["identity"]))
    for precision, (color, marker) in DOTS.items():
        here = rows[rows["precision"] == precision].set_index("identity").loc[names]
        ax.plot(here["distance"], np.arange(len(names)), marker, color=color, ms=4, ls="none")
        ax.axvline(here["bound"].iloc[0], color=color, ls=":", lw=0.9)
    ax.set_yticks(np.arange(len(names)), names)
    ax.set(xscale="log", ylim=(len(names) - 0.5, -0.5), xlabel="relative distance of the two sides")
    handles = [handle(precision, color=color, marker=marker, ls="none") for precision, (color, marker) in DOTS.items()]
    handles.append(handle("bound", color=GREY, ls=":"))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return rows.pivot(index="identity", columns="precision", values="distance").loc[names]
