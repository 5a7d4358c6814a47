"""Standings of a tournament: what each editor under each restraint scored after so many edits, and who is dominated."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from prunejax.errors import InputError
from prunejax.intervals import mean_ability, student

METRICS = ("ability", "efficacy_top1", "generalization_top1", "locality_top1", "portability", "perplexity")
ENTRANT = ["editor", "restraint", "batch"]


def standings(summary: pd.DataFrame, n_edits: int, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """A row an entrant (editor, restraint, batch) and metric after `n_edits`: n orders, and the mean over orders with a
    t interval; "ability" is `mean_ability`. InputError where the entrants did not run the same orders."""
    rows = _scored(summary[summary["n_edits"] == n_edits])
    rows = rows[rows["metric"].isin(metrics)]
    orders = rows.groupby(ENTRANT)["seed"].apply(frozenset)
    if rows.empty or orders.nunique() != 1:
        raise InputError(f"standings: the entrants did not all run the same orders to {n_edits} edits")
    means = [(*key, len(group), *student(group["mean"])) for key, group in rows.groupby([*ENTRANT, "metric"])]
    return pd.DataFrame(means, columns=[*ENTRANT, "metric", "n", "mean", "lo", "hi"])


def seconds(summary: pd.DataFrame) -> pd.DataFrame:
    """How long an edit of each run took, in seconds: editor, restraint, batch, and the mean over orders with a t
    interval. Measured as the records were made, two runs beside one another on two cores, compilation and writing
    included."""
    rows = summary[summary["metric"] == "seconds"]
    means = [(*key, len(group), *student(group["mean"])) for key, group in rows.groupby(ENTRANT)]
    return pd.DataFrame(means, columns=[*ENTRANT, "n", "mean", "lo", "hi"])


def difference(
    summary: pd.DataFrame, n_edits: int, metric: str, one: tuple[str, str], other: tuple[str, str], batch: int = 1
) -> tuple[float, float, float]:
    """How much higher an entrant (editor, restraint) scores than another after `n_edits`, paired by order: the mean and
    its t interval. InputError for an entrant or an order that only one side has."""
    rows = _scored(summary[(summary["n_edits"] == n_edits) & (summary["batch"] == batch)])
    sides = []
    for editor, restraint in (one, other):
        here = (rows["editor"] == editor) & (rows["restraint"] == restraint) & (rows["metric"] == metric)
        sides.append(rows[here].set_index("seed")["mean"].sort_index())
    if sides[0].empty or not sides[0].index.equals(sides[1].index):
        raise InputError(f"standings: {' and '.join(map(' under '.join, (one, other)))} have no {metric} in common")
    return student(sides[0] - sides[1])


def front(points: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Which points no other one beats in both columns: at least as high in each and higher in one."""
    values = points[[x, y]].to_numpy(np.float64)
    no_lower = (values[:, None] >= values[None]).all(axis=2) & (values[:, None] > values[None]).any(axis=2)
    return pd.Series(~no_lower.any(axis=0), index=points.index)


def _scored(rows: pd.DataFrame) -> pd.DataFrame:
    scores = rows[rows["metric"] != "seconds"]
    return pd.concat([scores, mean_ability(scores)], ignore_index=True) if len(scores) else scores
