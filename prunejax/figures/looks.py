"""How a restraint, a metric and a sample size look in every figure: colours, markers, words, the legend's handles.

Colours are Okabe and Ito's, told apart with any colour vision; markers repeat what colours say, for a print in grey.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
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
    "log:1.35": ("#56B4E9", "^"),
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
    "kappa": r"condition number $\kappa$",
    "frobenius": "Frobenius norm",
    "rank": "numerical rank",
    "eta": r"$\eta$: next edit / $\sigma_{\min}$",
    "drift": "share of values changed",
}
EDITOR_NAMES = {
    **{"ft-l": "FT-L", "ft-m": "FT-M", "rome": "ROME", "r-rome": "r-ROME", "memit": "MEMIT", "emmet": "EMMET"},
    **{"memit-seq": "sequential MEMIT", "alphaedit": "AlphaEdit", "nse": "NSE", "encore": "ENCORE", "pmet": "PMET"},
    **{"ultraedit": "UltraEdit", "mend": "MEND"},
}
SHARED = {"rome": ("#000000", "o"), "memit": ("#D55E00", "v"), "mend": ("#0072B2", "s"), "log:20": ("#E69F00", "X")}
"""Colour and marker of labels that seldom stand beside those of `OWN` with the same: the editors, where a figure has a
curve for each of them, and a base that is nearly `clip`."""
MATRICES = {"weight": " of $W_n$", "update": r" of $\Delta W$"}


class Look(NamedTuple):
    """How one curve is drawn, and its words in the legend. `fill` is the marker's."""

    text: str
    color: str
    marker: str
    line: str | tuple[float, tuple[float, ...]]
    fill: str


def looks(labels: Iterable[str], marked: Collection[str] = ()) -> dict[str, Look]:
    """The look of each label, in drawing order: restraints of `OWN`, then the others by name in the colours left over.

    `marked` restraints, whose maps can amplify, get a dashed line, a hollow marker and a dagger; a difference "a - b"
    looks like a. InputError where labels outnumber colours: nobody could read that figure. Misleads: a label outside
    `OWN` may change its colour from one figure to another.
    """
    own: dict[str, tuple[str, str]] = {}
    order = sorted(set(labels), key=lambda label: (_place(label), label))
    if len(order) > len(OWN):
        raise InputError(f"figure: {len(order)} curves for {len(OWN)} colours; choose among {', '.join(order)}")
    for label in order:
        look = (OWN | SHARED).get(_subject(label))
        if look and look not in own.values():
            own[label] = look
    spare = (look for look in OWN.values() if look not in own.values())
    chosen = {label: own.get(label) or next(spare) for label in order}
    return {
        label: Look(words(label) + "†", color, marker, DASHES, "white")
        if label in marked
        else Look(words(label), color, marker, "-", color)
        for label, (color, marker) in chosen.items()
    }


def words(label: str) -> str:
    """A restraint as a legend names it: its spec, "unrestrained" for none; editors by their authors' spelling, other
    labels as they are."""
    if label == "none":
        return "unrestrained"
    if label in EDITOR_NAMES:
        return EDITOR_NAMES[label]
    return f"{label} (control)" if label.startswith("rescale:") else label


def name(metric: str) -> str:
    """A metric as a title: an ability by its task, a number of a spectrum in symbols and without the tensor's name."""
    kind, _, rest = metric.partition(":")
    if kind == "ability" and rest:
        return rest
    return NAMES.get(kind, kind) + MATRICES.get(rest.partition(":")[0], "")


def counts(rows: pd.DataFrame) -> str:
    """What the rows of one metric stand on: "5 runs × 300 cases", "5 runs" for single numbers, "200 cases" of one run.

    Rows without seeds are means already: their n is "n = 5".
    """
    if "seed" not in rows:
        return f"n = {_span(rows['n'])}"
    runs = rows.groupby(["restraint", "n_edits"])["seed"].nunique()
    cases = f"{_span(rows['n'])} cases" if is_score(rows["metric"].iloc[0]) else ""
    several = f"{_span(runs)} runs" if runs.max() > 1 else ""
    return " × ".join(filter(None, (several, cases))) or "1 run"


def handle(label: str, **look: Any) -> Line2D:
    """A legend's handle that is no line of the figure."""
    return Line2D([], [], label=label, **look)


def key(axes: Iterable[Axes], curves: Mapping[str, Look]) -> list[Artist]:
    """A legend's handles: each of `curves`, then what else `figures.curves` has drawn into `axes`."""
    drawn = {str(artist.get_label()).partition(":")[0] for ax in axes for artist in ax.get_children()}
    handles: list[Artist] = [
        handle(look.text, color=look.color, marker=look.marker, ls=look.line, mfc=look.fill) for look in curves.values()
    ]
    if "_unedited" in drawn:
        handles.append(handle("unedited model", color=GREY, ls=LONG_DASHES, lw=0.8))
    if "_run" in drawn:
        handles.append(handle("one run", color=GREY, lw=0.5))
    if "_interval" in drawn:
        handles.append(Patch(color=GREY, alpha=0.25, lw=0, label="95% interval of the mean"))
    if any(look.line == DASHES for look in curves.values()):
        handles.append(handle("† map can amplify", color=GREY, ls=DASHES))
    return handles


def _subject(label: str) -> str:
    """The restraint that a curve is about: the first of a difference "a - b"."""
    return label.partition(" - ")[0]


def _place(label: str) -> int:
    subject = _subject(label)
    return list(OWN).index(subject) if subject in OWN else len(OWN)


def _span(numbers: pd.Series) -> str:
    least, most = numbers.min(), numbers.max()
    return f"{most:,}" if least == most else f"{least:,}–{most:,}"
