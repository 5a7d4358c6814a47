"""Single edits: each request on the unedited weights, scored on its own case."""

from collections.abc import Sequence
from typing import Any

import jax
import pandas as pd
from tqdm import tqdm

from prunejax.contexts import Contexts
from prunejax.editors import editor_row
from prunejax.editors.moments import Moments
from prunejax.evaluate.editing import editing_scores, prepare
from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.requests import EditRequest
from prunejax.spectra import sigma_max, spectrum
from prunejax.update import apply, dense


def single_edits(
    model: Model,
    requests: Sequence[EditRequest],
    editor_name: str,
    settings: Any,
    contexts: Contexts,
    moments: Moments | None,
) -> pd.DataFrame:
    """One row a request and metric (edit, case, metric, before, after): what one edit changes.

    Scores 0-1 of the request's own case before and after; `sigma_max:update` of the update alone and
    `sigma_max:weight`, `kappa:weight`, `frobenius:weight` of the edited matrix, each beside the unedited one's (0 for
    the update). Of several edited matrices it is the one whose update is largest beside its own sigma_max.
    """
    editor = editor_row(editor_name).make(settings)
    weights = {tensor: model.weight(tensor) for tensor in editor.tensors(model)}
    state, batches = editor.init(model, moments), editor.prepare(model, requests, contexts, 1)
    unedited = {tensor: spectrum(weight) for tensor, weight in weights.items()}
    rows = []
    with jax.default_matmul_precision("highest"):
        before = editing_scores(forward_of(model), prepare(model.tokenizer, requests)).set_index(["case", "metric"])
        for number, (request, batch) in enumerate(zip(tqdm(requests, desc="single edits"), batches, strict=True)):
            updates, _, _, _ = editor.step(model, state, batch, jax.random.key(number))
            edited_weights = {tensor: apply(weights[tensor], update) for tensor, update in updates.items()}
            edited = model.with_weights(edited_weights)
            after = editing_scores(forward_of(edited), prepare(model.tokenizer, [request]))
            for case, metric, value in after.itertuples(index=False):
                rows.append((number, case, metric, before.loc[(case, metric), "value"], value))
            sizes = {tensor: sigma_max(dense(update)) for tensor, update in updates.items()}
            largest = max(sizes, key=lambda tensor: sizes[tensor] / unedited[tensor].sigma_max)
            rows.append((number, request.case_id, "sigma_max:update", 0.0, sizes[largest]))
            found = spectrum(edited_weights[largest])
            rows += [
                (number, request.case_id, f"{name}:weight", getattr(unedited[largest], name), getattr(found, name))
                for name in ("sigma_max", "kappa", "frobenius")
            ]
    return pd.DataFrame(rows, columns=["edit", "case", "metric", "before", "after"])
