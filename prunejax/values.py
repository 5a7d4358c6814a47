"""What becomes of the values of the first edits: written once, then moved by every later edit (PRUNE's Figure 5)."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array

from prunejax.errors import InputError
from prunejax.fold import one_edit
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder, Overrides
from prunejax.points import label, sweeps_along
from prunejax.requests import EditRequest
from prunejax.restraint import parse, weight_under
from prunejax.run import Run
from prunejax.tokens import pad_right, tokenize_fact
from prunejax.update import apply

EARLY = 50
"""How many edits, from the first on, are followed."""


def early_values(run: Run, model: Model, edits: Sequence[int], restraints: Sequence[str]) -> pd.DataFrame:
    """Case rows of the first EARLY edits of a run: where their values stand at birth, before any edit, and after n.

    The value v of a fact is what the MLP of the last edited layer adds at the subject's last token of its prompt, the
    key k what its down projection reads there. Edit i gives birth to v_i, the value right after it: rows with n_edits =
    i. Rows with n_edits = 0 are the unedited model's; then come `edits` (each more than EARLY) under `restraints`.

    principal:1, principal:2  coordinates of v - mean in the plane of the two largest principal components of the values
                              at birth, in the residual stream's units; signs are such that the components' largest
                              entries are positive
    value_change              ||v_n - v_i|| / ||v_i||
    key_change                ||k_n - k_i|| / ||k_i||
    value_norm                ||v||, in the residual stream's units

    Misleads: a plane that holds the values at birth best need not show how they move apart from it; value_change does.
    """
    if min(edits, default=EARLY + 1) <= EARLY:
        raise InputError(
            f"edits {min(edits)}: the first {EARLY} are followed from their birth on; ask for later counts"
        )
    first = run.requests[:EARLY]
    layer = max(model.family.kernel_of(tensor)[0] for tensor in run.tensors)
    width = max(len(tokenize_fact(model.tokenizer, one.prompt, one.subject).ids) for one in first)
    weights, born = {tensor: model.weight(tensor) for tensor in run.tensors}, []
    for i in range(len(first)):
        update = one_edit(run, i + 1)
        if update is None:
            raise InputError(f"run {run.folder}: keeps only the sum of edits around {i + 1}, no value at birth")
        weights = {tensor: apply(weight, update[tensor]) for tensor, weight in weights.items()}
        born.append(keys_and_values(model.with_weights(weights), first[i : i + 1], layer, width))
    birth = tuple(np.concatenate(parts) for parts in zip(*born, strict=True))
    plane = principal_plane(birth[1])
    cases = [request.case_id for request in first]
    number = {case: i for i, case in enumerate(cases, 1)}
    born_rows = label(run, frame(cases, birth, birth, plane), parse("none"), 0)
    rows = [
        born_rows.assign(n_edits=born_rows["case"].map(number)),
        label(run, frame(cases, keys_and_values(model, first, layer, width), birth, plane), parse("none"), 0),
    ]
    for n, sweeps in zip(sorted(edits), sweeps_along(run, model, sorted(edits)), strict=True):
        for spec in restraints:
            edited = model.with_weights({t: weight_under(parse(spec), sweep) for t, sweep in sweeps.items()})
            now = keys_and_values(edited, first, layer, width)
            rows.append(label(run, frame(cases, now, birth, plane), parse(spec), n))
    return pd.concat(rows, ignore_index=True)


def summary_of_early(rows: pd.DataFrame) -> pd.DataFrame:
    """The median change over the followed edits at each point after them: case rows of one number each."""
    after = (rows["n_edits"] == 0) | (rows["n_edits"] > EARLY)
    changes = rows[rows["metric"].isin(("value_change", "key_change")) & after]
    by = [column for column in rows.columns if column not in ("case", "value")]
    return changes.groupby(by, as_index=False)["value"].median().assign(case="early")[list(rows.columns)]


def keys_and_values(
    model: Model, requests: Sequence[EditRequest], layer: int, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Keys [n, d_ff] and values [n, d_model], float64, of `layer` at the subject's last token of each request's prompt,
    padded to `width` tokens."""
    facts = [tokenize_fact(model.tokenizer, request.prompt, request.subject) for request in requests]
    tokens, positions = pad_right([fact.ids for fact in facts], width)
    last = np.array([fact.subject_last for fact in facts], np.int32)
    seen = key_and_value(model.decoder, model.overrides, tokens, positions, last, layer)
    return tuple(np.asarray(part, np.float64) for part in seen)


@partial(jax.jit, static_argnames=("layer",))
def key_and_value(
    decoder: Decoder, overrides: Overrides, tokens: Array, positions: Array, last: Array, layer: int
) -> tuple[Array, Array]:
    """Keys [B, d_ff] and values [B, d_model] of `layer` at each row's `last` token, under the edited kernels."""
    run = partial(decoder.run_layers, positions=positions, overrides=overrides)
    residual = run(decoder.embed(tokens, positions), start=0, stop=layer).residual
    taps = run(residual, start=layer, stop=layer + 1, taps=("key", "value")).taps
    rows = jnp.arange(len(tokens))
    return taps["key"][0, rows, last], taps["value"][0, rows, last]


def principal_plane(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [d] of `values` [n, d] and their two largest principal components [2, d]."""
    mean = values.mean(axis=0)
    components = np.linalg.svd(values - mean, full_matrices=False)[2][:2]
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    return mean, components * np.sign(largest)


def frame(
    cases: Sequence[str],
    now: tuple[np.ndarray, np.ndarray],
    birth: tuple[np.ndarray, np.ndarray],
    plane: tuple[np.ndarray, np.ndarray],
) -> pd.DataFrame:
    """Case, metric and value of every case, one metric after the other."""
    mean, components = plane
    measured = dict(zip(("principal:1", "principal:2"), ((now[1] - mean) @ components.T).T, strict=True))
    for name, here, there in zip(("key_change", "value_change"), now, birth, strict=True):
        measured[name] = np.linalg.norm(here - there, axis=1) / np.linalg.norm(there, axis=1)
    measured["value_norm"] = np.linalg.norm(now[1], axis=1)
    return pd.concat(
        [pd.DataFrame({"case": cases, "metric": metric, "value": value}) for metric, value in measured.items()],
        ignore_index=True,
    )
