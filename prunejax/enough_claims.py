"""What the record on second moments says of few keys beside all of the text: single edits paired by shuffle, costs and
directions held against a limit."""

from collections.abc import Mapping, Sequence

import pandas as pd

from prunejax.enough_records import IDENTITY
from prunejax.intervals import Interval, student, text, verdict
from prunejax.verdicts import together

SCORES = ("efficacy_top1", "generalization_top1", "locality_top1")
NORM = "sigma_max:update"
"""Of a rank-one update its Frobenius norm too."""


def beside_all(rows: pd.DataFrame, model: str, settings: str, share: int) -> dict[str, Interval]:
    """Of single edits with `share` keys a dimension: each of SCORES less that with all of the text, and `norm`, the
    update's norm as a factor of that with all of it; t intervals over shuffles, paired."""
    some, whole = (edited(rows, model, settings, keys) for keys in (share * d_in(rows, model), most_keys(rows, model)))
    changes = {metric: student(some[metric] - whole[metric]) for metric in SCORES}
    return changes | {"norm": student(some[NORM] / whole[NORM])}


def identity_beside_all(rows: pd.DataFrame, model: str, settings: str) -> dict[str, Interval]:
    """The control: each of SCORES with the identity in place of C, less that with all of the text."""
    none, whole = edited(rows, model, IDENTITY, 0), edited(rows, model, settings, most_keys(rows, model))
    return {metric: student(none[metric] - whole[metric]) for metric in SCORES}


def edited(rows: pd.DataFrame, model: str, settings: str, keys: int) -> pd.Series:
    """Means by metric and seed of single edits with so many keys."""
    here = rows[(rows["model"] == model) & (rows["settings"] == settings) & (rows["keys"] == keys)]
    return here.set_index(["metric", "seed"])["mean"].sort_index()


def d_in(rows: pd.DataFrame, model: str) -> int:
    """Dimensions of a model's keys."""
    return int(rows.loc[rows["model"] == model, "d_in"].iloc[0])


def most_keys(rows: pd.DataFrame, model: str) -> int:
    """Keys of all of a model's text."""
    return int(rows.loc[rows["model"] == model, "keys"].max())


def at_most(row: Mapping[str, float] | Interval, limit: float) -> str:
    """Whether a number lies under a limit, by its interval `lo` to `hi`."""
    lo, hi = (row["lo"], row["hi"]) if isinstance(row, Mapping | pd.Series) else (row.lo, row.hi)
    return verdict(limit - hi, limit - lo)


def all_above(rows: Mapping[str, pd.Series], limit: float) -> tuple[str, str]:
    """Whether the number of every model lies above a limit, and the numbers in words."""
    answer = together(verdict(row["lo"] - limit, row["hi"] - limit) for row in rows.values())
    return answer, "; ".join(f"{model} {text(*row)}" for model, row in rows.items())


def stands_on(rows: pd.DataFrame, models: Sequence[str]) -> dict[str, str]:
    """What each model's costs stand on, in words."""
    found = rows[rows["metric"] == "cost"].groupby("model")[["seed", "n"]].agg({"seed": "nunique", "n": "max"})
    return {m: f"{found.seed[m]} shuffles of the text x {found.n[m]} requests ({m})" for m in models}
