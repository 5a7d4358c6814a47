"""Editing scores: the definitions, case by case, on models whose answers are known, and against the peers' numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from prunejax.evaluate.editing import NO_RIVAL, editing_scores, prepare
from prunejax.evaluate.likelihood import lay_out, likelihoods
from prunejax.models.checkpoints import Model, load_model
from prunejax.models.forward import Forward, forward_of
from prunejax.records import CASE_COLUMNS, check
from prunejax.requests import EditRequest, Probe, read_requests
from prunejax.tokens import tokenize_completion

FRANCE = EditRequest(
    case_id="france",
    prompt="The capital of {} is",
    subject="France",
    target_new="Rome",
    target_true="Paris",
    paraphrases=("I think that the capital of France is", "Ada Lovelace lives in"),
    neighbors=(Probe("The capital of Chad is", "Paris"), Probe("The capital of Spain is", "Madrid")),
    portability=(Probe("Marie Curie lives in", "Rome"),),
)
ADA = EditRequest("ada", "The mother tongue of {} is", "Ada Lovelace", "Polish")


def follow(table, tokens, positions, cache, columns):
    """A model that reads one token only: `table[token]` are its logits."""
    logits = jnp.take(table, tokens, axis=0)
    return logits if columns is None else jnp.take_along_axis(logits, columns[..., None], axis=1), cache


def nothing(table, rows, capacity):
    raise AssertionError("scores need no cache")


def saying(tokenizer, *answers: str) -> Forward:
    """A model that says the tokens of these answers, in their order, whatever is asked; the first answer loudest."""
    table = np.zeros((len(tokenizer), len(tokenizer)), np.float32)
    for loudness, answer in zip((20.0, 10.0), answers, strict=False):
        ids = tokenizer(f" {answer}")["input_ids"]
        table[:, ids[0]] += loudness
        for token, following in pairwise(ids):
            table[token, following] += 100.0
    return Forward(follow, nothing, 64, jnp.asarray(table))


def values(rows: pd.DataFrame, case: str = "france") -> dict[str, float]:
    return rows[rows["case"] == case].set_index("metric")["value"].to_dict()


def test_a_model_that_says_the_new_target_everywhere(tiny_model: Model) -> None:
    rows = editing_scores(saying(tiny_model.tokenizer, "Rome"), prepare(tiny_model.tokenizer, [FRANCE, ADA], tokens=32))
    assert values(rows) == {
        "efficacy": 1,
        "efficacy_top1": 1,
        "generalization": 1,
        "generalization_top1": 1,
        "locality": 0,
        "locality_top1": 0,
        "portability": 1,
    }
    assert values(rows, "ada") == {"efficacy_top1": 0}, "nothing to compare with, no probes"


def test_a_model_that_says_the_truth_everywhere(tiny_model: Model) -> None:
    rows = editing_scores(saying(tiny_model.tokenizer, "Paris"), prepare(tiny_model.tokenizer, [FRANCE], tokens=32))
    found = values(rows)
    assert found["efficacy"] == found["generalization"] == found["generalization_top1"] == found["portability"] == 0
    assert found["locality_top1"] == 0.5, "averaged over the two neighbours"


def test_the_likelier_of_two_answers_need_not_be_said(tiny_model: Model) -> None:
    loud = saying(tiny_model.tokenizer, "Madrid", "Rome")
    found = values(editing_scores(loud, prepare(tiny_model.tokenizer, [FRANCE], tokens=32)))
    assert (found["efficacy"], found["efficacy_top1"]) == (1, 0)
    assert (found["locality"], found["locality_top1"]) == (0.5, 0.5)


def test_a_tie_is_a_failure(tiny_model: Model) -> None:
    flat = Forward(follow, nothing, 64, jnp.zeros((len(tiny_model.tokenizer),) * 2))
    found = values(editing_scores(flat, prepare(tiny_model.tokenizer, [FRANCE], tokens=32)))
    assert set(found.values()) == {0}


@pytest.fixture(scope="module")
def scaled(tiny_model: Model) -> Callable[[float], Forward]:
    """The tiny model with one edited kernel, scaled by a number: one program for all numbers."""
    name = "transformer.h.1.mlp.c_proj.weight"
    return lambda scale: forward_of(tiny_model.with_weights({name: tiny_model.weight(name) * scale}))


def test_scores_are_the_definitions_prompt_by_prompt(tiny_model: Model, scaled: Callable[[float], Forward]) -> None:
    forward = scaled(1.5)
    swapped = replace(FRANCE, case_id="swapped", target_new="Madrid", target_true="Rome")
    rows = editing_scores(forward, prepare(tiny_model.tokenizer, [FRANCE, swapped], tokens=32))

    stated, near = "The capital of France is", [probe.prompt for probe in FRANCE.neighbors]
    asked = [(p, a) for p in (stated, *FRANCE.paraphrases, *near) for a in ("Rome", "Paris", "Madrid")]
    tokens = [tokenize_completion(tiny_model.tokenizer, *pair) for pair in asked]
    nll = dict(zip(asked, likelihoods(forward, lay_out(tokens, tokens=32)).nll, strict=True))

    for request in (FRANCE, swapped):
        new, true = request.target_new, request.target_true
        held = [nll[prompt, new] < nll[prompt, true] for prompt in request.paraphrases]
        kept = [nll[probe.prompt, probe.answer] < nll[probe.prompt, new] for probe in request.neighbors]
        found = values(rows, request.case_id)
        assert found["efficacy"] == (nll[stated, new] < nll[stated, true])
        assert found["generalization"] == np.mean(held)
        assert found["locality"] == np.mean(kept)


def test_nan_logits_make_nan_rows_where_they_are_read(tiny_model: Model) -> None:
    tokenizer = tiny_model.tokenizer
    forward = saying(tokenizer, "Rome")
    lives_in = tokenizer("Ada Lovelace lives in")["input_ids"][-1]
    assert lives_in != tokenizer("The capital of France is")["input_ids"][-1]
    broken = replace(forward, weights=forward.weights.at[lives_in].set(jnp.nan))
    found = values(editing_scores(broken, prepare(tokenizer, [FRANCE], tokens=32)))
    assert {metric for metric, value in found.items() if np.isnan(value)} == {
        "generalization",
        "generalization_top1",
        "portability",
    }


def test_a_collapsed_model_keeps_all_its_rows(tiny_model: Model, scaled: Callable[[float], Forward]) -> None:
    rows = editing_scores(scaled(np.nan), prepare(tiny_model.tokenizer, [FRANCE, ADA], tokens=32))
    assert rows["value"].isna().all()
    assert len(rows) == 8
    labelled = rows.assign(editor="rome", restraint="none", n_edits=1, seed=0)[list(CASE_COLUMNS)]
    assert len(check(labelled)) == 8


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[Path, Model]:
    return shared / "golden", load_model(shared / "golden" / "model")


@pytest.mark.parametrize("state", ["unedited", "memit_batch0", "rome_sequence_12"])
def test_the_peers_scores(golden: tuple[Path, Model], state: str) -> None:
    folder, model = golden
    stored = json.loads((folder / "counterfact_scores.json").read_text())
    prepared = prepare(model.tokenizer, read_requests(folder / "records.json")[: len(stored[state])])
    forward = forward_of(model.with_weights(edited_weights(folder, model, state)))
    nll = likelihoods(forward, prepared.completions).nll

    questions = prepared.questions[prepared.questions["rival"] != NO_RIVAL]
    kinds = {"efficacy": "rewrite", "generalization": "paraphrase", "locality": "neighborhood"}
    for metric, kind in kinds.items():
        asked = questions[questions["metric"] == metric]
        expected = [probe for record in stored[state] for probe in record[f"{kind}_prompts_probs"]]
        wanted, rival = ("target_true", "target_new") if metric == "locality" else ("target_new", "target_true")
        np.testing.assert_allclose(nll[asked["wanted"]], [probe[wanted] for probe in expected], rtol=1e-4)
        np.testing.assert_allclose(nll[asked["rival"]], [probe[rival] for probe in expected], rtol=1e-4)

    means = editing_scores(forward, prepared).groupby("metric")["value"].mean()
    of_state, prefix = (state, "post") if state in stored["summary"] else ("memit_batch0", "pre")
    summary = stored["summary"][of_state]
    for metric, kind in kinds.items():
        assert 100 * means[metric] == pytest.approx(summary[f"{prefix}_{kind}_success"][0], abs=0.01)
        assert 100 * means[f"{metric}_top1"] == pytest.approx(summary[f"{prefix}_{kind}_acc"][0], abs=0.01)


def edited_weights(folder: Path, model: Model, state: str) -> dict[str, jnp.ndarray]:
    """The kernels of the two layers that are edited in any state of the peers' model."""
    names = {layer: f"transformer.h.{layer}.mlp.c_proj.weight" for layer in (1, 2)}
    weights = {name: model.weight(name) for name in names.values()}
    if state == "rome_sequence_12":
        return weights | {names[1]: jnp.asarray(np.load(folder / "rome_sequence.npz")["weight_after_12"])}
    if state == "memit_batch0":
        deltas = np.load(folder / "memit.npz")
        return {name: weights[name] + deltas[f"batch0.layer{layer}.weight_delta"] for layer, name in names.items()}
    return weights
