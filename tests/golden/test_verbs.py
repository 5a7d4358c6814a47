"""Parity through the verbs: `prunejax edit`, `spectra` and `evaluate` against numbers of the original PyTorch code.

Tolerances are those of the reference numbers' own README: relative Euclidean norms, with some margin above what float32
rounding alone does there.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from oracles import distance
from prunejax.cli import main
from prunejax.models.checkpoints import Model, load_model
from prunejax.points import weights_after
from prunejax.records import read_records
from prunejax.restraint import parse
from prunejax.run import Run, open_run

TENSOR = "transformer.h.1.mlp.c_proj.weight"
STOP_LOSS = 0.05
"""Written into the original code, so not among its hyper-parameters."""


class Golden(NamedTuple):
    """The reference numbers, and a folder with what an edit reads: contexts, second moments, records one a file."""

    folder: Path
    desk: Path
    spec: Mapping

    def arrays(self, name: str) -> Mapping[str, np.ndarray]:
        """The arrays of one file."""
        with np.load(self.folder / f"{name}.npz") as file:
            return dict(file)

    def edit(self, out: str, records: Sequence[int], editor: str, second_moment: str) -> Run:
        """A run of the verb with the reference's settings."""
        theirs = self.spec["rome"]["hparams"]
        names = {"steps": "v_num_grad_steps", "lr": "v_lr", "weight_decay": "v_weight_decay", "kl_factor": "kl_factor"}
        names["clamp"] = "clamp_norm_factor"
        settings = {name: theirs[their_name] for name, their_name in names.items()}
        settings |= {"layers": theirs["layers"][0], "stop_loss": STOP_LOSS, "second_moment": second_moment}
        requests = self.desk / f"{out}.json"
        requests.write_text(json.dumps([self.records[i] for i in records]), encoding="utf-8")
        words = ["edit", "--model", self.model, "--requests", requests, "--editor", editor, "--out", self.desk / out]
        words += ["--contexts", self.desk / "contexts.json", "--moments", self.desk / "moments.safetensors"]
        verb(*words, *(word for pair in settings.items() for word in ("--set", "{}={}".format(*pair))))
        return open_run(self.desk / out)

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def records(self) -> list[dict]:
        return json.loads((self.folder / "records.json").read_text(encoding="utf-8"))


def verb(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0


@pytest.fixture(scope="module")
def golden(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    desk = tmp_path_factory.mktemp("golden")
    found = Golden(shared / "golden", desk, json.loads((shared / "golden" / "spec.json").read_text()))
    (desk / "contexts.json").write_text(json.dumps(found.spec["rome"]["context_templates"]))
    covariance = found.arrays("covariance")
    moments = {f"{TENSOR}.second_moment": covariance["layer1.C_f32"], f"{TENSOR}.count": covariance["n_tokens"]}
    save_file(moments, desk / "moments.safetensors")
    return found


@pytest.fixture(scope="module")
def model(golden: Golden) -> Model:
    return load_model(golden.model)


CASES = [
    *(("rome_cov", "rome", "corpus", case) for case in range(6)),
    *(("rome_identity", "rome", "identity", case) for case in range(6)),
    *(("rrome_random_prefix_keys", "r-rome", "corpus", case) for case in (0, 3, 5)),  # each is compiled anew
]


@pytest.mark.parametrize(("name", "editor", "second_moment", "case"), CASES)
def test_one_edit_is_the_original_codes(golden: Golden, name: str, editor: str, second_moment: str, case: int) -> None:
    run = golden.edit(f"{name}-{case}", [case], editor, second_moment)
    reference = golden.arrays(name)
    stored = load_file(run.folder / "updates" / "000001-000001.safetensors")
    u, v = stored[f"{TENSOR}.left"][0], stored[f"{TENSOR}.right"][0]
    assert distance(u, reference[f"case{case}.u"]) < 5e-5
    assert distance(v, reference[f"case{case}.v"]) < 1e-4
    assert distance(np.outer(u, v), reference[f"case{case}.weight_delta"]) < 1e-4
    trajectory = reference[f"case{case}.trajectory"]
    noted = pd.read_csv(run.folder / "diagnostics.csv").iloc[0]
    assert noted["steps"] == len(trajectory)
    assert noted["loss_first"] == pytest.approx(trajectory[0, 0], rel=1e-4)
    assert noted["loss_last"] == pytest.approx(trajectory[-1, 0], rel=1e-4)
    assert noted["delta_norm"] == pytest.approx(np.linalg.norm(reference[f"case{case}.z_delta"]), rel=1e-4)
    assert noted["denominator"] == pytest.approx(reference[f"case{case}.cur_input"] @ u, rel=1e-4)


@pytest.fixture(scope="module")
def sequence(golden: Golden) -> Run:
    """The twelve edits in a row."""
    return golden.edit("sequence", golden.spec["rome"]["sequence"], "rome", "corpus")


@pytest.mark.parametrize(("n", "tolerance"), [(1, 5e-5), (2, 5e-5), (4, 5e-5), (8, 3e-4), (12, 3e-4)])
def test_the_weight_after_n_edits_in_a_row_is_the_original_codes(
    golden: Golden, model: Model, sequence: Run, n: int, tolerance: float
) -> None:
    reference = golden.arrays("rome_sequence")
    assert distance(model.weight(TENSOR), reference["weight_before"]) == 0
    weight = weights_after(sequence, model, n, parse("none"))[TENSOR]
    assert distance(weight, reference[f"weight_after_{n}"]) < tolerance


def test_the_factors_of_every_edit_in_the_row_are_the_original_codes(golden: Golden, sequence: Run) -> None:
    reference = golden.arrays("rome_sequence")
    stored = load_file(sequence.folder / "updates" / "000001-000012.safetensors")
    for j in range(12):
        assert distance(stored[f"{TENSOR}.left"][j], reference[f"edit{j}.u"]) < 5e-5
        assert distance(stored[f"{TENSOR}.right"][j], reference[f"edit{j}.v"]) < 5e-3


RESTRAINTS = {"linear": "linear", "log:e": "log", "log:2": "log2", "log:1.5": "log1_5", "log:1.2": "log1_2"}
"""Our names of the restraints, and those of the reference arrays."""


def test_restrained_weights_after_the_row_are_the_original_codes(golden: Golden, model: Model, sequence: Run) -> None:
    reference = golden.arrays("prune")
    original = np.asarray(model.weight(TENSOR))
    for spec, theirs in RESTRAINTS.items():
        weight = np.asarray(weights_after(sequence, model, 12, parse(spec))[TENSOR])
        assert distance(weight, reference[f"sequence12.{theirs}.weight_final"]) < 3e-4, spec
        delta = reference[f"sequence12.{theirs}.delta_untruncated"]
        assert distance(weight - original, delta) < 1e-3, spec


def test_spectra_of_the_row_are_the_original_codes(golden: Golden, sequence: Run) -> None:
    names = ",".join(["none", *RESTRAINTS])
    verb("spectra", sequence.folder, "--edits", "12", "--restraint", names, "--model", golden.model)
    rows = read_records(sequence.folder / "records" / "spectra.csv").set_index(["restraint", "case", "metric"])["value"]
    reference = golden.arrays("prune")
    for spec, theirs in {"none": None, **RESTRAINTS}.items():
        plain = "sequence12.singular_values_delta"
        sigma = reference[f"sequence12.{theirs}.singular_values_restrained" if theirs else plain]
        assert rows[spec, f"update:{TENSOR}", "sigma_max"] == pytest.approx(sigma[0], rel=1e-3)
        assert rows[spec, f"update:{TENSOR}", "frobenius"] == pytest.approx(np.linalg.norm(sigma), rel=1e-3)
        assert rows[spec, f"update:{TENSOR}", "rank"] == reference["sequence12.rank"]
        weight = reference[f"sequence12.{theirs}.weight_final" if theirs else "sequence12.W_edited"]
        sigma = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
        assert rows[spec, f"weight:{TENSOR}", "sigma_max"] == pytest.approx(sigma[0], rel=1e-3)
        assert rows[spec, f"weight:{TENSOR}", "kappa"] == pytest.approx(sigma[0] / sigma[-1], rel=1e-2)


@pytest.mark.parametrize(("n", "theirs"), [(0, "unedited"), (12, "rome_sequence_12")])
def test_scores_before_and_after_the_row_are_the_original_codes(
    golden: Golden, sequence: Run, n: int, theirs: str
) -> None:
    """Success of every prompt of the first ten records, a mean a record."""
    verb("evaluate", sequence.folder, "--edits", n, "--tasks", "editing", "--model", golden.model)
    rows = read_records(sequence.folder / "records" / "evaluation.csv")
    found = rows[rows["n_edits"] == n].set_index(["case", "metric"])["value"]
    reference = json.loads((golden.folder / "counterfact_scores.json").read_text())[theirs]
    for record in reference:
        for metric, kind in (("efficacy", "rewrite"), ("generalization", "paraphrase"), ("locality", "neighborhood")):
            wanted, other = ("true", "new") if metric == "locality" else ("new", "true")
            nlls = record[f"{kind}_prompts_probs"]
            won = [nll[f"target_{wanted}"] < nll[f"target_{other}"] for nll in nlls]
            case = str(record["case_id"])
            assert found[case, metric] == pytest.approx(np.mean(won), abs=1e-5)
            assert found[case, f"{metric}_top1"] == pytest.approx(np.mean(record[f"{kind}_prompts_correct"]), abs=1e-5)
