"""Live checks find what they are for: a record that moved, a restraint mixed up with another, a stale one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from prunejax import live, values
from prunejax.errors import InputError
from prunejax.grid import SERIES
from prunejax.intervals import summarize
from prunejax.live import check_single, check_slice, check_state, check_values, compare, stored_weights
from prunejax.models.checkpoints import Model
from prunejax.points import evaluate_run, spectra_of_run, weights_after
from prunejax.records import CASE_COLUMNS, Provenance, read_records, write_records
from prunejax.requests import draw
from prunejax.restraint import parse
from prunejax.run import Run
from prunejax.scoring import score_model
from prunejax.series import Series
from tiny_runs import REQUESTS, TENSOR, edit_tiny

ORIGIN = Provenance("run", SERIES[0].model, "tiny", SERIES[0].editor, "world", 1)
N = len(REQUESTS)
METRICS = (
    *("efficacy", "locality_top1", "portability", "ability:arithmetic", "perplexity"),
    *(f"{name}:weight:{TENSOR}" for name in ("sigma_max", "sigma_min", "kappa", "frobenius", "rank")),
)


def recorded(restraint: str = "none", seed: int = 0, n_edits: int = 5, **values: float) -> pd.DataFrame:
    """Summary rows of one point: every score 0.5 and every other number 40, or as given."""
    rows = []
    for metric in METRICS:
        name, _, case = metric.partition(":")
        score = metric in METRICS[:4]
        of_number, of_case = (metric, "case") if score else (name, case or "all")
        value = values.get(name, 0.5 if score else 40.0)
        rows.append((ORIGIN.editor, restraint, n_edits, seed, of_case, of_number, value))
    return summarize(pd.DataFrame(rows, columns=list(CASE_COLUMNS)), ORIGIN)


def agrees(found: pd.DataFrame, records: pd.DataFrame, order: int = 0, n: int = 5, restraint: str = "none") -> bool:
    return compare(found, records, SERIES[0], order, n, restraint).agrees


def test_what_was_recorded_agrees_with_itself() -> None:
    check = compare(recorded(), recorded(), SERIES[0], 0, 5, "none")
    assert check.agrees
    assert list(check.rows.columns) == ["metric", "live", "recorded", "difference", "agrees"]
    assert sorted(check.rows["metric"]) == sorted(METRICS)
    assert (check.rows["difference"] == 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_one_record_moved_by_a_tenth_does_not_agree(metric: str) -> None:
    """A score by 0.1, any other number by a tenth of itself."""
    for sign in (-1, 1):
        records = recorded()
        at = records["metric"] == metric
        records.loc[at, ["mean", "lo", "hi"]] += sign * (0.1 if metric in METRICS[:4] else 4.0)
        check = compare(recorded(), records, SERIES[0], 0, 5, "none")
        assert not check.agrees
        assert check.rows.loc[~check.rows["agrees"], "metric"].tolist() == [metric]


def test_rounding_agrees() -> None:
    found = recorded(efficacy=0.51, perplexity=40.7, kappa=39.3)
    assert agrees(found, recorded())
    assert agrees(found[found["metric"] == "efficacy"], recorded(efficacy=0.5))
    assert not agrees(recorded(efficacy=0.53), recorded())


def test_numbers_are_compared_relatively_whatever_their_size() -> None:
    small = recorded(sigma_min=1e-5)
    assert agrees(small, recorded(sigma_min=1.01e-5))
    assert not agrees(small, recorded(sigma_min=2e-5))
    assert agrees(recorded(kappa=1e7), recorded(kappa=1.01e7))
    assert not agrees(recorded(sigma_min=0.1), recorded(sigma_min=0.0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_collapse_agrees_with_a_collapse_alone(value: float) -> None:
    broken = recorded(perplexity=value)
    assert agrees(broken, broken)
    assert not agrees(broken, recorded())
    assert not agrees(recorded(), broken)


def test_records_of_another_point_are_not_taken() -> None:
    good = recorded()
    for other in (recorded("clip"), recorded(seed=1), recorded(n_edits=6), recorded().assign(model="world-seed-1")):
        assert agrees(good, pd.concat([other.assign(mean=9.0), good]))
        with pytest.raises(InputError, match=r"records: no .* of order 0 after 5 edits under none"):
            agrees(good, other)


@pytest.fixture(scope="module")
def run(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return edit_tiny(tmp_path_factory.mktemp("live") / "run", tiny_model)


@pytest.fixture(scope="module")
def states(run: Run, tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """W_n after 3 and after all edits, as a study stores them."""
    path = tmp_path_factory.mktemp("states") / "states.safetensors"
    weights = {n: weights_after(run, tiny_model, n, parse("none")) for n in (3, N)}
    save_file({f"{n}.{name}": np.asarray(w) for n, of_n in weights.items() for name, w in of_n.items()}, path)
    return path


@pytest.fixture(scope="module")
def scores(run: Run, tiny_model: Model) -> pd.DataFrame:
    """What is on record of the run: its scores after all edits, unrestrained and clipped."""
    parts = []
    for spec in ("none", "clip"):
        rows = score_model(
            tiny_model.with_weights(weights_after(run, tiny_model, N, parse(spec))), REQUESTS, ["editing"]
        )
        rows = rows.assign(editor=ORIGIN.editor, restraint=spec, n_edits=N, seed=0)
        parts.append(summarize(rows[list(CASE_COLUMNS)], ORIGIN))
    return pd.concat(parts, ignore_index=True)


def test_a_stored_state_is_restrained_as_the_run_was(run: Run, tiny_model: Model, states: Path) -> None:
    for n in (3, N):
        plain = stored_weights(states, tiny_model, n)[TENSOR]
        np.testing.assert_allclose(plain, weights_after(run, tiny_model, n, parse("none"))[TENSOR], atol=1e-5)
        clipped = stored_weights(states, tiny_model, n, "clip")[TENSOR]
        np.testing.assert_allclose(clipped, weights_after(run, tiny_model, n, parse("clip"))[TENSOR], atol=1e-4)
    assert not np.allclose(plain, clipped, atol=0.1)


def test_a_state_that_is_not_stored_is_named(tiny_model: Model, states: Path) -> None:
    with pytest.raises(InputError, match=r"states .*: none after 4 edits"):
        stored_weights(states, tiny_model, 4)


@pytest.mark.parametrize("spec", ["none", "clip"])
def test_a_state_agrees_with_its_records(scores: pd.DataFrame, tiny_model: Model, states: Path, spec: str) -> None:
    check = check_state(scores, states, tiny_model, N, spec, ["editing"], REQUESTS)
    assert check.agrees
    assert len(check.rows) == 7


@pytest.mark.parametrize("spec", ["none", "clip"])
def test_restrained_and_unrestrained_swapped_do_not_agree(
    scores: pd.DataFrame, tiny_model: Model, states: Path, spec: str
) -> None:
    swapped = scores.assign(restraint=scores["restraint"].map({"none": "clip", "clip": "none"}))
    assert not check_state(swapped, states, tiny_model, N, spec, ["editing"], REQUESTS).agrees


def test_a_doctored_record_of_a_state_does_not_agree(scores: pd.DataFrame, tiny_model: Model, states: Path) -> None:
    doctored = scores.copy()
    first = doctored.index[doctored["restraint"] == "none"][0]
    doctored.loc[first, "mean"] += 0.1 if doctored.loc[first, "mean"] < 0.5 else -0.1
    assert not check_state(doctored, states, tiny_model, N, "none", ["editing"], REQUESTS).agrees


@pytest.fixture
def slices(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Live slices of tiny runs; the orders that were drawn."""
    drawn: list[int] = []

    def edit(series: Series, order: int, model: Model, moments: Path, runs: Path, n_edits: int) -> Run:
        drawn.append(order)
        return edit_tiny(runs / "run", model, requests=draw(REQUESTS, N, order)[:n_edits], seed=order)

    monkeypatch.setattr(live, "edit_run", edit)
    monkeypatch.setattr(live, "model_of_seed", lambda seed, runs: (tiny_model, Path("moments")))
    monkeypatch.setattr(live, "TASKS", ("editing",))
    return drawn


def whole_run(tiny_model: Model, order: int, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records of a whole run in that order: its scores and its spectra."""
    run = edit_tiny(folder / "run", tiny_model, requests=draw(REQUESTS, N, order), seed=order)
    edits, restraints, name = [0, 3, N], ["none", "clip"], SERIES[0].model
    scored = evaluate_run(run, tiny_model, edits, restraints, ["editing"])
    return scored.assign(model=name), spectra_of_run(run, tiny_model, edits, restraints).assign(model=name)


def test_a_slice_agrees_with_the_run_that_it_begins(slices: list[int], tiny_model: Model, tmp_path: Path) -> None:
    order = int(np.random.default_rng(8).choice(SERIES[0].orders))
    scored, spectra = whole_run(tiny_model, order, tmp_path)
    check = check_slice(scored, spectra, 3, seed=8)
    assert slices == [order]
    assert check.agrees
    assert {"efficacy", f"kappa:weight:{TENSOR}", f"sigma_max:update:{TENSOR}"} <= set(check.rows["metric"])

    for frame in (scored, spectra):
        moved = frame.assign(mean=frame["mean"] * 1.1 + 0.1)
        both = [moved if part is frame else part for part in (scored, spectra)]
        assert not check_slice(*both, 3, seed=8).agrees
    swap = {"none": "clip", "clip": "none"}
    swapped = [frame.assign(restraint=frame["restraint"].map(swap)) for frame in (scored, spectra)]
    assert not check_slice(*swapped, 3, seed=8).agrees


def test_which_order_is_drawn_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def note(series: Series, order: int, *given: object) -> None:
        drawn.append(order)
        raise InterruptedError

    monkeypatch.setattr(live, "edit_run", note)
    monkeypatch.setattr(live, "model_of_seed", lambda seed, runs: (None, Path("moments")))
    records = recorded()
    for _ in range(40):
        with pytest.raises(InterruptedError):
            check_slice(records, records)
    assert len(set(drawn)) > 1
    assert set(drawn) <= set(SERIES[0].orders)


@pytest.mark.parametrize("n_edits", [0, 21])
def test_a_slice_is_short(n_edits: int) -> None:
    with pytest.raises(InputError, match=f"a live slice has 1 to 20 edits, not {n_edits}"):
        check_slice(recorded(), recorded(), n_edits)


@pytest.fixture
def singles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pd.DataFrame:
    """Recorded single edits, and a study that makes the same ones again."""

    def cases(numbers) -> pd.DataFrame:
        rows = [
            (ORIGIN.editor, "none", n, 0, f"report-{number}", metric, value)
            for number in numbers
            for n, metric, value in (
                *((0, "efficacy", 0.0), (1, "efficacy", 1.0), (1, "locality_top1", 0.75)),
                *((0, "sigma_max", 4.0), (1, "sigma_max", 0.5 + number / 1000)),
            )
        ]
        return pd.DataFrame(rows, columns=list(CASE_COLUMNS))

    monkeypatch.setattr(live, "single_cases", lambda series, numbers, model, moments: cases(numbers))
    monkeypatch.setattr(live, "model_of_seed", lambda seed, runs: (None, Path("moments")))
    return read_records(write_records(tmp_path / "single_cases.csv", cases(range(live.SINGLE))))


def test_single_edits_agree_with_their_records(singles: pd.DataFrame) -> None:
    check = check_single(singles, 10)
    assert check.agrees
    assert len(check.rows) == 10 * 5
    assert set(check_single(singles, 10).rows["metric"]) != set(check.rows["metric"])


@pytest.mark.parametrize(("metric", "move"), [("efficacy", -0.1), ("locality_top1", 0.1), ("sigma_max", 0.05)])
def test_single_edits_of_moved_records_do_not_agree(singles: pd.DataFrame, metric: str, move: float) -> None:
    moved = singles.copy()
    moved.loc[(moved["metric"] == metric) & (moved["n_edits"] == 1), "value"] += move
    check = check_single(moved, 10, seed=1)
    assert not check.agrees
    assert check.rows.loc[~check.rows["agrees"], "metric"].str.endswith(f" {metric}").all()


def test_a_single_edit_that_is_not_on_record_does_not_agree(singles: pd.DataFrame) -> None:
    assert not check_single(singles[singles["metric"] != "locality_top1"], 10, seed=1).agrees


def test_values_under_a_stored_state_are_those_on_record(
    run: Run, states: Path, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (live, values):
        monkeypatch.setattr(module, "EARLY", 3)
    monkeypatch.setattr(live, "draw", lambda pool, n, order: REQUESTS[:n])
    rows = values.early_values(run, tiny_model, [N], ["none", "clip"])
    assert check_values(rows, states, tiny_model, N).agrees
    one = rows["case"] == REQUESTS[1].case_id
    moved = check_values(rows.assign(value=rows["value"].where(~one, rows["value"] * 1.1)), states, tiny_model, N)
    assert moved.rows["agrees"].tolist() == [True, False, True]
    swapped = rows.assign(restraint=rows["restraint"].replace({"none": "clip", "clip": "none"}))
    assert not check_values(swapped, states, tiny_model, N).agrees


def test_the_end_of_a_scheduled_run_is_scored_as_it_is(
    states: Path, tiny_model: Model, scores: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = Series("during", SERIES[0].model, "rome", 0, (0,), (0, N), ("log:e@50",), (0, N))
    monkeypatch.setattr(live, "series_named", lambda name: series)
    label = {"none": "log:e@50"}
    rows = scores.assign(restraint=scores["restraint"].replace(label))
    given = {"tasks": ["editing"], "requests": REQUESTS, "name": "during"}
    assert check_state(rows, states, tiny_model, N, "log:e@50", **given).agrees
    assert not check_state(
        rows.assign(restraint=scores["restraint"].replace({"clip": "log:e@50"})),
        states,
        tiny_model,
        N,
        "log:e@50",
        **given,
    ).agrees


def test_each_editor_is_shown_under_its_own_restraints() -> None:
    rows = pd.DataFrame({"editor": ["rome", "rome", "mend", "mend"], "restraint": ["none", "log:e", "none", "log:e"]})
    assert live.under(rows, {"rome": ["log:e"], "mend": ["none"]}).index.tolist() == [1, 2]
