"""Single edits: each request on the unedited weights, scored on its own case."""

from collections.abc import Sequence
from typing import Any

import jax
import pandas as pd
from tqdm import tqdm

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
