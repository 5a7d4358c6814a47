"""Whether perplexity is a fair alarm: how it orders recorded models, and whom it lets pass."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from prunejax.errors import InputError
from prunejax.intervals import Interval, student

RUN = ["model", "editor", "restraint", "seed", "n_edits"]


def watched_points(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a recorded model after edits (RUN): `ratio`, its perplexity over the unedited model's, each ability, their
    mean `ability`, and `kept`, that over the unedited model's. `scores` are summary rows; a NaN perplexity, of a
    collapsed model, is a ratio of inf. InputError without perplexity, abilities or the unedited model."""
    wanted = scores[scores["metric"].str.startswith("ability:") | (scores["metric"] == "perplexity")]
    wide = wanted.pivot(index=RUN, columns="metric", values="mean")
    tasks = [name for name in wide.columns if name != "perplexity"]
    if not tasks or "perplexity" not in wide or not (wanted["n_edits"] == 0).any():
        raise InputError("records: an alarm is held against perplexity and abilities, also of the unedited model")
    wide["ability"] = wide[tasks].mean(axis=1, skipna=False)
    wide = wide.reset_index()
    unedited = wide[wide["n_edits"] == 0].groupby(["model", "seed"])[["perplexity", "ability"]].first()
    edited = wide[wide["n_edits"] > 0].join(unedited.add_suffix("_0"), on=["model", "seed"])
    ratio = (edited["perplexity"] / edited["perplexity_0"]).fillna(np.inf)
    found = edited.assign(ratio=ratio, kept=edited["ability"] / edited["ability_0"])
    return found[[*RUN, "ratio", *tasks, "ability", "kept"]].reset_index(drop=True)


def rank_correlations(points: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rho of perplexity and each ability over the models of one request order, by ability: the mean over
    orders with a t interval, and n, how many orders. Below -0.5 perplexity orders models much as the ability does.

    Misleads: the models of an order are stages of few runs, and editors that break more at once rule the rank.
    """
    tasks = [name for name in points.columns if name.startswith("ability")]
    by_order = {
        task: [float(spearmanr(own["ratio"], own[task]).statistic) for _, own in points.groupby("seed")]
        for task in tasks
    }
    rows = [(task, *student(values), len(values)) for task, values in by_order.items()]
    return pd.DataFrame(rows, columns=["metric", *Interval._fields, "n"]).set_index("metric")


class Alarms(NamedTuple):
    """Of so many models: how many have lost a half of their mean ability and how many of these pass unnoticed; how many
    raise an alarm and how many of these have kept nine tenths."""

    models: int
    lost: int
    passed: int
    alarms: int
    false: int


def alarms_at(points: pd.DataFrame, threshold: float) -> Alarms:
    """What an alarm at a perplexity of `threshold` times the unedited model's does to recorded models."""
    alarm, lost = points["ratio"] > threshold, points["kept"] < 0.5
    false = alarm & (points["kept"] >= 0.9)
    return Alarms(len(points), int(lost.sum()), int((lost & ~alarm).sum()), int(alarm.sum()), int(false.sum()))
