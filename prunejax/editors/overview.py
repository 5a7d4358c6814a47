"""The map: every editor as what it chooses of the value step, of S and of the solve, in one table."""

import pandas as pd

from prunejax.editors import EDITORS, EditorRow
from prunejax.editors.regimes import REGIMES

COLUMNS = ("what it spares (S)", "earlier keys", "value stands at", "value found on", "solve", "regimes")
SPARES = {
    "rome": "C",
    "r-rome": "C",
    "memit": "lambda C",
    "memit-seq": "lambda C",
    "emmet": "w C",
    "alphaedit": "L2 I, null space of C",
    "nse": "lambda C, loud neurons",
    "encore": "lambda C + lambda_n I",
    "pmet": "lambda C",
    "ultraedit": "a I",
}
"""Of the editors that solve for keys."""


def overview() -> pd.DataFrame:
    """A row an editor. What can be read off its `Choice` is; only SPARES is told."""
    return pd.DataFrame({name: _row(name, row) for name, row in EDITORS.items()}, index=list(COLUMNS)).T


def _row(name: str, row: EditorRow) -> tuple[str, ...]:
    choice, regimes = row.make(row.settings()).choice, ", ".join(r for r in REGIMES if not row.refused(r))
    spares = SPARES.get(name, "nothing")
    if choice is None:
        return spares, "no", *_ALONE.get(name, ("-", "-", "-")), regimes
    solve = "exact for one" if choice.slack_alone == 0 else "least squares"
    found = "unedited weights" if choice.rewound else "weights as they are"
    return spares, "yes" if choice.remembers else "no", choice.value_step.sites[-1], found, solve, regimes


_ALONE = {
    "rome": ("value", "weights as they are", "exact, two keys"),
    "r-rome": ("value", "weights as they are", "exact, one key"),
    "ultraedit": ("-", "one gradient", "least squares"),
    "mend": ("-", "one gradient", "a trained network"),
    "ft-l": ("-", "-", "gradient descent in a box"),
    "ft-m": ("-", "-", "gradient descent"),
}
"""Site, weights and solve of editors without a `Choice`."""
