"""EMMET, AlphaEdit, UltraEdit and RECT through `prunejax edit`, against the original code's numbers. Tolerances are
those of the reference numbers' own README: relative Euclidean norms."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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

TENSORS = {layer: f"transformer.h.{layer}.mlp.c_proj.weight" for layer in range(4)}
FIRST, SECOND = 1e-4, 2e-3
"""Allowed in the first and in the second batch."""
NAMES = {
    "steps": "v_num_grad_steps",
    "lr": "v_lr",
    "weight_decay": "v_weight_decay",
    "kl_factor": "kl_factor",
    "clamp": "clamp_norm_factor",
}
"""Our hyper-parameters, and what the original code calls them."""


def arrays(shared: Path, name: str) -> Mapping[str, np.ndarray]:
    with np.load(shared / "golden" / f"{name}.npz") as file:
        return dict(file)


def edit(shared: Path, desk: Path, editor: str, requests: Sequence[Mapping], words: Sequence[object]) -> Run:
    """A run of the verb on the reference's model and second moments."""
    covariance = arrays(shared, "covariance")
    moments = {f"{tensor}.second_moment": covariance[f"layer{layer}.C_f32"] for layer, tensor in TENSORS.items()}
    save_file(moments | {f"{tensor}.count": covariance["n_tokens"] for tensor in TENSORS.values()}, desk / "moments")
    (desk / "requests.json").write_text(json.dumps(list(requests)), encoding="utf-8")
    given = ["edit", "--model", shared / "golden" / "model", "--editor", editor, "--out", desk / "run"]
    given += ["--requests", desk / "requests.json", "--moments", desk / "moments", *words]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in given])
    assert ended.value.code == 0
    return open_run(desk / "run")


def edit_spread(
    shared: Path, desk: Path, editor: str, section: str, cases: Sequence[int], batch: int, *words: str, **more: Any
) -> Run:
    """A run of an editor with target values, with the settings of a section of the reference."""
    spec = json.loads((shared / "golden" / "spec.json").read_text(encoding="utf-8"))[section]
    records = json.loads((shared / "golden" / "records.json").read_text(encoding="utf-8"))
    hparams = spec["hparams"]
    (desk / "contexts.json").write_text(json.dumps(spec["context_templates"]), encoding="utf-8")
    settings = {name: hparams[theirs] for name, theirs in NAMES.items()} | more
    settings |= {"layers": ",".join(map(str, hparams["layers"])), "stop_loss": 0.05}  # written into the original code
    given = ["--contexts", desk / "contexts.json", "--batch", batch, *words]
    given += [word for pair in settings.items() for word in ("--set", "{}={}".format(*pair))]
    return edit(shared, desk, editor, [records[case] for case in cases], given)


def updates_of(run: Run, layer: int, batch: int, size: int) -> np.ndarray:
    """The change of a layer by one batch of so many requests."""
    (event,) = run.events()
    stored, rows = load_file(run.folder / event.file), slice(batch * size, batch * size + size)
    left, right = (stored[f"{TENSORS[layer]}.{side}"][rows] for side in ("left", "right"))
    return left.T @ right


def assert_searched_alike(run: Run, theirs: Mapping[str, np.ndarray], size: int) -> None:
    """Every target value was found on the path of the original code."""
    for number, row in pd.read_csv(run.folder / "diagnostics.csv").iterrows():
        case, tolerance = f"batch{number // size}.case{number}", SECOND if number >= size else FIRST
        trajectory = theirs[f"{case}.trajectory"]
        assert row["steps"] == len(trajectory)
        assert row["loss_last"] == pytest.approx(trajectory[-1, 0], rel=tolerance)
        assert row["delta_norm"] == pytest.approx(np.linalg.norm(theirs[f"{case}.z_delta"]), rel=tolerance)


def test_emmet(shared: Path, tmp_path: Path) -> None:
    theirs = arrays(shared, "emmet")
    run = edit_spread(shared, tmp_path, "emmet", "emmet", range(4), 4, moment_weight=10, slack=0.1)
    assert distance(updates_of(run, 1, 0, 4), theirs["batch0.layer1.weight_delta"]) < FIRST
    assert_searched_alike(run, theirs, 4)


@pytest.fixture(scope="module")
def alphaedit(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    threshold = float(arrays(shared, "alphaedit")["nullspace_threshold"])
    more = {"key_ridge": 1, "cut": "absolute", "threshold": repr(threshold)}
    return edit_spread(shared, tmp_path_factory.mktemp("alphaedit"), "alphaedit", "alphaedit", range(12), 6, **more)


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize(("batch", "tolerance"), [(0, FIRST), (1, SECOND)])
def test_alphaedit(shared: Path, alphaedit: Run, batch: int, layer: int, tolerance: float) -> None:
    """The second batch spares the keys of the first."""
    theirs = arrays(shared, "alphaedit")
    assert (
        distance(updates_of(alphaedit, layer, batch, 6), theirs[f"batch{batch}.layer{layer}.weight_delta"]) < tolerance
    )
    assert_searched_alike(alphaedit, theirs, 6)


@pytest.mark.parametrize("layer", [1, 2])
def test_the_keys_that_alphaedit_remembers(shared: Path, alphaedit: Run, layer: int) -> None:
    """Read before the layer is written, they are those that the original code reads after the batch."""
    state = load_file(alphaedit.folder / "state" / "000012.safetensors")
    number, cache = layer - 1, arrays(shared, "alphaedit")["batch1.cache_c"][layer - 1]
    keys = state[f"editor[{number}].keys"].astype(np.float64)
    assert state[f"editor[{number}].used"] == 12
    assert distance(keys.T @ keys, cache) < SECOND


@pytest.mark.parametrize(("keep", "size"), [(20, 1844), (40, 3687)])
def test_rect_on_a_rome_update(shared: Path, tmp_path: Path, keep: int, size: int) -> None:
    """The reference masks one update of ROME; at the edge of the mask an element may fall on the other side of
    rounding."""
    theirs = arrays(shared, "rect")
    spec = json.loads((shared / "golden" / "spec.json").read_text(encoding="utf-8"))["rome"]
    records = json.loads((shared / "golden" / "records.json").read_text(encoding="utf-8"))
    (tmp_path / "contexts.json").write_text(json.dumps(spec["context_templates"]), encoding="utf-8")
    settings = {name: spec["hparams"][them] for name, them in NAMES.items()} | {"layers": 1, "stop_loss": 0.05}
    words = ["--contexts", tmp_path / "contexts.json", "--restrain", f"rect:{keep}"]
    words += [word for pair in settings.items() for word in ("--set", "{}={}".format(*pair))]
    run = edit(shared, tmp_path, "rome", [records[int(theirs["rome.case_index"])]], words)
    found = load_file(run.folder / run.events()[0].file)[f"{TENSORS[1]}.dense"]
    mask = theirs[f"rome.mask_keep{keep}"]
    assert np.sum((found != 0) != mask) <= 4
    assert np.sum(found != 0) == size
    assert distance(found, theirs[f"rome.rect_keep{keep}"]) < 1e-3
    both = (found != 0) & mask
    assert distance(found[both], theirs[f"rome.rect_keep{keep}"][both]) < FIRST


def test_rect_on_a_batch_of_memit(shared: Path, tmp_path: Path) -> None:
    """Masked after the whole batch, as AlphaEdit's repository does, whose threshold of 40% is the largest element that
    RECT's authors would drop: of 9,216 it keeps one more, 40.01%."""
    theirs = arrays(shared, "memit_rect")
    run = edit_spread(shared, tmp_path, "memit", "memit", range(8), 8, "--restrain", "rect:40.01", moment_weight=10)
    weights = weights_after(run, load_model(shared / "golden" / "model"), 8, parse("none"))
    stored = load_file(run.folder / run.events()[0].file)
    for layer in (1, 2):
        expected, found = theirs[f"batch0.layer{layer}.weight_delta"], stored[f"{TENSORS[layer]}.dense"]
        assert np.sum(found != 0) == np.sum(expected != 0) == 3688
        assert distance(found, expected) < FIRST
        assert distance(weights[TENSORS[layer]], theirs[f"layer{layer}.weight_after"]) < FIRST


def test_ultraedit(shared: Path, tmp_path: Path) -> None:
    """Two turns of five, whose statistics run on."""
    theirs = arrays(shared, "ultraedit")
    rows = json.loads((shared / "golden" / "ultraedit_rows.json").read_text(encoding="utf-8"))
    requests = [{"prompt": "{}", "subject": row["src"], "target_new": row["ans"]} for row in rows]
    spec = json.loads((shared / "golden" / "spec.json").read_text(encoding="utf-8"))["ultraedit"]
    words = ["--batch", 5, "--set", "layers=1,2", "--set", f"lr={spec['lr']}"]
    run = edit(shared, tmp_path, "ultraedit", requests, words)
    for number, layer in enumerate((1, 2)):
        for turn in (0, 1):
            (event,) = run.events()
            stored = load_file(run.folder / event.file)
            left, right = (np.split(stored[f"{TENSORS[layer]}.{side}"], 2)[turn] for side in ("left", "right"))
            assert distance(left.T @ right, theirs[f"turn{turn}.module{number}.param_shift"]) < FIRST
    state = load_file(run.folder / "state" / "000010.safetensors")
    assert state["editor.count"] == theirs["turn1.normalizer.n"]
    assert distance(state["editor.mean"], theirs["turn1.normalizer.mean"]) < 1e-5
    assert distance(state["editor.squares"], theirs["turn1.normalizer.var"]) < 1e-5
