"""Single edits: each request on the unedited weights, scored on its own case; and the search over settings on
`tune`."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import jax
import pandas as pd
from tqdm import tqdm

from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import Moments
from prunejax.evaluate.editing import editing_scores, prepare
from prunejax.evaluate.forward import forward_of
from prunejax.models.checkpoints import Model
from prunejax.requests import EditRequest
from prunejax.spectra import sigma_max, spectrum
from prunejax.update import apply, dense

SCORES = ("efficacy_top1", "generalization_top1", "locality_top1")


def single_edits(
    model: Model,
    requests: Sequence[EditRequest],
    editor_name: str,
    settings: Any,
    contexts: Sequence[str],
    moments: Moments | None,
) -> pd.DataFrame:
    """One row a request and metric (edit, case, metric, before, after): what one edit changes.

    Scores 0-1 of the request's own case before and after; `sigma_max:update` of the update alone and
    `sigma_max:weight`, `kappa:weight`, `frobenius:weight` of the edited matrix, each beside the unedited one's (0 for
    the update).
    """
    editor = editor_row(editor_name).make(settings)
    (tensor,) = editor.tensors(model)
    weight = model.weight(tensor)
    state, batches = editor.init(model, moments), editor.prepare(model, requests, contexts)
    unedited = spectrum(weight)
    rows = []
    with jax.default_matmul_precision("highest"):
        before = editing_scores(forward_of(model), prepare(model.tokenizer, requests)).set_index(["case", "metric"])
        for number, (request, batch) in enumerate(zip(tqdm(requests, desc="single edits"), batches, strict=True)):
            updates, _, _, _ = editor.step(model, state, batch, jax.random.key(number))
            edited_weight = apply(weight, updates[tensor])
            edited = model.with_weights({tensor: edited_weight})
            after = editing_scores(forward_of(edited), prepare(model.tokenizer, [request]))
            for case, metric, value in after.itertuples(index=False):
                rows.append((number, case, metric, before.loc[(case, metric), "value"], value))
            found = spectrum(edited_weight)
            rows.append((number, request.case_id, "sigma_max:update", 0.0, sigma_max(dense(updates[tensor]))))
            rows += [
                (number, request.case_id, f"{name}:weight", getattr(unedited, name), getattr(found, name))
                for name in ("sigma_max", "kappa", "frobenius")
            ]
    return pd.DataFrame(rows, columns=["edit", "case", "metric", "before", "after"])


def search(
    model: Model,
    requests: Sequence[EditRequest],
    editor_name: str,
    base: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    contexts: Sequence[str],
    moments: Moments | None,
) -> Iterator[dict[str, Any]]:
    """Every combination of `grid` laid over `base`, with the mean scores of single edits and the largest share of
    sigma_max(W_0) that one update reaches.

    The criteria are unrestrained and of single edits, so nothing here has seen a sequence or a restraint. `requests`
    must come from a pool that no result reports.
    """
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        settings = settings_of(editor_name, dict(base) | chosen)
        rows = single_edits(model, requests, editor_name, settings, contexts, moments)
        means = rows.groupby("metric")[["before", "after"]].mean()
        sigma = rows[rows["metric"] == "sigma_max:update"]["after"] / means.loc["sigma_max:weight", "before"]
        yield {
            **chosen,
            **{name: float(means.loc[name, "after"]) for name in SCORES},
            "sigma_median": float(sigma.median()),
            "sigma_largest": float(sigma.max()),
        }
