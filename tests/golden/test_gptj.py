"""ROME on a GPT-J, whose weights are stored turned, through the verb: against arrays of the original PyTorch code."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from oracles import distance
from prunejax.cli import main
from prunejax.models.checkpoints import load_model
from prunejax.models.tensors import open_tensors

TENSOR = "transformer.h.1.mlp.fc_out.weight"


@pytest.fixture(scope="module")
def covariance(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "golden" / "gptj_covariance.npz") as file:
        return dict(file)


def test_second_moments_of_its_keys(shared: Path, covariance: dict[str, np.ndarray]) -> None:
    """Over the reference's own token rows, each a sequence."""
    decoder, chunks = load_model(shared / "golden" / "gptj_model").decoder, covariance["chunks"]
    positions = np.broadcast_to(np.arange(chunks.shape[1]), chunks.shape)
    keys = decoder.run_layers(decoder.embed(chunks, positions), positions, 0, 3, taps=("key",)).taps["key"]
    for layer in range(3):
        each = np.asarray(keys[layer], np.float64).reshape(-1, keys.shape[-1])
        assert distance(each.T @ each / len(each), covariance[f"layer{layer}.C_f64"]) < 1e-6


@pytest.mark.parametrize("case", [1, 2])
def test_one_edit(shared: Path, covariance: dict[str, np.ndarray], tmp_path: Path, case: int) -> None:
    golden = shared / "golden"
    spec = json.loads((golden / "spec.json").read_text())["gptj_rome"]
    theirs = spec["hparams"]
    (tmp_path / "contexts.json").write_text(json.dumps(spec["context_templates"]))
    record = json.loads((golden / "records.json").read_text(encoding="utf-8"))[case]
    (tmp_path / "requests.json").write_text(json.dumps([record]), encoding="utf-8")
    moments = {f"{TENSOR}.second_moment": covariance["layer1.C_f32"], f"{TENSOR}.count": np.array(96 * 128)}
    save_file(moments, tmp_path / "moments.safetensors")
    settings = {"layers": theirs["layers"][0], "steps": theirs["v_num_grad_steps"], "lr": theirs["v_lr"]}
    settings |= {"weight_decay": theirs["v_weight_decay"], "clamp": theirs["clamp_norm_factor"]}
    settings |= {"kl_factor": theirs["kl_factor"], "stop_loss": 0.05}  # the last is written into their code
    words = ["edit", "--model", golden / "gptj_model", "--requests", tmp_path / "requests.json", "--editor", "rome"]
    words += ["--contexts", tmp_path / "contexts.json", "--moments", tmp_path / "moments.safetensors"]
    words += [word for pair in settings.items() for word in ("--set", "{}={}".format(*pair))]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in (*words, "--out", tmp_path / "run")])
    assert ended.value.code == 0
    with np.load(golden / "gptj_rome.npz") as file:
        reference = {name.removeprefix(f"case{case}."): array for name, array in file.items()}
    stored = load_file(tmp_path / "run" / "updates" / "000001-000001.safetensors")
    u, v = stored[f"{TENSOR}.left"][0], stored[f"{TENSOR}.right"][0]
    assert distance(u, reference["u"]) < 5e-5
    assert distance(v, reference["v"]) < 1e-4
    # Theirs is the change of the stored weight, [out, in].
    assert open_tensors([golden / "gptj_model" / "model.safetensors"])[TENSOR].shape == reference["weight_delta"].shape
    assert distance(np.outer(v, u), reference["weight_delta"]) < 1e-4
    noted = pd.read_csv(tmp_path / "run" / "diagnostics.csv").iloc[0]
    assert noted["loss_last"] == pytest.approx(reference["trajectory"][-1, 0], rel=1e-4)
