"""What the notebook on half precision does live: the unedited model and a few edits in one dtype, held against the
records."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from prunejax.grid import ORDERS
from prunejax.half import edit, edited_points, edits_of, held_in, on_text, rows_of
from prunejax.live import NUMBER_TOLERANCE, SCORE_TOLERANCE, Check
from prunejax.models.checkpoints import load_model
from prunejax.records import is_score
from prunejax.scoring import ask
from prunejax.sources import WORLD_FOLDER

ONE_CASE = 1.1
"""Cases: other machines sum half-precision products in another order, which may turn one of few."""


def check_half(records: pd.DataFrame, dtype: str = "bfloat16", n_edits: int = 10, seed: int | None = None) -> Check:
    """Hold the model in `dtype` beside float32 on held-out text, make the first `n_edits` ROME edits in it of a
    recorded order, drawn anew unless `seed` draws it, and hold what is found against `records` (half.csv).

    A score may differ by one case or by SCORE_TOLERANCE, the largest difference of a logit, one of millions, by a
    factor of 2, other numbers by NUMBER_TOLERANCE. What is not on record does not agree.
    """
    order = int(np.random.default_rng(seed).choice(ORDERS))
    world = load_model(WORLD_FOLDER)
    edits = edits_of(world, "rome", order)
    edits = edits._replace(requests=edits.requests[:n_edits], counts=(n_edits,))
    with tempfile.TemporaryDirectory() as folder:
        half = load_model(held_in(dtype, Path(folder)), dtype)
        run = edit(edits, half, Path(folder) / "run")
        points = edited_points(edits, run, half)
        asked = {n_edits: ask(world.tokenizer, edits.requests, ("editing",))}
        live = pd.concat([on_text(dtype, half, world), rows_of(dtype, edits, points, asked)])
    return held_against(records, live)


def held_against(records: pd.DataFrame, live: pd.DataFrame) -> Check:
    """Live summary rows beside the records of the same model, editor, order, edits and metric."""
    key = ["model", "editor", "seed", "n_edits", "metric"]
    both = live[[*key, "n", "mean"]].merge(records[[*key, "mean"]], on=key, how="left", suffixes=("", "_recorded"))
    score = both["metric"].map(is_score).astype(bool)
    difference = (both["mean"] - both["mean_recorded"]).abs() / both["mean_recorded"].where(~score, 1.0)
    tolerance = np.where(score, np.maximum(SCORE_TOLERANCE, ONE_CASE / both["n"]), NUMBER_TOLERANCE)
    ratio = (both["mean"] / both["mean_recorded"]).between(0.5, 2)
    return Check(
        pd.DataFrame(
            {
                "metric": both["metric"],
                "live": both["mean"],
                "recorded": both["mean_recorded"],
                "difference": difference,
                "agrees": np.where(both["metric"] == "drift:logits", ratio, difference <= tolerance),
            }
        )
    )
