"""How a restraint, a metric and a sample size look in every figure: colours, markers, words, the legend's key.

Colours are Okabe and Ito's, told apart with any colour vision; markers repeat what colours say, for a print in grey.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prunejax.errors import InputError
from prunejax.records import is_score

GREY = "#767676"
DASHES = (0, (2.5, 1.0))
LONG_DASHES = (0, (6, 2))
OWN = {
    "none": ("#000000", "o"),
    "log:e": ("#0072B2", "s"),
    "log:1.5": ("#56B4E9", "^"),
    "log:1.2": ("#009E73", "D"),
    "scaled-log:e": ("#D55E00", "v"),
    "rescale:log:e": ("#CC79A7", "P"),
    "clip": ("#E69F00", "X"),
}
"""Colour and marker of the usual restraints, the same in every figure, in drawing order."""

NAMES = {
    "ability": "mean ability",
    "efficacy_top1": "efficacy, arg-max",
    "generalization_top1": "generalization, arg-max",
    "locality_top1": "locality, arg-max",
    "sigma_max": r"$\sigma_{\max}$",
    "sigma_min": r"$\sigma_{\min}$",
    "kappa": r"$\kappa=\sigma_{\max}/\sigma_{\min}$",
    "frobenius": "Frobenius norm",
    "rank": "numerical rank",
}


class Look(NamedTuple):
    """How one curve is drawn, and its words in the legend."""

    text: str
    color: str
    marker: str
    line: str | tuple[float, tuple[float, ...]]


def looks(labels: Iterable[str], marked: Collection[str] = ()) -> dict[str, Look]:
    """The look of each label, in drawing order: restraints of `OWN`, then the others by name in the colours left over.

    `marked` restraints, whose maps can amplify, get a dashed line and a dagger. InputError where labels outnumber
    colours: nobody could read that figure. Misleads: a label outside `OWN` may change its colour between figures.
    """
    present = set(labels)
    if len(present) > len(OWN):
        raise InputError(f"figure: {len(present)} curves for {len(OWN)} colours; choose among {sorted(present)}")
    spare = (own for label, own in OWN.items() if label not in present)
    order = [label for label in OWN if label in present] + sorted(present - OWN.keys())
    chosen = {label: OWN.get(label) or next(spare) for label in order}
    return {
        label: Look(words(label, label in marked), color, marker, DASHES if label in marked else "-")
        for label, (color, marker) in chosen.items()
    }


def words(restraint: str, marked: bool = False) -> str:
    """A restraint as a legend names it: its spec, "unrestrained" for none, and a dagger if `marked`."""
    plain = "unrestrained" if restraint == "none" else restraint
    control = " (control)" if restraint.startswith("rescale:") else ""
    return plain + control + ("†" if marked else "")


def name(metric: str) -> str:
    """A metric as a label: an ability by its task, a number of a spectrum in symbols whatever matrix it is of."""
    kind, _, rest = metric.partition(":")
    return rest if kind == "ability" and rest else NAMES.get(kind, kind)


def counts(rows: pd.DataFrame) -> str:
    """What the means of one metric's rows stand on: "5 runs × 300 cases" or, for single numbers, "5 runs"."""
    if "seed" not in rows:
        return f"n = {_span(rows['n'])}"
    runs = f"{_span(rows.groupby(['restraint', 'n_edits'])['seed'].nunique())} runs"
    return f"{runs} × {_span(rows['n'])} cases" if is_score(rows["metric"].iloc[0]) else runs


def key(curves: Mapping[str, Look], failed: bool) -> list[Artist]:
    """A legend's handles: one for each of `curves`, then what every figure of curves has; `failed` adds the cross."""
    grey = {"color": GREY, "marker": "none"}
    handles: list[Artist] = [
        handle(look.text, color=look.color, marker=look.marker, ls=look.line) for look in curves.values()
    ]
    handles.append(handle("unedited model", ls=LONG_DASHES, lw=0.8, **grey))
    handles.append(handle("one run", lw=0.5, alpha=0.7, **grey))
    handles.append(Patch(color=GREY, alpha=0.25, lw=0, label="95% interval of the mean"))
    if failed:
        handles.append(handle("× at the upper edge: not finite", ls="none", color=GREY, marker="x"))
    if any(look.line == DASHES for look in curves.values()):
        handles.append(handle("† can amplify", ls=DASHES, **grey))
    return handles


def handle(label: str, **properties: object) -> Line2D:
    return Line2D([], [], label=label, **properties)


def _span(numbers: pd.Series) -> str:
    least, most = numbers.min(), numbers.max()
    return f"{most:,}" if least == most else f"{least:,}–{most:,}"
