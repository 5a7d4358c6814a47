"""Intervals at 95%, and what may be concluded from one: Wilson over cases of a run, Student's t over means of runs.

`summarize` turns case rows into one row a run; `across_seeds`, `across_models` and `paired` take means of such rows and
never pool cases. A frame with mean, lo and hi can be read as a `table`.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from prunejax.errors import InputError
from prunejax.records import RESULTS, SUMMARY_COLUMNS, Provenance, check, is_score, ordered, reject

CONFIDENCE = 0.95
COMPARABLE = ("model", "requests", "editor", "preset", "batch", "restraint", "n_edits", "metric")


class Interval(NamedTuple):
    """A mean and the ends of its 95% interval, in the unit of the values; ends are NaN where none can be given."""

    mean: float
    lo: float
    hi: float


def wilson(successes: int, n: int) -> Interval:
    """Wilson's score interval of a proportion, from `successes` of `n` independent cases (Wilson 1927).

    ((p + z^2 / 2n) +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with p = successes / n and z = 1.96.
    Cases of one run share a model, so it tells how well this run is known, not how much runs differ.
    """
    bounds = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(successes / n, float(bounds.low), float(bounds.high))


def student(values: ArrayLike) -> Interval:
    """Student's t interval of the mean of `values` [n]: mean +- t(n - 1) s / sqrt(n), s with n - 1 in its denominator.

    One value, or any value that is not finite, gives NaN ends; a NaN value gives a NaN mean, it is never left out.
    Equal values give no width: they repeat one another and do not show certainty. The ends know no bounds, so those
    of scores may leave [0, 1]. ValueError without values.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("an interval needs at least one value")
    with np.errstate(invalid="ignore"):
        mean = float(sample.mean())
    if sample.size == 1 or not np.isfinite(sample).all():
        return Interval(mean, math.nan, math.nan)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, sample.size - 1)
    half = float(quantile * sample.std(ddof=1) / math.sqrt(sample.size))
    return Interval(mean, mean - half, mean + half)


def over_cases(scores: ArrayLike) -> Interval:
    """The interval of scores [n] in [0, 1], one a case, within one run; NaN, a collapsed model, counts as 0.

    Wilson where every score is 0 or 1; else (means over a case's prompts, ROUGE) a t interval clipped to [0, 1],
    which is too narrow when nearly all scores are equal and too wide to be read at n = 2.
    """
    sample = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=0.0)
    if np.isin(sample, (0.0, 1.0)).all():
        return wilson(int(sample.sum()), sample.size)
    mean, lo, hi = student(sample)
    return Interval(mean, float(np.clip(lo, 0, 1)), float(np.clip(hi, 0, 1)))


def summarize(case_rows: pd.DataFrame, provenance: Provenance) -> pd.DataFrame:
    """Summary rows of one run's case rows, one per (restraint, seed, n_edits, metric).

    Scores: NaN cases count as 0 and `nan_count` keeps how many; the interval is over cases (`intervals.over_cases`)
    and says nothing of other runs. Perplexity and spectra: a single number, so n = 1 and lo = hi = mean, NaN staying
    NaN; a spectrum's case joins its metric ("sigma_max:weight:NAME"). InputError for rows of another editor.
    """
    rows = check(case_rows)
    reject(rows["editor"] != provenance.editor, rows["editor"], "records", f"in a run of {provenance.editor}")
    single = ~rows["metric"].map(is_score).astype(bool) & (rows["case"] != "all")
    rows["metric"] = rows["metric"].where(~single, rows["metric"] + ":" + rows["case"])
    summaries = []
    for (restraint, seed, n_edits, metric), values in rows.groupby(["restraint", "seed", "n_edits", "metric"])["value"]:
        mean, lo, hi = over_cases(values) if is_score(metric) else (values.item(),) * 3
        key = {"restraint": restraint, "seed": seed, "n_edits": n_edits, "metric": metric}
        found = {"n": len(values), "mean": mean, "lo": lo, "hi": hi, "nan_count": int(values.isna().sum())}
        summaries.append(provenance._asdict() | key | found)
    return ordered(check(pd.DataFrame(summaries, columns=list(SUMMARY_COLUMNS))))


def across_seeds(summary: pd.DataFrame) -> pd.DataFrame:
    """The mean of seed means with a t interval over them: n = number of seeds, NaN ends for one seed.

    One row per (model, requests, editor, preset, batch, restraint, n_edits, metric); a long run weighs as much as a
    short one, and `nan_count` sums over seeds. A NaN perplexity stays NaN, and one huge value rules a mean: look at the
    seeds. InputError where a seed occurs twice, as when runs made with different settings lie in one file.
    """
    return _across(check(summary), "seed")


def across_models(seeds: pd.DataFrame) -> pd.DataFrame:
    """The mean of model means with a t interval over them, from `across_seeds` or `paired`: n = number of models.

    For models that differ in their pretraining seed alone; the spread within each model no longer shows.
    """
    return _across(seeds, "model")


def paired(summary: pd.DataFrame, restraint_a: str, restraint_b: str) -> pd.DataFrame:
    """The mean over seeds of (mean under a - mean under b) with a t interval, rows as in `across_seeds`.

    `restraint` reads "a - b", `nan_count` counts both sides. What only one side measured (the unedited model) is left
    out; a seed that only one side has is an InputError, since runs that are missing are seldom missing at random.
    """
    rows = check(summary)
    for restraint in (restraint_a, restraint_b):
        if restraint not in set(rows["restraint"]):
            there = ", ".join(sorted(rows["restraint"].unique()))
            raise InputError(f"records: no rows under restraint {restraint!r}; there are {there}")
    by = [column for column in COMPARABLE if column != "restraint"]
    sides = [_once(rows[rows["restraint"] == restraint], [*by, "seed"]) for restraint in (restraint_a, restraint_b)]
    both = sides[0].merge(sides[1], on=[*by, "seed"], how="outer", suffixes=("_a", "_b"))
    here = both[["restraint_a", "restraint_b"]].notna()
    either = here.groupby([both[column] for column in by]).transform("any")
    for _, lone in both[either.all(axis=1) & ~here.all(axis=1)].iterrows():
        missing = restraint_a if pd.isna(lone["restraint_a"]) else restraint_b
        measured = f"{lone['metric']} after {lone['n_edits']} edits of seed {lone['seed']}"
        raise InputError(f"records: {measured} is missing under {missing}; a pair needs both")
    both = both[here.all(axis=1)]
    differences = both[[*by, "seed"]].assign(
        restraint=f"{restraint_a} - {restraint_b}",
        mean=both["mean_a"] - both["mean_b"],
        nan_count=both["nan_count_a"] + both["nan_count_b"],
    )
    return _across(differences, "seed")


def against_unedited(summary: pd.DataFrame) -> pd.DataFrame:
    """The mean over seeds of (mean after n edits - mean before any) with a t interval, rows as in `across_seeds`.

    The edited rows keep their restraint; a seed without a row at 0 edits is an InputError.
    """
    both = _beside_unedited(summary)
    return _across(both.assign(mean=both["mean"] - both["mean_0"]), "seed")


def growth(summary: pd.DataFrame) -> pd.DataFrame:
    """The factor (mean after n edits) / (mean before any): its geometric mean over seeds, with the ends of the t
    interval of its logarithm; rows as in `across_seeds`, errors as in `against_unedited`.

    For numbers that grow by factors, as singular values do: one seed's thousandfold does not rule the others.
    "Grows" is a factor whose interval lies above 1. A number that was 0 before gives inf, or NaN for 0 / 0.
    """
    both = _beside_unedited(summary)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = _across(both.assign(mean=np.log(both["mean"] / both["mean_0"])), "seed")
    return logs.assign(**{name: np.exp(logs[name]) for name in ("mean", "lo", "hi")})


def _beside_unedited(summary: pd.DataFrame) -> pd.DataFrame:
    rows = check(summary)
    by = [column for column in COMPARABLE if column not in ("restraint", "n_edits")]
    start = rows[rows["n_edits"] == 0].drop_duplicates([*by, "seed"])[[*by, "seed", "mean"]]
    both = rows[rows["n_edits"] > 0].merge(start, on=[*by, "seed"], how="left", suffixes=("", "_0"), indicator=True)
    if (both["_merge"] != "both").any():
        lone = both[both["_merge"] != "both"].iloc[0]
        raise InputError(f"records: {lone['metric']} of seed {lone['seed']} was not measured at 0 edits")
    return both


def mean_ability(frame: pd.DataFrame) -> pd.DataFrame:
    """Summary rows of metric "ability": the unweighted mean over the abilities of each run, ends NaN, n cases in all.

    InputError where a run has fewer abilities than another, whose mean would be of other tasks.
    """
    rows = frame[frame["metric"].str.startswith("ability:")]
    by = [column for column in frame.columns if column not in RESULTS and column != "metric"]
    groups = rows.groupby(by)
    tasks = groups["metric"].nunique()
    if rows.empty or tasks.min() < rows["metric"].nunique():
        raise InputError(f"records: not every run has the abilities {sorted(set(rows['metric']))}")
    means = groups.agg(n=("n", "sum"), mean=("mean", "mean"), nan_count=("nan_count", "sum")).reset_index()
    return means.assign(metric="ability", lo=np.nan, hi=np.nan)[list(frame.columns)]


def verdict(lo: float, hi: float) -> Literal["holds", "does not hold", "undecided"]:
    """What an interval of a difference says of the claim "the difference is above 0".

    "holds" if lo > 0, "does not hold" if hi <= 0, else "undecided", as with NaN ends. For a claim of "below 0" give
    (-hi, -lo); for one of "above d" give (lo - d, hi - d). Many claims read off one table hold too often.
    """
    if lo > 0:
        return "holds"
    return "does not hold" if hi <= 0 else "undecided"


def text(mean: float, lo: float, hi: float) -> str:
    """An interval as people read it: "0.873 [0.842, 0.899]"; without brackets where there are no ends, or no width.

    Three decimals; four significant digits from 1,000 on and three below 0.001, so that neither kappa nor sigma_min
    is printed as a row of zeros.
    """
    if math.isnan(lo) or math.isnan(hi) or lo == hi:
        return _number(mean)
    return f"{_number(mean)} [{_number(lo)}, {_number(hi)}]"


def table(frame: pd.DataFrame, index: str | Sequence[str], columns: str | Sequence[str]) -> pd.DataFrame:
    """Intervals as text ("0.873 [0.842, 0.899]"), one cell per (index, columns), "" where nothing was measured.

    `frame` is any with mean, lo and hi; InputError where several of its rows would share a cell.
    """
    down, right = ([names] if isinstance(names, str) else list(names) for names in (index, columns))
    cells = _once(frame, [*down, *right])[[*down, *right]].assign(
        text=[text(*row) for row in zip(frame["mean"], frame["lo"], frame["hi"], strict=True)]
    )
    return cells.pivot(index=down, columns=right, values="text").fillna("")


def _across(frame: pd.DataFrame, over: str) -> pd.DataFrame:
    by = [column for column in COMPARABLE if column in frame and column != over]
    rows = []
    for key, group in _once(frame, [*by, over]).groupby(by):
        rows.append((*key, len(group), *student(group["mean"]), int(group["nan_count"].sum())))
    return pd.DataFrame(rows, columns=[*by, "n", "mean", "lo", "hi", "nan_count"])


def _once(frame: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    again = frame[frame.duplicated(key)]
    if len(again):
        which = ", ".join(f"{column} {again[column].iloc[0]}" for column in key)
        raise InputError(f"records: more than one row for {which}; choose among them first")
    return frame


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if abs(value) >= 1000:
        return f"{value:.4g}"
    return f"{value:.3g}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
