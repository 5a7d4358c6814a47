"""The PyTorch versions that prunejax is timed against do what the original code did: golden arrays, tolerances of their
README."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks.original_restraint import restrain_dense
from benchmarks.recipe import Recipe
from oracles import distance
from prunejax.requests import EditRequest

MAPS = {"log": np.e, "log2": 2.0, "log1_5": 1.5, "log1_2": 1.2}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden"


@pytest.fixture(scope="module")
def spec(golden: Path) -> Mapping[str, Any]:
    return json.loads((golden / "spec.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def requests(golden: Path) -> list[EditRequest]:
    records = json.loads((golden / "records.json").read_text(encoding="utf-8"))
    facts = [record["requested_rewrite"] for record in records]
    return [EditRequest(str(i), f["prompt"], f["subject"], f["target_new"]["str"]) for i, f in enumerate(facts)]


@pytest.fixture(scope="module")
def original(torch: ModuleType, golden: Path) -> Any:
    from benchmarks.original_model import load_original

    return load_original(golden / "model")


def recipe_of(hparams: Mapping[str, Any]) -> Recipe:
    """The settings in spec.json under our names."""
    names = {"steps": "v_num_grad_steps", "lr": "v_lr", "weight_decay": "v_weight_decay", "clamp": "clamp_norm_factor"}
    given = {name: hparams[theirs] for name, theirs in names.items()} | {"kl_factor": hparams["kl_factor"]}
    weight = hparams.get("mom2_update_weight", 1.0)
    return Recipe(tuple(hparams["layers"]), **given, stop_loss=0.05, moment_weight=weight)


@pytest.mark.parametrize(
    ("file", "section", "case"),
    [("rome_cov", "rome", 0), ("rome_cov", "rome", 3), ("rome_identity", "rome", 1)]
    + [("rome_early_stop", "rome_early_stop", case) for case in (15, 16, 18)],
)
def test_rome(torch, golden, spec, requests, original, file, section, case) -> None:
    from benchmarks.original_rome import rome_edit
    from benchmarks.original_value import fact_of, find_value

    with np.load(golden / f"{file}.npz") as arrays:
        theirs = {n.removeprefix(f"case{case}."): a for n, a in arrays.items() if n.startswith(f"case{case}.")}
    recipe, templates = recipe_of(spec[section]["hparams"]), spec["rome"]["context_templates"]
    fact = fact_of(original, requests[case], templates)
    np.testing.assert_array_equal(fact.rows.inputs["input_ids"], theirs["input_ids"])
    np.testing.assert_array_equal(fact.rows.inputs["attention_mask"], theirs["attention_mask"])
    np.testing.assert_array_equal(fact.rows.subject_last, theirs["lookup_idxs"])
    np.testing.assert_array_equal(fact.labels, theirs["rewriting_targets"])
    found = find_value(original, fact, recipe, "value")
    np.testing.assert_allclose(np.array(found.losses), theirs["trajectory"][:, :4], rtol=1e-4, atol=1e-7)
    assert distance(found.delta, theirs["z_delta"]) < 1e-4
    inverse = None
    if file == "rome_cov":
        inverse = torch.linalg.inv(torch.from_numpy(np.load(golden / "covariance.npz")["layer1.C_f32"]))
    u, v = rome_edit(original, requests[case], templates, inverse, recipe)
    assert distance(u, theirs["u"]) < 5e-5
    assert distance(v, theirs["v"]) < 1e-4
    assert distance(torch.outer(u, v), theirs["weight_delta"]) < 1e-4


def test_memit(torch, golden, spec, requests, original) -> None:
    """The first batch: every target value, then both layers; the weights are as they were afterwards."""
    from benchmarks.original_memit import memit_layers
    from benchmarks.original_value import fact_of, find_value
    from benchmarks.recipe import flat

    part = spec["memit"]
    recipe, contexts = recipe_of(part["hparams"]), part["context_templates"]
    batch = [requests[i] for i in part["batches"][0]]
    with np.load(golden / "memit.npz") as arrays:
        theirs = {n.removeprefix("batch0."): a for n, a in arrays.items() if n.startswith("batch0.")}
    values = []
    for case, request in zip(part["batches"][0], batch, strict=True):
        found = find_value(original, fact_of(original, request, flat(contexts)), recipe, "residual")
        np.testing.assert_allclose(
            np.array(found.losses), theirs[f"case{case}.trajectory"][:, :4], rtol=1e-4, atol=1e-7
        )
        values.append(found.initial + found.delta)
        assert distance(values[-1], theirs[f"case{case}.z"]) < 1e-4
    c = np.load(golden / "covariance.npz")
    moments = [torch.from_numpy(c[f"layer{layer}.C_f32"]) for layer in recipe.layers]
    before = original.kernel(1).clone()
    factors = memit_layers(original, batch, contexts, moments, torch.stack(values), recipe)
    assert torch.equal(original.kernel(1), before)
    for layer, (left, right) in zip(recipe.layers, factors, strict=True):
        assert distance(left, theirs[f"layer{layer}.adj_k"]) < 1e-4
        assert distance(right.T, theirs[f"layer{layer}.resid"]) < 1e-4
        assert distance(left @ right, theirs[f"layer{layer}.weight_delta"]) < 1e-4


@pytest.mark.parametrize("delta", ["sequence12", "around", "far", "below", "fullrank"])
@pytest.mark.parametrize("name", MAPS)
def test_the_restraint(golden: Path, delta: str, name: str) -> None:
    with np.load(golden / "prune.npz") as arrays:
        done = restrain_dense(arrays["W_original"], arrays[f"{delta}.W_edited"], MAPS[name])
        assert distance(done.weight, arrays[f"{delta}.{name}.weight_final"]) < 1e-5
        assert distance(done.update, arrays[f"{delta}.singular_values_delta"]) < 1e-5
        assert distance(done.unedited, arrays["singular_values_W"]) < 1e-5
