"""The search for edit settings of an embedded model: single edits of the `tune` pool under every combination."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from prunejax.contexts import Contexts
from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import Moments, load_moments, save_moments, second_moments
from prunejax.errors import InputError
from prunejax.files import write_through
from prunejax.models.checkpoints import Model
from prunejax.requests import EditRequest
from prunejax.single import single_edits
from prunejax.sources import find_requests, find_text

SCORES = ("efficacy_top1", "generalization_top1", "locality_top1")
GOOD = 0.9
"""What each of the three scores must reach."""

N_REQUESTS = 60
BASE = {"steps": 20, "weight_decay": 0.5, "kl_factor": 0.0625, "stop_loss": 0.05}
"""Settings that are not searched: the ROME authors' for GPT-2 XL."""

OF_MEMIT = {"layers": ((0, 1),), "clamp": (0.75,)}
"""What the search for MEMIT found, for editors that share its value step and its layers."""
FINE_TUNING = {"layers": ((0,), (1,)), "lr": (1e-4, 5e-4, 2e-3, 1e-2)}
BOXES = (5e-4, 2e-3, 1e-2)

GRIDS = {
    "rome": {"layers": ((0,), (1,)), "lr": (0.5, 2.0), "clamp": (2.0, 4.0), "ridge": (0.01, 0.1, 1.0)},
    "memit": {
        **{"layers": ((0,), (1,), (0, 1)), "lr": (0.5,), "clamp": (0.75, 2.0, 4.0)},
        **{"moment_weight": (1.0, 10.0, 100.0), "ridge": (0.1, 1.0)},
    },
    "alphaedit": {
        **OF_MEMIT,
        **{"cut": ("relative",), "threshold": (1e-4, 1e-3, 1e-2, 1e-1), "key_ridge": (0.1, 1.0, 10.0)},
    },
    "nse": {
        **OF_MEMIT,
        **{"moment_weight": (100.0,), "ridge": (1.0,), "most": (1e6,)},
        **{"least": (0.0, 5.0, 10.0, 20.0), "keep": (0.8, 1.0)},
    },
    "encore": {
        **OF_MEMIT,
        **{"moment_weight": (100.0,), "ridge": (1.0,), "key_ridge": (1.0, 10.0, 100.0), "patience": (1, 2, 4, 8)},
    },
    "pmet": {
        **OF_MEMIT,
        **{"clamp": (0.75, 2.0, 4.0, 8.0), "lr": (0.2, 0.5), "kl_factor": (0.0625, 1.0)},
        **{"moment_weight": (100.0,), "ridge": (1.0,)},
    },
    "ultraedit": {
        "layers": ((0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)),
        **{"lr": (3e-4, 1e-3, 3e-3, 1e-2), "key_ridge": (1.0, 10.0)},
    },
    "ft-l": {**FINE_TUNING, "box": BOXES},
    "ft-m": {**FINE_TUNING, "box": (0.0, *BOXES)},
}
"""What is searched for each editor; attention reads the subject no further than layer 1 (`evaluate.interchange`), but
UltraEdit edits where the answer is said."""


def tune(model: Model, out: Path, work: Path, editor: str = "rome") -> Path:
    """Write a row a combination of the editor's grid (its settings, n requests, `search`'s numbers) as CSV; returns
    `out`. What is not in the grid is as in BASE, where the editor has it.

    Only requests of `tune`, which no result reports, only single edits, no restraint: nothing that a notebook shows has
    been looked at. Second moments of the layers in the grid are kept in `work`.
    """
    if editor not in GRIDS:
        raise InputError(f"editor {editor!r}: there are grids for {', '.join(GRIDS)}")
    grid = GRIDS[editor]
    layers = sorted({layer for chosen in grid["layers"] for layer in chosen})
    moments = save_moments(
        second_moments(model, find_text("world"), layers, corpus="world"), work / f"moments-{editor}.safetensors"
    )
    requests, contexts = find_requests(f"world/tune:{N_REQUESTS}", seed=0), editor_row(editor).contexts(model, 0)
    known = {field.name for field in fields(editor_row(editor).settings)}
    base = {name: value for name, value in BASE.items() if name in known}
    found = pd.DataFrame(search(model, requests, editor, base, grid, contexts, load_moments(moments)))
    found["layers"] = found["layers"].map(lambda chosen: " ".join(map(str, chosen)))
    return write_through(out, lambda part: found.to_csv(part, index=False, float_format="%.4f"))


def best(found: pd.DataFrame) -> pd.Series:
    """The row whose median update is smallest among those with all three scores at GOOD or better; if there is none,
    the row whose lowest score is highest."""
    lowest = found[list(SCORES)].min(axis=1)
    good = found[lowest >= GOOD]
    return good.loc[good["sigma_median"].idxmin()] if len(good) else found.loc[lowest.idxmax()]


def best_base(summary: pd.DataFrame, n_edits: int) -> tuple[str, pd.Series]:
    """The log map with the highest harmonic mean of mean ability and arg-max efficacy after `n_edits`, averaged over
    request orders, and that mean of every log map. `summary` holds one editor's rows of runs on the tune pool.

    The rule was written before any run on that pool was restrained. The harmonic mean asks for both: a model that keeps
    all abilities and no edit scores 0, and so does the converse.
    """
    rows = summary[(summary["n_edits"] == n_edits) & summary["restraint"].str.startswith("log:")]
    kind = rows["metric"].where(rows["metric"] == "efficacy_top1", rows["metric"].str.partition(":")[0])
    means = rows.groupby(["restraint", "seed", kind])["mean"].mean().unstack()
    both = means[["ability", "efficacy_top1"]]
    harmonic = (2 * both.prod(axis=1) / both.sum(axis=1)).fillna(0.0).groupby("restraint").mean()  # 0 where both are 0
    return str(harmonic.idxmax()), harmonic


def search(
    model: Model,
    requests: Sequence[EditRequest],
    editor_name: str,
    base: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    contexts: Contexts,
    moments: Moments | None,
) -> Iterator[dict[str, Any]]:
    """Every combination of `grid` laid over `base`, with the mean scores of single edits and the largest share of
    sigma_max(W_0) that one update reaches; of an editor that has no single edits, all requests are one batch.

    The criteria are unrestrained and of edits apart, so nothing here has seen a sequence or a restraint. `requests`
    must come from a pool that no result reports.
    """
    batch = len(requests) if editor_row(editor_name).refused("single") else 1
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        settings = settings_of(editor_name, dict(base) | chosen)
        rows = single_edits(model, requests, editor_name, settings, contexts, moments, batch)
        means = rows.groupby("metric")[["before", "after"]].mean()
        updates, weights = (rows[rows["metric"] == f"sigma_max:{matrix}"] for matrix in ("update", "weight"))
        sigma = updates["after"] / weights["before"].to_numpy()
        yield {
            **chosen,
            "n": len(requests),
            **{name: float(means.loc[name, "after"]) for name in SCORES},
            "sigma_median": float(sigma.median()),
            "sigma_largest": float(sigma.max()),
        }
