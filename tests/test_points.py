"""A run's points on the tiny model: the weights after n edits under a restraint, their scores, their spectra."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import oracles
from prunejax import points, scoring, sources, sweep
from prunejax.editors.moments import Moments, SecondMoment
from prunejax.errors import InputError
from prunejax.evaluate import abilities, editing, perplexity
from prunejax.fold import accumulated
from prunejax.holding import held, held_output
from prunejax.models.checkpoints import Model, load_model
from prunejax.points import evaluate_run, model_of, spectra_of_run, weights_after
from prunejax.records import CASE_COLUMNS, read_records
from prunejax.restraint import parse, restrain
from prunejax.run import Run
from prunejax.scoring import Asked, score_model
from prunejax.update import dense
from prunejax.world.tasks import Item
from tiny import save_tiny
from tiny_runs import REQUESTS, TENSOR, edit_tiny

N = len(REQUESTS)
METRICS = {f"{name}{form}" for name in ("efficacy", "generalization", "locality") for form in ("", "_top1")}


@pytest.fixture(scope="module")
def run(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return edit_tiny(tmp_path_factory.mktemp("points") / "run", tiny_model)


@pytest.fixture
def records(run: Run, tmp_path: Path) -> Path:
    """The run's records folder, empty at the start of every test."""
    folder = run.folder / "records"
    for path in folder.glob("*"):
        path.unlink()
    return folder


def delta(run: Run, model: Model, n: int) -> np.ndarray:
    return np.asarray(dense(accumulated(run, n, {TENSOR: model.weight(TENSOR)})[TENSOR]), np.float64)


@pytest.mark.parametrize("spec", ["none", "clip", "log:e", "rescale:log:e"])
@pytest.mark.parametrize("n", [1, 3, N])
def test_the_weight_at_a_point_is_the_restrained_update_on_the_unedited_weight(
    run: Run, tiny_model: Model, n: int, spec: str
) -> None:
    original = np.asarray(tiny_model.weight(TENSOR), np.float64)
    edited = original + delta(run, tiny_model, n)
    weight = weights_after(run, tiny_model, n, parse(spec))[TENSOR]
    assert oracles.distance(weight, oracles.restrained_weight(spec, original, edited)) < 1e-5


@pytest.mark.parametrize("spec", ["none", "log:1.2"])
def test_after_no_edit_the_weight_is_the_unedited_one_to_the_bit(run: Run, tiny_model: Model, spec: str) -> None:
    weights = weights_after(run, tiny_model, 0, parse(spec))
    np.testing.assert_array_equal(weights[TENSOR], tiny_model.weight(TENSOR))


def test_evaluation_writes_tidy_rows_of_every_point(run: Run, tiny_model: Model, records: Path) -> None:
    """All requests are asked about at n = 0, the first n after n edits."""
    summary = evaluate_run(run, tiny_model, [0, 2, N], ["none", "clip"], ["editing"])
    rows = read_records(records / "evaluation.csv")
    assert tuple(rows.columns) == CASE_COLUMNS
    assert set(rows["metric"]) == METRICS | {"portability"}
    assert set(rows["restraint"]) == {"none", "clip"}
    for (n, _), point in rows.groupby(["n_edits", "restraint"]):
        asked = [request.case_id for request in (REQUESTS[:n] or REQUESTS)]
        for _, of_metric in point.groupby("metric"):
            assert sorted(of_metric["case"]) == sorted(asked)
    assert rows["value"].between(0, 1).all()
    assert len(summary) == 3 * 2 * len(METRICS | {"portability"})
    for row in summary.itertuples():
        values = rows[(rows.n_edits == row.n_edits) & (rows.restraint == row.restraint) & (rows.metric == row.metric)]
        assert row.n == len(values)
        assert row.mean == pytest.approx(values["value"].mean())
        assert row.lo <= row.mean <= row.hi


def test_scores_are_those_of_the_weights_at_the_point(run: Run, tiny_model: Model, records: Path) -> None:
    evaluate_run(run, tiny_model, [N], ["none", "clip"], ["editing"])
    rows = read_records(records / "evaluation.csv")
    for spec in ("none", "clip"):
        edited = tiny_model.with_weights(weights_after(run, tiny_model, N, parse(spec)))
        expected = score_model(edited, REQUESTS, ["editing"])
        found = rows[rows["restraint"] == spec].merge(expected, on=["case", "metric"], suffixes=("", "_expected"))
        assert len(found) == len(expected)
        np.testing.assert_allclose(found["value"], found["value_expected"], rtol=1e-5)


def test_points_on_record_are_not_scored_again(
    run: Run, tiny_model: Model, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, score = [], points.score

    def counting(model: Model, asked: Asked) -> pd.DataFrame:
        scored.append(asked.editing.questions["case"].nunique())
        return score(model, asked)

    monkeypatch.setattr(points, "score", counting)
    evaluate_run(run, tiny_model, [2], ["none"], ["editing"])
    assert scored == [2]
    first = read_records(records / "evaluation.csv")
    wider = evaluate_run(run, tiny_model, [2, 5], ["none"], ["editing"])
    assert scored == [2, 5]
    again = evaluate_run(run, tiny_model, [2, 5], ["none"], ["editing"])
    assert scored == [2, 5]
    pd.testing.assert_frame_equal(again, wider)
    rows = read_records(records / "evaluation.csv")
    pd.testing.assert_frame_equal(rows[rows["n_edits"] == 2].reset_index(drop=True), first)


def test_what_is_asked_is_prepared_once_for_all_restraints(
    run: Run, tiny_model: Model, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def watched(name: str, prepare: Callable) -> Callable:
        return lambda tokenizer, given: (asked.append((name, len(given))), prepare(tokenizer, given))[1]

    for name, part in (("editing", editing), ("abilities", abilities), ("perplexity", perplexity)):
        monkeypatch.setattr(part, "prepare", watched(name, part.prepare))
    monkeypatch.setattr(scoring, "evaluation_items", lambda world: {"entailment": [Item("Ada is", "true")]})
    monkeypatch.setattr(scoring, "held_out_text", lambda: ["Ada lives in Rome."])
    restraints = ["none", "clip", "log:1.2"]
    summary = evaluate_run(run, tiny_model, [2, N], restraints, ["all"])
    assert asked == [("abilities", 1), ("perplexity", 1), ("editing", 2), ("editing", N)]
    assert summary.groupby("metric").size()[["ability:entailment", "perplexity", "efficacy"]].tolist() == [6, 6, 6]


def test_a_second_process_is_kept_out_of_a_file_of_records_and_an_edit_keeps_nobody_out(
    run: Run, tiny_model: Model, records: Path
) -> None:
    evaluate_run(run, tiny_model, [2], ["none"], ["editing"])
    with held_output(records / "evaluation.csv", "records"):
        with pytest.raises(InputError, match=r"records .*evaluation\.csv: process \d+ on .* writes into it"):
            evaluate_run(run, tiny_model, [5], ["none"], ["editing"])
        assert len(evaluate_run(run, tiny_model, [2], ["none"], ["editing"])), "what is on record can be read"
        with held(run.folder, "run"):
            spectra_of_run(run, tiny_model, [5], ["none"])
    with (
        held_output(records / "spectra.csv", "records"),
        pytest.raises(InputError, match=r"records .*spectra\.csv: process \d+ on .* writes into it"),
    ):
        spectra_of_run(run, tiny_model, [2], ["none"])
    assert sorted(path.name for path in records.iterdir()) == ["evaluation.csv", "spectra.csv"]


def test_what_a_killed_evaluation_left_is_removed_and_sums_are_cut_where_they_were(
    run: Run, tiny_model: Model, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate_run(run, tiny_model, [2], ["none"], ["editing"])
    (records / ".evaluation.csv.ab12_xyz.prunejax-part").touch()
    gone_along, sweeps_along = [], points.sweeps_along
    monkeypatch.setattr(points, "sweeps_along", lambda *given: (gone_along.append(given[2]), sweeps_along(*given))[1])
    evaluate_run(run, tiny_model, [2, 5], ["none"], ["editing"])
    assert gone_along == [[2, 5]]
    assert [path.name for path in records.iterdir()] == ["evaluation.csv"]


def test_an_interrupted_evaluation_keeps_its_points(
    run: Run, tiny_model: Model, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, scored = points.score, []

    def failing(model: Model, asked: Asked) -> pd.DataFrame:
        if scored:
            raise KeyboardInterrupt
        scored.append(asked)
        return score(model, asked)

    monkeypatch.setattr(points, "score", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run, tiny_model, [2, 5], ["none"], ["editing"])
    assert set(read_records(records / "evaluation.csv")["n_edits"]) == {2}


def test_a_restraint_that_changes_nothing_repeats_the_rows_of_none(
    run: Run, tiny_model: Model, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate_run(run, tiny_model, [0], ["none"], ["editing"])
    monkeypatch.setattr(points, "score", None)  # the unedited model needs no second look
    summary = evaluate_run(run, tiny_model, [0], ["none", "clip"], ["editing"])
    by_restraint = [group.drop(columns="restraint").reset_index(drop=True) for _, group in summary.groupby("restraint")]
    pd.testing.assert_frame_equal(*by_restraint)


def test_spectra_are_those_of_the_dense_matrices(run: Run, tiny_model: Model, records: Path) -> None:
    spectra_of_run(run, tiny_model, [1, N], ["none", "log:e"])
    rows = read_records(records / "spectra.csv").set_index(["n_edits", "restraint", "case", "metric"])["value"]
    original = np.asarray(tiny_model.weight(TENSOR), np.float64)
    m = np.linalg.svd(original, compute_uv=False)[0]
    for n in (1, N):
        plain = delta(run, tiny_model, n)
        for spec in ("none", "log:e"):
            restrained = oracles.restrained_delta(spec, plain, m)
            for case, matrix, rank in (
                (f"update:{TENSOR}", restrained, n),
                (f"weight:{TENSOR}", original + restrained, 16),
            ):
                sigma = np.linalg.svd(matrix, compute_uv=False)[:rank]
                expected = {
                    "sigma_max": sigma[0],
                    "sigma_min": sigma[-1],
                    "kappa": sigma[0] / sigma[-1],
                    "frobenius": np.linalg.norm(sigma),
                    "rank": rank,
                }
                for metric, value in expected.items():
                    assert rows[n, spec, case, metric] == pytest.approx(value, rel=1e-4), (n, spec, case, metric)
        gains = np.linalg.svd(oracles.restrained_delta("log:e", plain, m), compute_uv=False)[:n]
        gains = gains / np.linalg.svd(plain, compute_uv=False)[:n]
        assert rows[n, "log:e", f"update:{TENSOR}", "amplification"] == pytest.approx(gains.max(), rel=1e-4)
        assert rows[n, "log:e", f"weight:{TENSOR}", "margin"] == pytest.approx(m, rel=1e-4)
        assert (n, "none", f"weight:{TENSOR}", "margin") not in rows
    assert rows[N, "log:e", f"update:{TENSOR}", "sigma_max"] < rows[N, "none", f"update:{TENSOR}", "sigma_max"]


def test_spectra_of_a_run_that_was_restrained_on_the_way(tmp_path: Path, tiny_model: Model) -> None:
    """Where the accumulated update was replaced, what is carried along begins anew."""
    run = edit_tiny(tmp_path / "run", tiny_model, "log:e@3")
    spectra_of_run(run, tiny_model, [1, 2, 3, 5, N], ["none", "clip"])
    rows = read_records(run.folder / "records" / "spectra.csv")
    rows = rows.set_index(["n_edits", "restraint", "case", "metric"])["value"]
    original = np.asarray(tiny_model.weight(TENSOR), np.float64)
    for n in (1, 2, 3, 5, N):
        edited = original + delta(run, tiny_model, n)
        for spec in ("none", "clip"):
            sigma = np.linalg.svd(oracles.restrained_weight(spec, original, edited), compute_uv=False)
            assert rows[n, spec, f"weight:{TENSOR}", "sigma_max"] == pytest.approx(sigma[0], rel=1e-5)
            assert rows[n, spec, f"weight:{TENSOR}", "kappa"] == pytest.approx(sigma[0] / sigma[-1], rel=1e-4)


@pytest.mark.parametrize("measure", ["scores", "spectra"])
def test_an_update_is_decomposed_once_for_all_restraints_and_sigma_max_once_for_the_run(
    run: Run, tiny_model: Model, records: Path, monkeypatch: pytest.MonkeyPatch, measure: str
) -> None:
    decomposed, norms = [], []
    svd, sigma_max = sweep.svd, points.sigma_max
    monkeypatch.setattr(sweep, "svd", lambda update: (decomposed.append(update), svd(update))[1])
    monkeypatch.setattr(points, "sigma_max", lambda weight: (norms.append(weight), sigma_max(weight))[1])
    scored = pd.DataFrame([{"case": "007", "metric": "efficacy", "value": 1.0}])
    monkeypatch.setattr(points, "score", lambda *_: scored)
    restraints = ["none", "log:e", "log:1.2", "clip", "rescale:clip"]
    if measure == "scores":
        evaluate_run(run, tiny_model, [0, 2, N], restraints, ["editing"])
    else:
        spectra_of_run(run, tiny_model, [0, 2, N], restraints)
    assert (len(decomposed), len(norms)) == (2, 1)


def test_eta_is_the_next_edit_over_the_smallest_singular_value(run: Run, tiny_model: Model, records: Path) -> None:
    spectra_of_run(run, tiny_model, [0, 3, N], ["none", "log:e"])
    rows = read_records(records / "spectra.csv")
    rows = rows[rows["metric"] == "eta"].set_index(["restraint", "n_edits"])["value"]
    assert set(rows.index) == {("none", 0), ("none", 3)}, "after the last edit there is none to come"
    for n in (0, 3):
        smallest = np.linalg.svd(np.asarray(tiny_model.weight(TENSOR)) + delta(run, tiny_model, n))[1][-1]
        step = delta(run, tiny_model, n + 1) - delta(run, tiny_model, n)
        assert rows["none", n] == pytest.approx(np.linalg.norm(step, 2) / smallest, rel=1e-3)


def test_drift_is_recorded_where_there_is_a_second_moment(run: Run, tiny_model: Model, records: Path) -> None:
    c = np.diag(np.geomspace(0.1, 3, 64)).astype(np.float32)
    moments = Moments({TENSOR: SecondMoment(c, 10)}, "0" * 64)
    spectra_of_run(run, tiny_model, [0, N], ["none", "clip", "rescale:clip", "random:3"], moments)
    rows = read_records(records / "spectra.csv")
    rows = rows[rows["metric"] == "drift"].set_index(["restraint", "n_edits"])["value"]
    original, plain = np.asarray(tiny_model.weight(TENSOR), np.float64), delta(run, tiny_model, N)
    m = np.linalg.svd(original, compute_uv=False)[0]
    assert rows["none", 0] == rows["clip", 0] == 0
    own = accumulated(run, N, {TENSOR: tiny_model.weight(TENSOR)})[TENSOR]
    drawn = np.asarray(dense(restrain(parse("random:3"), own, m)), np.float64)
    for spec in ("none", "clip", "rescale:clip", "random:3"):
        changed = drawn if spec == "random:3" else oracles.restrained_delta(spec, plain, m)
        expected = np.linalg.norm(np.sqrt(c) @ changed) / np.linalg.norm(np.sqrt(c) @ original)
        assert rows[spec, N] == pytest.approx(expected, rel=1e-4)


def test_the_spectrum_after_no_edit_is_that_of_the_unedited_weight(run: Run, tiny_model: Model, records: Path) -> None:
    spectra_of_run(run, tiny_model, [0], ["none", "log:1.2"])
    rows = read_records(records / "spectra.csv").set_index(["restraint", "case", "metric"])["value"]
    sigma = np.linalg.svd(np.asarray(tiny_model.weight(TENSOR), np.float64), compute_uv=False)
    for spec in ("none", "log:1.2"):
        assert rows[spec, f"update:{TENSOR}", "sigma_max"] == 0
        assert rows[spec, f"update:{TENSOR}", "rank"] == 0
        assert rows[spec, f"weight:{TENSOR}", "kappa"] == pytest.approx(sigma[0] / sigma[-1], rel=1e-5)


def test_spectra_of_more_points_join_those_on_record(run: Run, tiny_model: Model, records: Path) -> None:
    spectra_of_run(run, tiny_model, [1], ["none"])
    first = read_records(records / "spectra.csv")
    summary = spectra_of_run(run, tiny_model, [2], ["none", "none"])
    assert set(summary["n_edits"]) == {2}
    rows = read_records(records / "spectra.csv")
    assert set(rows["n_edits"]) == {1, 2}
    pd.testing.assert_frame_equal(rows[rows["n_edits"] == 1].reset_index(drop=True), first)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"edits": [1, 8]}, "has 7 edits, 8 were asked for"),
        ({"restraints": ["log:1"]}, "BASE must be"),
        ({"restraints": []}, "none is named"),
        ({"tasks": ["singing"]}, "task 'singing': there are editing, abilities, perplexity, or all"),
        ({"tasks": []}, "there are editing"),
    ],
)
def test_what_cannot_be_measured_is_named_and_nothing_is_written(
    run: Run, tiny_model: Model, records: Path, asked: dict[str, Any], complaint: str
) -> None:
    given = {"edits": [1], "restraints": ["none"], "tasks": ["editing"]} | asked
    with pytest.raises(InputError, match=complaint):
        evaluate_run(run, tiny_model, **given)
    if "tasks" not in asked:
        given.pop("tasks")
        with pytest.raises(InputError, match=complaint):
            spectra_of_run(run, tiny_model, **given)
    assert not any(records.glob("*"))


def test_without_numbers_the_last_edit_is_measured(run: Run, tiny_model: Model, records: Path) -> None:
    assert set(spectra_of_run(run, tiny_model, None, ["none"])["n_edits"]) == {N}


def test_a_run_is_measured_on_the_model_it_came_from(
    run: Run, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model_of(run, str(tiny_folder)).sha256 == load_model(tiny_folder).sha256
    other = save_tiny(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="another checksum"):
        model_of(run, str(other))
    monkeypatch.setattr(points, "WORLD_FOLDER", other)
    with pytest.raises(InputError, match="not from the embedded one; give its folder with --model"):
        model_of(run, None)
    for module in (points, sources):
        monkeypatch.setattr(module, "WORLD_FOLDER", tiny_folder)
    assert model_of(run, None).sha256 == run.facts["model"]["sha256"]


def test_what_is_evaluated_now_is_what_a_later_call_reads(
    tmp_path: Path, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = pd.DataFrame([{"case": "007", "metric": "efficacy", "value": 1 / 3}])
    monkeypatch.setattr(points, "score", lambda model, asked: third)
    run = edit_tiny(tmp_path / "run", tiny_model)
    first, again = (evaluate_run(run, tiny_model, [2], ["none"], ["editing"]) for _ in range(2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
