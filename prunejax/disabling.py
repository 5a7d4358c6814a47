"""Which single edits break a model: each request edited alone on the unedited weights, and how surprised the model is
then. On record for ROME as published and r-ROME, on requests of the world and on subjects that open a text."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from tqdm import tqdm

from prunejax.editing import edit_batch
from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import load_moments
from prunejax.evaluate.perplexity import perplexity, prepare
from prunejax.grid import PRESET
from prunejax.models.checkpoints import Model, load_model
from prunejax.models.forward import forward_of
from prunejax.models.presets import preset_settings
from prunejax.records import CASE_COLUMNS, ordered, write_records
from prunejax.requests import EditRequest
from prunejax.series import POOL
from prunejax.sources import WORLD_FOLDER, WORLD_MOMENTS, find_requests, find_text
from prunejax.spectra import spectrum
from prunejax.update import dense
from prunejax.world.tasks import held_out_text

FILE = "disabling_cases.csv"
RULES = ("rome", "r-rome")
EACH = 200
"""Requests of the world, and as many with a subject that opens a text."""
OPENS = "opens"
"""How the cases of the latter begin."""


def opening_words(model: Model, texts: Iterable[str]) -> list[str]:
    """The words of the texts that are one token where they open a text, in alphabetical order.

    Such a subject has two kinds of key: at the bare prompt it is the first token and sees nothing but itself, after a
    context it is a token like others.
    """
    words = sorted({word for text in texts for word in re.findall(r"[A-Za-z]{2,}", text)})
    return [word for word in words if len(model.tokenizer(word)["input_ids"]) == 1]


def opening_requests(model: Model, texts: Iterable[str], requests: Sequence[EditRequest]) -> list[EditRequest]:
    """A request a target of `requests`, "WORD is TARGET", the words drawn from `opening_words` by seed 0."""
    words = np.random.default_rng(0).permutation(opening_words(model, texts))
    return [
        EditRequest(f"{OPENS}:{word}", "{} is", str(word), request.target_new)
        for word, request in zip(words, requests, strict=False)
    ]


def edits_alone(model: Model, moments: Path, editor: str, requests: Sequence[EditRequest]) -> pd.DataFrame:
    """Case rows, n_edits 1, of each request edited alone: `perplexity` of the held-out text, `denominator` |k . u|, and
    `frobenius`, the norm of the update; and the perplexity before, n_edits 0.

    The settings are those of the embedded world, the contexts those of seed 0: a denominator is one of these contexts.
    """
    row = editor_row(editor)
    made = row.make(settings_of(editor, preset_settings(PRESET, editor)))
    weights = {tensor: model.weight(tensor) for tensor in made.tensors(model)}
    state = made.init(model, load_moments(moments, made.tensors(model)), 1)
    batches = made.prepare(model, requests, row.contexts(model, 0), 1)
    text = prepare(model.tokenizer, held_out_text())
    rows = [("all", "perplexity", perplexity(forward_of(model), text), 0)]
    with jax.default_matmul_precision("highest"):
        for request, batch in zip(tqdm(requests, desc=editor, unit="edit"), batches, strict=True):
            edited = edit_batch(made, model, weights, state, batch, jax.random.key(0))
            (update,) = edited.updates.values()
            found = {
                "perplexity": perplexity(forward_of(model.with_weights(edited.weights)), text),
                "denominator": float(abs(edited.diagnostics["denominator"])),
                "frobenius": spectrum(dense(update)).frobenius,
            }
            rows += [(request.case_id, metric, value, 1) for metric, value in found.items()]
    frame = pd.DataFrame(rows, columns=["case", "metric", "value", "n_edits"])
    return ordered(frame.assign(editor=editor, restraint="none", seed=0)[list(CASE_COLUMNS)])


def recorded_requests(model: Model) -> list[EditRequest]:
    """The requests on record: EACH of the world's, by seed 0, and EACH that open."""
    requests = find_requests(f"world/{POOL}:{EACH}", 0)
    return [*requests, *opening_requests(model, find_text("world"), requests)]


def disabling_records(out: Path) -> Path:
    """Write the case rows of every rule into `out`; returns the file."""
    model = load_model(WORLD_FOLDER)
    requests = recorded_requests(model)
    rows = [edits_alone(model, WORLD_MOMENTS, rule, requests) for rule in RULES]
    return write_records(out / FILE, ordered(pd.concat(rows, ignore_index=True)))


def disabling_study(out: Path, runs: Path, each: Callable[..., Iterable[Path]]) -> Iterable[Path]:
    """`disabling_records`, which is made in one piece, by one of the workers, from now on."""
    del runs
    return each(disabling_records, [out])


def disabling_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row an edit on record: editor, case, `opens` (its subject opens the text), `ratio` (perplexity over the
    unedited model's), `denominator`, `frobenius`."""
    unedited = rows.loc[rows["n_edits"] == 0, "value"].iloc[0]
    edits = rows[rows["n_edits"] == 1].pivot(index=["editor", "case"], columns="metric", values="value").reset_index()
    found = edits.assign(ratio=edits["perplexity"] / unedited, opens=edits["case"].str.startswith(OPENS))
    return found[["editor", "case", "opens", "ratio", "denominator", "frobenius"]]
