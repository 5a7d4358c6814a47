"""A model in the middle of a run as its guard sees it: perplexity of a small text, norm of the update, edits held."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array

from prunejax.errors import InputError
from prunejax.evaluate.likelihood import Completions, lay_out, likelihoods
from prunejax.evaluate.perplexity import perplexity, prepare
from prunejax.files import read_text, write_atomic
from prunejax.guard import Guard, Look
from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.requests import EditRequest
from prunejax.run import Run
from prunejax.tokens import CompletionTokens, tokenize_completion

HELD = 100
"""Of the edits so far at most this many, evenly spread, are asked whether they are held."""


class Watch(NamedTuple):
    """A guard with what it looks at, laid out once a run: its text, every request's prompt and target in tokens, the
    unedited tensors, and the perplexity of the unedited model."""

    guard: Guard
    text: Completions
    asked: tuple[CompletionTokens, ...]
    original: Mapping[str, Array]
    unedited: float


def watch_of(
    guard: Guard, model: Model, requests: Sequence[EditRequest], tensors: Sequence[str], text: Sequence[str]
) -> Watch:
    """What the guard of a run of these requests needs. InputError where the text has no two tokens in a row, is too
    long for the model, or says nothing to it."""
    if not text:
        raise InputError("guard: it has no text to look at; give it some")
    laid = prepare(model.tokenizer, text)
    with jax.default_matmul_precision("highest"):
        unedited = perplexity(forward_of(model), laid)
    if not np.isfinite(unedited):
        raise InputError(
            f"guard: perplexity of its text is {unedited} before any edit; give the model, or a text, whole"
        )
    asked = (tokenize_completion(model.tokenizer, r.full_prompt, r.target_new) for r in requests)
    return Watch(guard, laid, tuple(asked), {tensor: model.weight(tensor) for tensor in tensors}, unedited)


def text_digest(text: Sequence[str]) -> str:
    """SHA-256 of a guard's texts, order included, as 64 hex digits."""
    return hashlib.sha256(json.dumps(list(text)).encode()).hexdigest()


def look_at(
    watch: Watch,
    model: Model,
    weights: Mapping[str, Array],
    kept: Sequence[int],
    noted: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Look:
    """The model with these edited tensors: `kept` are the numbers, from 0, of the edits that are in them, `noted` the
    diagnostics of the edits since the last look.

    Its cost is two small forward passes, about that of an edit or two.
    """
    forward = forward_of(model.with_weights(weights))
    chosen = kept if len(kept) <= HELD else [kept[i] for i in np.linspace(0, len(kept) - 1, HELD).round().astype(int)]
    with jax.default_matmul_precision("highest"):
        found = perplexity(forward, watch.text)
        held = likelihoods(forward, lay_out([watch.asked[i] for i in chosen])) if chosen else None
    norms = [float(relative_change(weights[tensor], original)) for tensor, original in watch.original.items()]
    divided = np.abs(noted.get("denominator", []))
    return Look(
        perplexity=found,
        ratio=found / watch.unedited,
        norm=float(np.max(norms)),
        denominator=float(np.min(divided)) if len(divided) else np.nan,
        held=float(np.mean(held.top1 & np.isfinite(held.nll))) if held else np.nan,
    )


@jax.jit
def relative_change(weight: Array, original: Array) -> Array:
    """||W_n - W_0||_F / ||W_0||_F."""
    return jnp.linalg.norm(weight - original) / jnp.linalg.norm(original)


def read_looks(path: Path) -> pd.DataFrame:
    """The rows of a guard.csv: `edits`, the fields of `Look`, and `alarm`, "" where nothing was past a threshold."""
    try:
        rows = pd.read_csv(io.StringIO(read_text(path, "guard")), keep_default_na=False)
        numbers = {name: rows[name].astype(float) for name in Look._fields}
        return rows.assign(edits=rows["edits"].astype(int), **numbers)[["edits", *Look._fields, "alarm"]]
    except (ValueError, KeyError) as error:
        raise InputError(f"guard {path}: no table of looks ({error})") from None


def write_look(run: Run, edits: int, look: Look, alarm: str = "") -> Path:
    """guard.csv, one row a look: the count of edits and the fields of `Look`, and what was past a threshold. Rows of
    later edits, left by a run that was cut, are made anew."""
    path = run.folder / "guard.csv"
    rows = pd.DataFrame([{"edits": edits, **look._asdict(), "alarm": alarm}])
    if path.exists():
        earlier = read_looks(path)
        rows = pd.concat([earlier[earlier["edits"] < edits], rows])
    return write_atomic(path, rows.to_csv(index=False, float_format="%.9g", na_rep="NaN", lineterminator="\n"))
