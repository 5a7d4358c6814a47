"""Claims about recorded runs held against the records: what theory promises, what grows, saves, goes together."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from prunejax.intervals import across_models, growth, student, text, verdict
from prunejax.restraint import parse
from prunejax.theory import sigma_max_guarantee
from prunejax.verdicts import alike, by_seed, kept, orders_of, together


def guarantees(spectra: pd.DataFrame, tensor: str) -> pd.DataFrame:
    """sigma_max of each restrained weight beside its guarantee m + F(s_max): a row a (model, editor, restraint,
    seed, n_edits).

    `spectra` are summary rows with those of "none", from which s_max = sigma_max(sum dW) is read; m is sigma_max(W_0).
    Rescale controls, which are no map of one singular value, are left out. Columns m, s_max, measured, guarantee.
    """
    run = ["model", "editor", "seed", "n_edits"]
    weight = spectra[spectra["metric"] == f"sigma_max:weight:{tensor}"]
    update = spectra[(spectra["metric"] == f"sigma_max:update:{tensor}") & (spectra["restraint"] == "none")]
    kept = weight[(weight["n_edits"] > 0) & ~weight["restraint"].str.startswith("rescale:")]
    rows = kept[["restraint", *run, "mean"]].rename(columns={"mean": "measured"})
    rows = rows.merge(update[[*run, "mean"]].rename(columns={"mean": "s_max"}), on=run)
    m = weight[weight["n_edits"] == 0].groupby("model")["mean"].first()
    rows["m"] = rows["model"].map(m)
    restraints = {spec: parse(spec) for spec in rows["restraint"].unique()}
    promised = zip(rows["restraint"], rows["s_max"], rows["m"], strict=True)
    rows["guarantee"] = [sigma_max_guarantee(restraints[spec], s_max, m) for spec, s_max, m in promised]
    return rows.reset_index(drop=True)


class Growth(NamedTuple):
    """What became of one number by edits: whether it grows and whether it stays within a tenth, each on every seed; the
    factor as people read it; the request orders and how many pretraining seeds behind it."""

    grows: str
    steady: str
    number: str
    orders: str
    seeds: int


def growth_on_seeds(spectra: pd.DataFrame, metric: str, n_edits: int, model: str) -> Growth:
    """How one editor's `metric` grew from none to `n_edits` edits on every model of `spectra`, summary rows of one
    restraint. The factor of `model` is given with its interval (`intervals.growth`), those of all models without."""
    rows = spectra[(spectra["metric"] == metric) & spectra["n_edits"].isin((0, n_edits))]
    found = growth(rows)
    own = found.loc[found["model"] == model, ["mean", "lo", "hi"]].iloc[0]
    ends = np.log(found[["lo", "hi"]].to_numpy())
    factors = ", ".join(f"{factor:.3g}" for factor in found["mean"])
    grows = together(verdict(lo, hi) for lo, hi in ends)
    number = f"by a factor of {text(*own)}; by seed {factors}"
    return Growth(grows, alike(ends, np.log(1.1)), number, orders_of(rows), len(found))


class Effect(NamedTuple):
    """What a paired difference says on every pretraining seed: whether it lies above 0 and whether the score is kept;
    the differences as people read them, each seed's and over seeds; how many seeds."""

    gains: str
    keeps: str
    number: str
    seeds: int


def effect_on_seeds(differences: pd.DataFrame) -> Effect:
    """One claim's rows of `intervals.paired`, a row a model."""
    ends = differences[["lo", "hi"]].to_numpy()
    over = across_models(differences)[["mean", "lo", "hi"]].iloc[0]
    gains = together(verdict(lo, hi) for lo, hi in ends)
    number = f"by seed: {by_seed(differences)}; over seeds {text(*over)}"
    return Effect(gains, kept(ends), number, len(differences))


def largest_growth(spectra: pd.DataFrame, name: str, n_edits: int) -> pd.Series:
    """The factor by which a number of the edited weight ("sigma_max") grew in the edited matrix where it grew most, by
    (editor, seed); `spectra` are summary rows of one model under one restraint."""
    ends = spectra[spectra["n_edits"].isin((0, n_edits)) & spectra["metric"].str.startswith(f"{name}:weight:")]
    wide = ends.pivot(index=["editor", "metric", "seed"], columns="n_edits", values="mean")
    return (wide[n_edits] / wide[0]).groupby(["editor", "seed"]).max()


def ordered_alike(one: pd.Series, other: pd.Series) -> str:
    """Whether of any two editors the one with more of `one` has more of `other`, both by (editor, seed): "holds" if the
    paired intervals of every two lie apart from 0 on the same side, "does not hold" if those of some two lie on
    opposite sides, else "undecided"."""
    answers = []
    for a, b in combinations(one.index.unique("editor"), 2):
        rows = [student(numbers[a] - numbers[b]) for numbers in (one, other)]
        more, less = (
            [verdict(lo, hi) for lo, hi in ends]
            for ends in ([(row.lo, row.hi) for row in rows], [(-row.hi, -row.lo) for row in rows])
        )
        crossed = "holds" in (together([more[0], less[1]]), together([less[0], more[1]]))
        agree = "holds" in (together(more), together(less))
        answers.append("holds" if agree else "does not hold" if crossed else "undecided")
    return together(answers)
