"""MEMIT through `prunejax edit --batch 8`: two successive batches over two layers, against the original code's
numbers. Tolerances are those of the reference numbers' own README."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from oracles import distance
from prunejax.cli import main
from prunejax.models.checkpoints import load_model
from prunejax.points import weights_after
from prunejax.restraint import parse
from prunejax.run import Run, open_run

LAYERS = (1, 2)
TENSORS = {layer: f"transformer.h.{layer}.mlp.c_proj.weight" for layer in LAYERS}
SIZE = 8
FIRST, SECOND = 1e-4, 2e-3
"""Relative Euclidean norms allowed in the first and in the second batch."""


@pytest.fixture(scope="module")
def theirs(shared: Path) -> Mapping[str, np.ndarray]:
    with np.load(shared / "golden" / "memit.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def run(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    golden, desk = shared / "golden", tmp_path_factory.mktemp("memit")
    spec = json.loads((golden / "spec.json").read_text(encoding="utf-8"))["memit"]
    hparams, records = spec["hparams"], json.loads((golden / "records.json").read_text(encoding="utf-8"))
    with np.load(golden / "covariance.npz") as c:
        moments = {f"{tensor}.second_moment": c[f"layer{layer}.C_f32"] for layer, tensor in TENSORS.items()}
        save_file(moments | {f"{tensor}.count": c["n_tokens"] for tensor in TENSORS.values()}, desk / "moments")
    (desk / "requests.json").write_text(json.dumps([records[i] for batch in spec["batches"] for i in batch]))
    (desk / "contexts.json").write_text(json.dumps(spec["context_templates"]))
    names = {"steps": "v_num_grad_steps", "lr": "v_lr", "weight_decay": "v_weight_decay", "kl_factor": "kl_factor"}
    names |= {"clamp": "clamp_norm_factor", "moment_weight": "mom2_update_weight"}
    settings = [f"{name}={hparams[their_name]}" for name, their_name in names.items()]
    settings += ["layers={},{}".format(*hparams["layers"]), "stop_loss=0.05"]
    words = ["edit", "--model", golden / "model", "--editor", "memit", "--batch", SIZE, "--out", desk / "run"]
    words += ["--requests", desk / "requests.json", "--contexts", desk / "contexts.json", "--moments", desk / "moments"]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), *(word for text in settings for word in ("--set", text))])
    assert ended.value.code == 0
    return open_run(desk / "run")


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("batch", "tolerance"), [(0, FIRST), (1, SECOND)])
def test_the_factors_of_a_batch_are_the_original_codes(
    run: Run, theirs: Mapping[str, np.ndarray], batch: int, layer: int, tolerance: float
) -> None:
    (event,) = run.events()
    stored, rows = load_file(run.folder / event.file), slice(batch * SIZE, batch * SIZE + SIZE)
    left, right = (stored[f"{TENSORS[layer]}.{side}"][rows] for side in ("left", "right"))
    assert distance(left.T, theirs[f"batch{batch}.layer{layer}.adj_k"]) < tolerance
    assert distance(right.T, theirs[f"batch{batch}.layer{layer}.resid"]) < tolerance
    assert distance(left.T @ right, theirs[f"batch{batch}.layer{layer}.weight_delta"]) < tolerance


@pytest.mark.parametrize("layer", LAYERS)
def test_the_weight_after_both_batches_is_the_original_codes(
    run: Run, shared: Path, theirs: Mapping[str, np.ndarray], layer: int
) -> None:
    model = load_model(shared / "golden" / "model")
    weight = weights_after(run, model, 2 * SIZE, parse("none"))[TENSORS[layer]]
    assert distance(weight, theirs[f"layer{layer}.weight_after"]) < SECOND


def test_every_target_value_was_searched_as_the_original_code_did(run: Run, theirs: Mapping[str, np.ndarray]) -> None:
    noted = pd.read_csv(run.folder / "diagnostics.csv")
    assert len(noted) == 2 * SIZE
    for number, row in noted.iterrows():
        batch = number // SIZE
        case = f"batch{batch}.case{number}"
        trajectory, tolerance = theirs[f"{case}.trajectory"], SECOND if batch else FIRST
        assert row["steps"] == len(trajectory)
        assert row["loss_first"] == pytest.approx(trajectory[0, 0], rel=tolerance)
        assert row["loss_last"] == pytest.approx(trajectory[-1, 0], rel=tolerance)
        assert row["delta_norm"] == pytest.approx(np.linalg.norm(theirs[f"{case}.z_delta"]), rel=tolerance)
