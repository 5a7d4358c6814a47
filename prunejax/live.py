"""What a notebook does live: a short slice of edits and the scores of a stored state, held against the records."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from prunejax.errors import InputError
from prunejax.grid import EDITOR_FILES, SERIES, SINGLE, series_named
from prunejax.intervals import summarize
from prunejax.models.checkpoints import Model
from prunejax.points import evaluate_run, spectra_of_run
from prunejax.records import CASE_COLUMNS, Provenance, is_score, read_records
from prunejax.requests import EditRequest, draw
from prunejax.restraint import parse, restrained_weight
from prunejax.run import Run
from prunejax.scoring import TASKS, score_model
from prunejax.series import Series
from prunejax.sources import find_records, find_world
from prunejax.spectra import sigma_max
from prunejax.study import edit_run, model_of_seed, single_cases
from prunejax.update import Dense
from prunejax.values import EARLY, keys_and_values
from prunejax.world.facts import edit_requests

SCORE_TOLERANCE = 0.02
"""Scores count cases: another machine's rounding may turn one or two of 300 items, not more."""

NUMBER_TOLERANCE = 0.02
"""Relative, for perplexity and singular values."""


def editor_records(source: str, name: str) -> pd.DataFrame:
    """The rows of all three editors' files of that name ("evaluation", "spectra", "ages") in the records that `source`
    names, one under the other."""
    paths = [find_records(source) / f"{files}{name}.csv" for files in EDITOR_FILES.values()]
    return pd.concat([read_records(path) for path in paths], ignore_index=True)


def under(frame: pd.DataFrame, restraints: Mapping[str, Collection[str]]) -> pd.DataFrame:
    """The rows of each editor under its own restraints."""
    kept = [spec in restraints[editor] for editor, spec in zip(frame["editor"], frame["restraint"], strict=True)]
    return frame[kept]


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
    name: str = SERIES[0].name,
) -> Check:
    """Score a stored state W_n again, restrained to W_0 + F(W_n - W_0), and hold it against the records of the first
    run at that point. `name` is the series' in `grid.SERIES`; a state of one that is restrained during the run is
    scored as it is, under the restraint that labels the rows ("log:e@50").

    `records` is evaluation.csv. A record moved by more than the tolerance, or a restraint mixed up with another, does
    not agree.
    """
    series = series_named(name)
    weights = stored_weights(states, model, n_edits, "none" if restraint == series.during else restraint)
    scored = score_model(model.with_weights(weights), requests, tasks)
    rows = scored.assign(editor=series.editor, restraint=restraint, n_edits=n_edits, seed=series.orders[0])
    live = summarize(rows[list(CASE_COLUMNS)], Provenance("live", series.model, "", series.editor, "", 1))
    return compare(live, records, series, series.orders[0], n_edits, restraint)


def check_slice(
    records: pd.DataFrame, spectra: pd.DataFrame, n_edits: int = 10, seed: int | None = None, name: str = SERIES[0].name
) -> Check:
    """Edit the first `n_edits` (at most 20) requests of a randomly chosen order from the unedited weights, and hold
    scores, and spectra where any are on record after so many, against the records of that run. `name` is the series'
    in `grid.SERIES`.

    Which order is drawn anew each time unless `seed` says; a record that no longer follows from the code is found.
    """
    if not 1 <= n_edits <= 20:
        raise InputError(f"a live slice has 1 to 20 edits, not {n_edits}")
    series = series_named(name)
    order = int(np.random.default_rng(seed).choice(series.orders))
    model, moments = model_of_seed(series.pretraining_seed, Path("build"))
    with tempfile.TemporaryDirectory() as folder:
        run: Run = edit_run(series, order, model, moments, Path(folder), n_edits)
        scores = evaluate_run(run, model, [n_edits], ["none"], TASKS)
        found = spectra_of_run(run, model, [n_edits], ["none"]) if n_edits in set(spectra["n_edits"]) else None
    restraint = series.during or "none"
    both = [compare(scores, records, series, order, n_edits, restraint).rows]
    if found is not None:
        both.append(compare(found, spectra, series, order, n_edits, restraint).rows)
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


def check_values(values: pd.DataFrame, states: Path, model: Model, n_edits: int) -> Check:
    """The values of the first edits under a stored state W_n again, and the norm of each against its case row.

    `values` is values.csv, the case rows of the first run's `values.early_values`.
    """
    series = SERIES[0]
    requests = draw(edit_requests(find_world(), series.pool), EARLY, series.orders[0])
    weights = stored_weights(states, model, n_edits)
    layer = max(model.family.kernel_of(tensor)[0] for tensor in weights)
    _, found = keys_and_values(model.with_weights(weights), requests, layer)
    here = (values["n_edits"] == n_edits) & (values["restraint"] == "none") & (values["metric"] == "value_norm")
    recorded = values[here].set_index("case")["value"].reindex([request.case_id for request in requests])
    live = np.linalg.norm(found, axis=1)
    difference = np.abs(live - recorded.to_numpy()) / recorded.to_numpy()
    rows = {"metric": [f"{case} value_norm" for case in recorded.index], "live": live, "recorded": recorded.to_numpy()}
    return Check(pd.DataFrame(rows | {"difference": difference, "agrees": difference <= NUMBER_TOLERANCE}))


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
        & (records["editor"] == (series.label or series.editor))
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
