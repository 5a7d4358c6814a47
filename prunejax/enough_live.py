"""What the notebook on second moments does live: few keys, one seed, held against the records."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from prunejax.editors.moments import load_moments
from prunejax.enough import nested_moments
from prunejax.enough_records import SEEDS, edit_rows, moment_rows, world_trial
from prunejax.live import NUMBER_TOLERANCE, Check
from prunejax.models.checkpoints import Model
from prunejax.records import is_score
from prunejax.sources import WORLD_MOMENTS

SHARES = (5, 10)
"""Keys a dimension; with fewer the condition number is one at which the last bits of a float32 show."""
CASE_TOLERANCE = 0.05
"""Two requests of 40: another machine's rounding may turn one where an edit is close."""


def check_enough(records: pd.DataFrame, model: Model, shares: Sequence[int] = SHARES, seed: int | None = None) -> Check:
    """Shuffle the world's text by one of the recorded seeds, drawn anew each time unless `seed` draws it, take second
    moments of `shares` (ascending) times d_ff keys, and hold what they do to keys against the embedded model's rows in
    `records` (enough.csv); of the last of them also edits with the preset's ridge.

    The second moment of all of the text is the committed one, which was collected in another order.
    """
    drawn = int(np.random.default_rng(seed).choice(SEEDS))
    trial = world_trial(model, [drawn])
    (tensor,) = trial.edits.settings.tensors(model)
    whole = load_moments(WORLD_MOMENTS, [tensor]).of(tensor)
    counts = [share * model.config.d_ff for share in shares]
    moments = list(nested_moments(model, trial.texts, trial.layer, counts, drawn))
    live = list(moment_rows(model, [*moments, whole], trial._replace(edits=None), drawn))
    ridge, key = trial.ridges[-1], {"settings": f"ridge={trial.ridges[-1]:g}", "keys": moments[-1].count}
    made = edit_rows(model, trial.requests[drawn], trial.edits, ridge, moments[-1])
    live += [key | row for row in made]
    return held_against(records, pd.DataFrame(live), model.name, drawn)


def held_against(records: pd.DataFrame, live: pd.DataFrame, model: str, seed: int) -> Check:
    """Live moment rows of a model and seed beside the records of the same key; one that is not on record does not
    agree."""
    key = ["settings", "keys", "metric"]
    here = records[(records["model"] == model) & (records["seed"] == seed)]
    both = live[[*key, "mean"]].merge(here[[*key, "mean"]], on=key, how="left", suffixes=("", "_recorded"))
    score = both["metric"].map(is_score).astype(bool)
    difference = (both["mean"] - both["mean_recorded"]).abs() / both["mean_recorded"].abs().where(~score, 1.0)
    return Check(
        pd.DataFrame(
            {
                "metric": both["settings"] + " " + both["keys"].astype(str) + " " + both["metric"],
                "live": both["mean"],
                "recorded": both["mean_recorded"],
                "difference": difference,
                "agrees": difference <= np.where(score, CASE_TOLERANCE, NUMBER_TOLERANCE),
            }
        )
    )
