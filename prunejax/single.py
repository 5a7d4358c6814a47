"""Edits apart: each request, or each batch of them, on the unedited weights, scored on its own cases."""

from collections.abc import Sequence
from typing import Any

import jax
import pandas as pd
from tqdm import tqdm

from prunejax.contexts import Contexts
from prunejax.editing import edit_batch
from prunejax.editors import editor_row
from prunejax.editors.moments import Moments
from prunejax.errors import InputError
from prunejax.evaluate.editing import editing_scores, prepare
from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.records import CASE_COLUMNS, ordered
from prunejax.requests import EditRequest
from prunejax.spectra import sigma_max, spectrum
from prunejax.update import dense


def single_edits(
    model: Model,
    requests: Sequence[EditRequest],
    editor_name: str,
    settings: Any,
    contexts: Contexts,
    moments: Moments | None,
    batch: int = 1,
) -> pd.DataFrame:
    """One row a request and metric (edit, case, metric, before, after): what one edit changes, or one batch.

    Scores 0-1 of the request's own case before and after; `sigma_max:update` of the update alone and
    `sigma_max:weight`, `kappa:weight`, `frobenius:weight` of the edited matrix, each beside the unedited one's (0 for
    the update), once a batch under its first case. Of several edited matrices it is the one whose update is largest
    beside its own sigma_max. InputError for an editor that has not this regime, with the reason.
    """
    row = editor_row(editor_name)
    if refused := row.refused("single" if batch == 1 else "batched"):
        raise InputError(f"editor {editor_name}: cannot edit {batch} at a time; {refused}")
    editor = row.make(settings)
    weights = {tensor: model.weight(tensor) for tensor in editor.tensors(model)}
    state, batches = editor.init(model, moments, batch), editor.prepare(model, requests, contexts, batch)
    unedited = {tensor: spectrum(weight) for tensor, weight in weights.items()}
    rows = []
    with jax.default_matmul_precision("highest"):
        before = editing_scores(forward_of(model), prepare(model.tokenizer, requests)).set_index(["case", "metric"])
        for number, one in enumerate(tqdm(batches, desc="edits apart")):
            mine = requests[number * batch : (number + 1) * batch]
            edited = edit_batch(editor, model, weights, state, one, jax.random.key(number))
            forward = editor.answer(model.with_weights(edited.weights), edited.memory)
            after = editing_scores(forward, prepare(model.tokenizer, mine))
            for case, metric, value in after.itertuples(index=False):
                rows.append((number, case, metric, before.loc[(case, metric), "value"], value))
            sizes = {tensor: sigma_max(dense(update)) for tensor, update in edited.updates.items()}
            largest = max(sizes, key=lambda tensor: sizes[tensor] / unedited[tensor].sigma_max)
            rows.append((number, mine[0].case_id, "sigma_max:update", 0.0, sizes[largest]))
            found = spectrum(edited.weights[largest])
            rows += [
                (number, mine[0].case_id, f"{name}:weight", getattr(unedited[largest], name), getattr(found, name))
                for name in ("sigma_max", "kappa", "frobenius")
            ]
    return pd.DataFrame(rows, columns=["edit", "case", "metric", "before", "after"])


def as_cases(edits: pd.DataFrame, editor: str, seed: int) -> pd.DataFrame:
    """Case rows of `single_edits`: scores and sigma_max with n_edits 0 before and 1 after an edit. sigma_max at 0 is
    that of W_0, at 1 that of the update alone."""
    sizes = edits[edits["metric"] == "sigma_max:update"].assign(metric="sigma_max")
    sizes["before"] = edits.loc[edits["metric"] == "sigma_max:weight", "before"].iloc[0]
    kept = pd.concat([edits[~edits["metric"].str.contains(":")], sizes])
    sides = [kept.assign(n_edits=n, value=kept[side]) for n, side in ((0, "before"), (1, "after"))]
    rows = pd.concat(sides).assign(editor=editor, restraint="none", seed=seed)
    return ordered(rows[list(CASE_COLUMNS)])
