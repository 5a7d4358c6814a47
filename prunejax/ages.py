"""How edits fare by their age: of the edits made so far, those made just now against those made long ago."""

from itertools import pairwise

import pandas as pd

from prunejax.intervals import summarize
from prunejax.points import provenance
from prunejax.run import Run

AGED = ("efficacy", "efficacy_top1", "generalization_top1")
AGES = (0, 20, 50, 100, 200, 500, 1000)
"""Ends of the age groups, in later edits: 0 to 19, 20 to 49, and so on."""

FIRST = 20
"""The first edits are also a group of their own, beside the last ones (0 to 19)."""


def by_age(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """Summary rows of a run's case rows after edits, an age group a metric: "efficacy_top1:age 20-49", and
    "efficacy_top1:first 20".

    The age of edit i after n edits is n - i: how many later ones it has outlived. Groups that reach beyond n hold the
    edits that there are, and where there is none there is no row. Intervals are over the group's cases of the run.
    """
    number = {request.case_id: i for i, request in enumerate(run.requests, 1)}
    kept = rows[rows["metric"].isin(AGED) & (rows["n_edits"] > 0)]
    position = kept["case"].map(number)
    age = kept["n_edits"] - position
    groups = pd.cut(age, AGES, right=False, labels=[f"age {a}-{b - 1}" for a, b in pairwise(AGES)])
    aged = kept.assign(metric=kept["metric"] + ":" + groups.astype(str))
    first = kept[(position <= FIRST) & (kept["n_edits"] >= 2 * FIRST)]
    first = first.assign(metric=first["metric"] + f":first {FIRST}")
    return summarize(pd.concat([aged, first]), provenance(run))
