"""What a notebook does live: a short slice of edits and the scores of a stored state, held against the records."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from prunejax.errors import InputError
from prunejax.grid import SERIES, SINGLE, Series
from prunejax.intervals import summarize
from prunejax.models.checkpoints import Model
from prunejax.points import TASKS, evaluate_run, score_model, spectra_of_run
from prunejax.records import CASE_COLUMNS, Provenance, is_score
from prunejax.requests import EditRequest
from prunejax.restraint import parse, restrained_weight
from prunejax.run import Run
from prunejax.spectra import sigma_max
from prunejax.study import edit_run, model_of_seed, single_cases
from prunejax.update import Dense

SCORE_TOLERANCE = 0.02
"""Scores count cases: another machine's rounding may turn one or two of 300 items, not more."""

NUMBER_TOLERANCE = 0.02
"""Relative, for perplexity and singular values."""


class Check(NamedTuple):
    """A live result beside its record: metric, live, recorded, difference (relative for numbers), agrees."""

    rows: pd.DataFrame

    @property
    def agrees(self) -> bool:
        """Whether every number lies within the tolerance of its record."""
        return bool(self.rows["agrees"].all())


def check_state(
    records: pd.DataFrame,
    states: Path,
    model: Model,
    n_edits: int,
    restraint: str,
    tasks: Sequence[str] = ("abilities", "perplexity"),
    requests: Sequence[EditRequest] = (),
) -> Check:
    """Score a stored state W_n again, restrained to W_0 + F(W_n - W_0), and hold it against the records of the first
    run at that point.

    `records` is evaluation.csv. A record moved by more than the tolerance, or a restraint mixed up with another, does
    not agree.
    """
    weights = stored_weights(states, model, n_edits, restraint)
    scored = score_model(model.with_weights(weights), requests, tasks)
    series = SERIES[0]
    rows = scored.assign(editor=series.editor, restraint=restraint, n_edits=n_edits, seed=series.orders[0])
    live = summarize(rows[list(CASE_COLUMNS)], Provenance("live", series.model, "", series.editor, "", 1))
    return compare(live, records, series, series.orders[0], n_edits, restraint)


def check_slice(
    records: pd.DataFrame, spectra: pd.DataFrame, n_edits: int = 10, seed: int | None = None, name: str = SERIES[0].name
) -> Check:
    """Edit the first `n_edits` (at most 20) requests of a randomly chosen order from the unedited weights, and hold
    scores and spectra against the records of that run. `name` is the series' in `grid.SERIES`.

    Which order is drawn anew each time unless `seed` says; a record that no longer follows from the code is found.
    """
    if not 1 <= n_edits <= 20:
        raise InputError(f"a live slice has 1 to 20 edits, not {n_edits}")
    (series,) = (series for series in SERIES if series.name == name)
    order = int(np.random.default_rng(seed).choice(series.orders))
    model, moments = model_of_seed(series.pretraining_seed, Path("build"))
    with tempfile.TemporaryDirectory() as folder:
        run: Run = edit_run(series, order, model, moments, Path(folder), n_edits)
        scores = evaluate_run(run, model, [n_edits], ["none"], TASKS)
        found = spectra_of_run(run, model, [n_edits], ["none"])
    both = [
        compare(scores, records, series, order, n_edits, "none").rows,
        compare(found, spectra, series, order, n_edits, "none").rows,
    ]
    return Check(pd.concat(both, ignore_index=True))


def check_single(cases: pd.DataFrame, n_edits: int = 10, seed: int | None = None) -> Check:
    """Make some of the recorded single edits again, drawn anew each time unless `seed` says, and hold every score and
    update size against its case row."""
    series = SERIES[0]
    numbers = np.sort(np.random.default_rng(seed).choice(SINGLE, n_edits, replace=False))
    model, moments = model_of_seed(series.pretraining_seed, Path("build"))
    key = ["n_edits", "case", "metric"]
    made = single_cases(series, numbers, model, moments)
    both = made[[*key, "value"]].merge(cases[[*key, "value"]], on=key, how="left", suffixes=("", "_recorded"))
    size = both["metric"] == "sigma_max"
    difference = (both["value"] - both["value_recorded"]).abs() / both["value_recorded"].where(size, 1.0)
    agrees = difference <= np.where(size, NUMBER_TOLERANCE, SCORE_TOLERANCE)
    named = both["case"] + " " + both["metric"]
    return Check(
        pd.DataFrame(
            {
                "metric": named,
                "live": both["value"],
                "recorded": both["value_recorded"],
                "difference": difference,
                "agrees": agrees,
            }
        )
    )


def stored_weights(states: Path, model: Model, n_edits: int, restraint: str = "none") -> dict[str, jnp.ndarray]:
    """W_0 + F(W_n - W_0) from the stored W_n, by tensor name."""
    weights = {}
    for name, stored in load_file(states).items():
        n, _, tensor = name.partition(".")
        if int(n) == n_edits:
            original = model.weight(tensor)
            update = Dense(jnp.asarray(stored) - original)
            weights[tensor] = restrained_weight(parse(restraint), original, update, sigma_max(original))
    if not weights:
        raise InputError(f"states {states}: none after {n_edits} edits")
    return weights


def compare(
    live: pd.DataFrame, records: pd.DataFrame, series: Series, order: int, n_edits: int, restraint: str
) -> Check:
    """Live summary rows beside the recorded rows of the same point; a metric that is not on record is an error."""
    point = records[
        (records["model"] == series.model)
        & (records["editor"] == series.editor)
        & (records["seed"] == order)
        & (records["n_edits"] == n_edits)
        & (records["restraint"] == restraint)
    ].set_index("metric")["mean"]
    rows = []
    for metric, value in zip(live["metric"], live["mean"], strict=True):
        if metric not in point.index:
            raise InputError(f"records: no {metric} of order {order} after {n_edits} edits under {restraint}")
        recorded = point[metric]
        number = not is_score(metric)
        scale = abs(recorded) if number and recorded and np.isfinite(recorded) else 1.0
        difference = 0.0 if value == recorded else abs(value - recorded) / scale  # inf, a singular weight, is one value
        same = difference <= (NUMBER_TOLERANCE if number else SCORE_TOLERANCE) or (
            np.isnan(value) and np.isnan(recorded)
        )
        rows.append((metric, value, recorded, difference, bool(same)))
    return Check(pd.DataFrame(rows, columns=["metric", "live", "recorded", "difference", "agrees"]))
