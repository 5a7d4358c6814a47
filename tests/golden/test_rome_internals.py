"""Parity from the inside: decoder, rows, value step and update against arrays of the original PyTorch code.

Tolerances are those of the reference numbers' own README: relative Euclidean norms, with some margin above what float32
rounding alone does there.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from oracles import distance, gpt2
from packed import unpacked
from prunejax.editors.facts import facts_of
from prunejax.editors.metric import inverse_second_moment
from prunejax.editors.rome import rank_one
from prunejax.editors.rows import fact_rows
from prunejax.editors.shapes import covering, shape_of
from prunejax.editors.value import FactRows, TargetValue, target_values
from prunejax.editors.value_settings import ValueSettings
from prunejax.models.checkpoints import Model, load_model
from prunejax.models.decoder import logits
from prunejax.requests import EditRequest
from prunejax.tokens import pad_right
from prunejax.update import LowRank, dense

KINDS = {
    "rome_cov": ("rome", "corpus", False, range(6)),
    "rome_identity": ("rome", "identity", False, range(6)),
    "rome_early_stop": ("rome_early_stop", "identity", False, (15, 16, 18)),
    "rrome_random_prefix_keys": ("rome", "corpus", True, range(6)),
}
"""File: its settings in spec.json, C or I, r-ROME, its cases."""
STOP_LOSS = 0.05
"""Written into the original code, so not among its hyper-parameters."""
every_case = pytest.mark.parametrize(
    ("kind", "case"), [(kind, case) for kind, (*_, cases) in KINDS.items() for case in cases]
)


@pytest.fixture(scope="module")
def golden(shared) -> Path:
    return shared / "golden"


@pytest.fixture(scope="module")
def spec(golden) -> Mapping:
    return json.loads((golden / "spec.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model(golden) -> Model:
    return load_model(golden / "model")


@pytest.fixture(scope="module")
def seen(golden) -> Mapping[str, np.ndarray]:
    return dict(np.load(golden / "logits.npz"))


def test_logits_of_all_prompts(model, spec, seen):
    ids = [model.tokenizer(prompt)["input_ids"] for prompt in spec["logit_prompts"]]
    predicted = logits(model.decoder, *pad_right(ids))
    for p, row in enumerate(ids):
        np.testing.assert_array_equal(row, seen[f"prompt{p}.ids"])
        assert distance(predicted[p, : len(row)], seen[f"prompt{p}.logits"]) < 1e-5


def test_keys_values_and_residuals(model, seen):
    for p in range(2):
        ids = seen[f"prompt{p}.ids"][None]
        positions = np.arange(ids.shape[1])[None]
        output = model.decoder.run_layers(
            model.decoder.embed(ids, positions), positions, 0, 4, taps=("key", "value", "residual")
        )
        for site, name in (("key", "key"), ("value", "mlp_output"), ("residual", "block_output")):
            for layer in range(4):
                assert distance(output.taps[site][layer, 0], seen[f"prompt{p}.layer{layer}.{name}"]) < 1e-5


def test_the_oracle_itself(golden, seen):
    """The plain numpy GPT-2 that the other tests trust."""
    tensors = load_file(golden / "model" / "model.safetensors")
    for p in range(8):
        plain = gpt2(tensors, seen[f"prompt{p}.ids"], 4)
        assert distance(plain.logits, seen[f"prompt{p}.logits"]) < 2e-6


class Edit(NamedTuple):
    """What the package makes of a case."""

    rows: FactRows
    target: TargetValue
    u: np.ndarray
    v: np.ndarray
    diagnostics: Mapping[str, Any]


@pytest.fixture(scope="module")
def edits(golden, spec, model) -> Mapping[tuple[str, int], Edit]:
    """All cases of all kinds; those of one kind share a shape, as in a sequence."""
    records = json.loads((golden / "prompts.json").read_text(encoding="utf-8"))
    c = np.load(golden / "covariance.npz")["layer1.C_f32"]
    inverses = {"corpus": jnp.asarray(inverse_second_moment(c, 0.0, 192)), "identity": jnp.eye(192)}
    found = {}
    for kind, (section, second_moment, consistent, cases) in KINDS.items():
        theirs = spec[section]["hparams"]
        settings = ValueSettings(
            layer=theirs["layers"][0],
            steps=theirs["v_num_grad_steps"],
            lr=theirs["v_lr"],
            weight_decay=theirs["v_weight_decay"],
            clamp=theirs["clamp_norm_factor"],
            kl_factor=theirs["kl_factor"],
            stop_loss=STOP_LOSS,
        )
        requests = [
            EditRequest(str(i), *(records[i][part] for part in ("prompt", "subject", "target_new"))) for i in cases
        ]
        facts = facts_of(model.tokenizer, requests, spec["rome"]["context_templates"], 256)
        shape = covering([shape_of([fact]) for fact in facts])
        for case, fact in zip(cases, facts, strict=True):
            rows = fact_rows([fact], shape)
            targets = target_values(model.decoder, {}, rows, settings)
            left, right, diagnostics = rank_one(inverses[second_moment], targets, consistent)
            target = jax.tree.map(lambda part: part[0], targets)
            found[kind, case] = Edit(rows, target, np.asarray(left[:, 0]), np.asarray(right[0]), diagnostics)
    return found


@pytest.fixture(scope="module")
def arrays(golden) -> Mapping[str, Mapping[str, np.ndarray]]:
    return {kind: dict(np.load(golden / f"{kind}.npz")) for kind in KINDS}


@every_case
def test_rows(edits, arrays, kind, case):
    """Each is the original's up to the last token that is read: of the row of the KL term, the subject's last."""
    rows, theirs = (
        edits[kind, case].rows,
        {
            name: arrays[kind][f"case{case}.{name}"]
            for name in ("input_ids", "attention_mask", "rewriting_targets", "lookup_idxs", "target_ids")
        },
    )
    ours, lengths = unpacked(rows), theirs["attention_mask"].sum(axis=1)
    lengths[-1] = theirs["lookup_idxs"][-1] + 1
    np.testing.assert_array_equal((ours.positions >= 0).sum(axis=1), lengths)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(ours.tokens[row, :length], theirs["input_ids"][row, :length])
        np.testing.assert_array_equal(ours.positions[row, :length], range(length))
    np.testing.assert_array_equal(ours.subject_last, theirs["lookup_idxs"])
    for r, labels in enumerate(theirs["rewriting_targets"]):
        read = (rows.share[0] > 0) & (ours.row == r)
        np.testing.assert_array_equal(np.flatnonzero(labels != -100), ours.column[read])
        np.testing.assert_array_equal(labels[ours.column[read]], rows.labels[read])
        np.testing.assert_array_equal(rows.labels[read], theirs["target_ids"])


@every_case
def test_target_value(edits, arrays, kind, case):
    target, theirs = edits[kind, case].target, arrays[kind]
    trajectory = theirs[f"case{case}.trajectory"]
    n = len(trajectory)
    np.testing.assert_allclose(target.losses[:n], trajectory[:, 0], rtol=1e-4)
    assert np.isnan(target.losses[n:]).all(), "it stops at the same evaluation"
    np.testing.assert_allclose(target.probability, np.exp(-trajectory[-1, 1]), rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(target.delta), trajectory[-1, 5], rtol=1e-4)
    assert distance(target.keys.mean(0), theirs[f"case{case}.k_star"]) < 1e-5
    assert distance(target.values[0], theirs[f"case{case}.target_init"]) < 1e-5
    assert distance(target.delta, theirs[f"case{case}.z_delta"]) < 1e-4
    assert distance(target.value, theirs[f"case{case}.z"]) < 1e-4


@every_case
def test_update(edits, arrays, kind, case):
    edit, theirs = edits[kind, case], arrays[kind]
    assert distance(edit.u, theirs[f"case{case}.u"]) < 5e-5
    assert distance(edit.v, theirs[f"case{case}.v"]) < 1e-4
    delta = dense(LowRank(edit.u[:, None], edit.v[None]))
    assert distance(delta, theirs[f"case{case}.weight_delta"]) < 1e-4
    denominator = theirs[f"case{case}.cur_input"].astype(np.float64) @ theirs[f"case{case}.u"]
    np.testing.assert_allclose(edit.diagnostics["denominator"], denominator, rtol=1e-4)
    assert edit.diagnostics["steps"] == len(theirs[f"case{case}.trajectory"])
    assert edit.diagnostics["finite"]
