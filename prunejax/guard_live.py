"""What the notebook on guards does live: a sequence with a disabling edit in it, guarded or not, and recorded edits
made again."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from prunejax.course import Plan
from prunejax.disabling import RULES, edits_alone, recorded_requests
from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import load_moments
from prunejax.evaluate.abilities import ability_scores, prepare
from prunejax.grid import PRESET
from prunejax.intervals import Interval, student
from prunejax.live import NUMBER_TOLERANCE, Check
from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.models.presets import preset_settings
from prunejax.requests import EditRequest
from prunejax.run import Run
from prunejax.sequence import edit_sequence
from prunejax.sources import WORLD_MOMENTS, find_world
from prunejax.stored import read_state
from prunejax.world.tasks import evaluation_items, guard_text

ITEMS = 125
"""Of each of the four tasks: 500 in all."""


def seeded_runs(
    folder: Path, model: Model, requests: Sequence[EditRequest], disabling: EditRequest, guard: str
) -> dict[str, Run]:
    """Three ROME runs on the embedded world: `unguarded` and `guarded` with the disabling edit in the middle of the
    requests, and `without` it."""
    row, settings = editor_row("rome"), settings_of("rome", preset_settings(PRESET, "rome"))
    moments = load_moments(WORLD_MOMENTS, row.make(settings).tensors(model))
    contexts, middle = row.contexts(model, 0), len(requests) // 2
    seeded = (*requests[:middle], disabling, *requests[middle:])

    def edit(name: str, asked: Sequence[EditRequest], spec: str = "") -> Run:
        plan, text = Plan("rome", settings, guard=spec), guard_text() if spec else ()
        return edit_sequence(folder / name, model, asked, plan, contexts, moments, text)

    return {
        "unguarded": edit("unguarded", seeded),
        "guarded": edit("guarded", seeded, guard),
        "without": edit("without", requests),
    }


def item_scores(model: Model, runs: Mapping[str, Run]) -> pd.DataFrame:
    """Scores 0-1 of the same ITEMS of each task, a row an item, a column a run as it ended; NaN, of a collapsed model,
    is 0."""
    exam = prepare(model.tokenizer, evaluation_items(find_world(), ITEMS))
    columns = {}
    for name, run in runs.items():
        edited = model.with_weights(read_state(run, run.n_edits))
        columns[name] = ability_scores(forward_of(edited), exam).set_index(["metric", "case"])["value"].fillna(0.0)
    return pd.DataFrame(columns)


def apart(scores: pd.DataFrame, one: str, other: str) -> Interval:
    """The mean over items of one run's score less the other's, with its t interval. Equal runs have no interval: then
    mean and ends are 0."""
    differences = (scores[one] - scores[other]).to_numpy()
    return student(differences) if differences.any() else Interval(0.0, 0.0, 0.0)


def check_edits_alone(records: pd.DataFrame, model: Model, number: int, seed: int | None = None) -> Check:
    """`number` of the recorded requests, drawn anew each time unless `seed` draws them, edited again by a rule drawn
    with them, beside the records of `disabling`."""
    rng = np.random.default_rng(seed)
    rule, requests = str(rng.choice(RULES)), recorded_requests(model)
    drawn = [requests[i] for i in rng.choice(len(requests), number, replace=False)]
    key = ["case", "metric", "n_edits"]
    recorded = records[records["editor"] == rule][[*key, "value"]]
    live = edits_alone(model, WORLD_MOMENTS, rule, drawn)
    both = live[[*key, "value"]].merge(recorded, on=key, how="left", suffixes=("", "_recorded"))
    difference = (both["value"] - both["value_recorded"]).abs() / both["value_recorded"].abs()
    rows = both.rename(columns={"value": "live", "value_recorded": "recorded"})[["case", "metric", "live", "recorded"]]
    return Check(rows.assign(difference=difference, agrees=difference <= NUMBER_TOLERANCE))
