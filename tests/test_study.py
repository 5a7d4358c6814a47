"""The study: its grid hangs together, and making records goes through the motions once, resumably, on tiny runs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from prunejax import ages, points, study, values, workers
from prunejax.editors import EDITORS, settings_of
from prunejax.editors.moments import load_moments
from prunejax.errors import InputError
from prunejax.grid import (
    CHOSEN,
    CONTROLLED,
    EVERY_BASE,
    PRESET,
    SERIES,
    SINGLE,
    STORED,
    TUNED,
)
from prunejax.holding import PROGRESS, beside, held_output
from prunejax.intervals import summarize
from prunejax.models.checkpoints import Model
from prunejax.models.presets import preset_settings
from prunejax.points import weights_after
from prunejax.records import Provenance, read_records, verify_manifest
from prunejax.requests import draw
from prunejax.restraint import parse
from prunejax.run import Run, open_run
from prunejax.schedule import parse_schedule
from prunejax.series import EDITS, POOL, SPECTRA_EDITS, Series
from prunejax.sources import RECORDS, WORLD_FOLDER, WORLD_MOMENTS, find_world
from prunejax.stored import read_state
from prunejax.study import (
    add_records,
    edit_run,
    make_records,
    model_of_seed,
    settings_for,
    single_cases,
    single_records,
    store_states,
)
from prunejax.tournament import LONG, TOURNAMENT
from prunejax.tune import best_base
from prunejax.world.facts import POOLS, edit_requests
from tiny import TEXTS, save_tiny
from tiny_runs import REQUESTS, TENSOR, contents, edit_tiny

PROVENANCE = Provenance("run", "world", "world/report:7", "rome", "world", 1)


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series.name)
def test_a_series_can_be_run(series: Series) -> None:
    settings_of(series.editor, preset_settings(PRESET, series.editor))
    assert [parse(spec).spec for spec in series.scored] == list(series.scored)
    assert series.during or series.restraints[0] == "none"
    assert len(set(series.restraints)) == len(series.restraints)
    assert set(series.followed) <= set(series.restraints)
    for edits in (series.edits, series.spectra_edits):
        assert list(edits) == sorted(set(edits))
        assert edits[0] == 0
        assert edits[-1] == (series.length or POOLS[series.pool]) or series in TOURNAMENT
        assert edits[-1] <= POOLS[series.pool]
        assert all(n % series.batch == 0 for n in edits)
    assert len(set(series.orders)) == len(series.orders) >= (2 if series.pool == "tune" else 3)


def test_series_share_a_folder_only_if_they_are_the_same_runs() -> None:
    assert len({series.name for series in SERIES}) == len(SERIES)
    made = {
        (s.folder, s.model, s.editor, s.pretraining_seed, s.pool, s.during, s.batch, s.length, s.changed)
        for s in SERIES
    }
    assert len({folder for folder, *_ in made}) == len(made)


def test_a_run_restrained_meanwhile_is_scored_as_it_was_edited() -> None:
    kinds = {series.during: series for series in SERIES if series.during and series.editor == "rome"}
    assert kinds["log:e@50"].scored == ("none",), "what accumulated is restrained already"
    assert kinds["log:e@50,raw"].scored == ("log:e",), "what accumulated is not"
    assert kinds["log:e@50,raw"].schedule == parse_schedule("log:e@50,raw")
    assert kinds["log:e@50"].folder == "world-rome-log-e-every-50"
    assert all(n % one.schedule.every == 0 for one in SERIES if one.schedule for n in one.edits)
    masked = replace(kinds["log:e@50"], restraints=("rect:20",))
    assert (masked.scored, masked.schedule) == (("none",), None), "its updates are masked already"
    assert masked.folder == "world-rome-rect-20"
    assert all(series.scored == series.restraints and series.schedule is None for series in SERIES if not series.during)


@pytest.mark.parametrize("editor", CHOSEN)
def test_the_base_of_each_editor_was_chosen_on_the_tune_pool(editor: str) -> None:
    rows = read_records(RECORDS / "tune-evaluation.csv")
    rows = rows[rows["editor"] == editor]
    assert set(rows["requests"]) == {f"world/tune:{TUNED}"}
    assert set(rows["restraint"]) == set(EVERY_BASE)
    chosen, _ = best_base(rows, TUNED)
    assert CHOSEN[editor] == chosen
    assert {chosen, f"rescale:{chosen}"} <= set(CONTROLLED[editor])


@pytest.mark.parametrize(
    ("kind", "restraints"), [("tournament", ("none", "log:e", "log:1.35")), ("rect", ("rect:20",))]
)
def test_the_tournament_asks_every_editor_alike(kind: str, restraints: tuple[str, ...]) -> None:
    """All of the table, in the same orders, under the same restraints, after as many edits; six of them to the end."""
    entered = {series.editor: series for series in TOURNAMENT if series.name.startswith(f"{kind}-")}
    assert set(entered) == set(EDITORS)
    for series in entered.values():
        assert series.orders == (0, 1, 2)
        assert series.edits[:4] == (0, 10, 100, 300)
        assert series.restraints == {"tournament": ("none", "log:e", "log:1.35"), "rect": ("rect:20",)}[kind]
        assert (series.batch, series.changed) == (1, ())
    assert {editor for editor, series in entered.items() if series.edits[-1] == 1000} == set(LONG)
    assert len(LONG) == 6


def test_changed_settings_batches_and_lengths_reach_the_run() -> None:
    null = next(series for series in TOURNAMENT if series.changed)
    assert settings_for(null, Path()).cut == dict(null.changed)["cut"]
    assert settings_for(replace(null, changed=()), Path()).cut != "none"
    one = next(series for series in TOURNAMENT if series.batch == 10)
    assert (one.length, one.folder) == (300, "world-memit-10-at-once-300-edits")


def test_series_in_one_file_measure_nothing_twice() -> None:
    rows = [
        (s.files, s.model, s.label or s.editor, s.batch, order, n, spec)
        for s in SERIES
        for order in s.orders
        for n in s.edits
        for spec in s.restraints
    ]
    assert len(set(rows)) == len(rows)


def test_the_grid_is_as_large_as_was_promised() -> None:
    main, *others = (series for series in SERIES if not series.files)
    assert main.pretraining_seed == 0
    assert len(main.orders) >= 5
    assert main.edits == EDITS
    assert len({series.pretraining_seed for series in SERIES}) >= 3
    for series in others:
        assert set(series.restraints) <= set(main.restraints)
        assert set(series.edits) <= set(main.edits)
    assert set(STORED) <= set(main.edits)
    assert POOLS[POOL] >= SINGLE
    # The same-norm control stands beside what it controls for.
    for series in SERIES:
        rescaled = {spec.removeprefix("rescale:") for spec in series.restraints if spec.startswith("rescale:")}
        assert rescaled <= set(series.restraints)
    assert any(spec.startswith("rescale:") for spec in main.restraints)


def test_a_live_slice_is_on_record() -> None:
    assert 10 in SERIES[0].edits
    assert 10 in SPECTRA_EDITS


def test_an_unknown_series_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="series 'wrold': there are world, world-seed-1, world-seed-2"):
        next(make_records(tmp_path / "records", tmp_path / "runs", ["world", "wrold"]))
    assert list(tmp_path.iterdir()) == []


def sampled_as(monkeypatch: pytest.MonkeyPatch, contexts: Callable) -> None:
    monkeypatch.setitem(EDITORS, "rome", EDITORS["rome"]._replace(contexts=contexts))


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `edit_run` hands to the sequence of edits."""
    seen: dict[str, Any] = {}
    names = ("folder", "model", "requests", "plan", "contexts", "moments")
    monkeypatch.setattr(study, "edit_sequence", lambda *given: seen.update(zip(names, given, strict=True)))
    sampled_as(monkeypatch, lambda model, seed: (model, seed))
    monkeypatch.setattr(study, "moments_for", lambda series, model, path: path)
    return seen


def test_a_run_edits_the_pool_in_the_order_of_its_seed(handed: dict[str, Any]) -> None:
    edit_run(SERIES[0], 3, "model", Path("moments"), Path("runs"))
    pool = edit_requests(find_world(), "report")
    assert handed["requests"] == draw(pool, 1000, 3)
    assert handed["folder"] == Path("runs/world-rome-3")
    assert (handed["model"], handed["contexts"], handed["moments"]) == ("model", ("model", 3), Path("moments"))
    plan = handed["plan"]
    assert (plan.editor, plan.preset, plan.seed, plan.source) == ("rome", PRESET, 3, "world/report:1000")
    assert plan.restrain == ""
    assert plan.settings == settings_of("rome", preset_settings(PRESET, "rome"))


def test_a_slice_is_the_beginning_of_the_whole_run(handed: dict[str, Any]) -> None:
    edit_run(SERIES[0], 3, "model", Path("moments"), Path("runs"))
    whole = handed["requests"]
    edit_run(SERIES[0], 3, "model", Path("moments"), Path("runs"), 10)
    assert handed["requests"] == whole[:10]
    assert handed["plan"].source == "world/report:10"


def test_the_committed_model_is_that_of_seed_0(tmp_path: Path) -> None:
    model, moments = model_of_seed(0, tmp_path)
    assert (model.folder, moments) == (WORLD_FOLDER, WORLD_MOMENTS)


def test_another_pretraining_seed_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def pretrain(folder: Path, seed: int) -> Path:
        seeds.append(seed)
        return save_tiny(folder, seed)

    monkeypatch.setattr(study, "pretrain_world", pretrain)
    monkeypatch.setattr(study, "find_text", lambda source: list(TEXTS))
    model, moments = model_of_seed(2, tmp_path)
    assert model.folder == tmp_path / "world-seed-2"
    (layer,) = preset_settings(PRESET, "rome")["layers"]
    assert load_moments(moments, [model.family.edited_tensor(layer)]).of(model.family.edited_tensor(layer)).count > 0
    before = contents(tmp_path)
    again, _ = model_of_seed(2, tmp_path)
    assert seeds == [2]
    assert again.sha256 == model.sha256
    assert contents(tmp_path) == before
    beside(model.folder, PROGRESS).touch()  # an older model lies there, and its successor was cut
    model_of_seed(2, tmp_path)
    assert seeds == [2, 2]


@pytest.fixture(scope="module")
def run(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return edit_tiny(tmp_path_factory.mktemp("study") / "run", tiny_model)


def test_states_are_the_unrestrained_weights(run: Run, tiny_model: Model, tmp_path: Path) -> None:
    series = replace(SERIES[0], stored=(1, len(REQUESTS)))
    states = load_file(store_states(run, tiny_model, series, tmp_path / "states.safetensors"))
    assert sorted(states) == [f"1.{TENSOR}", f"{len(REQUESTS)}.{TENSOR}"]
    for name, stored in states.items():
        n = int(name.partition(".")[0])
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, weights_after(run, tiny_model, n, parse("none"))[TENSOR])
    assert not np.array_equal(*states.values())


def summary(n_edits: int, value: float, restraint: str = "none", model: str = "world") -> pd.DataFrame:
    row = ("rome", restraint, n_edits, 0, "case", "efficacy", value)
    cases = pd.DataFrame([row], columns=["editor", "restraint", "n_edits", "seed", "case", "metric", "value"])
    return summarize(cases, PROVENANCE._replace(model=model))


def test_records_replace_their_own_rows_and_keep_the_others(tmp_path: Path) -> None:
    path = tmp_path / "records" / "evaluation.csv"
    for rows in (summary(1, 0.0), summary(2, 1.0), summary(1, 0.0, "clip"), summary(1, 0.0, model="world-seed-1")):
        assert add_records(path, rows) == path
    add_records(path, summary(1, 1.0))
    found = read_records(path).set_index(["model", "n_edits", "restraint"])["mean"]
    assert found.to_dict() == {
        ("world", 1, "clip"): 0.0,
        ("world", 1, "none"): 1.0,
        ("world", 2, "none"): 1.0,
        ("world-seed-1", 1, "none"): 0.0,
    }
    before = path.read_bytes()
    add_records(path, summary(2, 1.0))
    assert path.read_bytes() == before


@pytest.fixture
def tiny_study(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[Path]]:
    """`make_records` on two tiny series of one model; single edits are only noted."""
    series = (
        Series("world", "world", "rome", 0, (0, 1), (0, 2, 3), ("none", "clip"), (0, 1, 3), stored=(2, 3)),
        Series("world-seed-1", "world-seed-1", "rome", 1, (0,), (0, 3), ("none",), (0, 1, 3)),
    )

    def edit(series: Series, order: int, model: Model, moments: Path, runs: Path) -> Run:
        return edit_tiny(runs / f"{series.model}-{order}", model, requests=draw(REQUESTS, 3, order), seed=order)

    def note(series: Series, model: Model, moments: Path, out: Path) -> Iterator[Path]:
        yield out / f"{series.model}-single"

    changed = {
        "SERIES": series,
        "STUDIES": {"keys": lambda out, runs, each: [out / "keys"]},
        "TASKS": ("editing",),
        "edit_run": edit,
        "model_of_seed": lambda seed, runs: (tiny_model, Path("moments")),
        "moments_for": lambda series, model, moments: None,
        "single_records": note,
    }
    for name, value in changed.items():
        monkeypatch.setattr(study, name, value)
    return lambda folder, *names: list(make_records(folder / "records", folder / "runs", names))


def test_records_are_made_of_every_series_and_order(
    tiny_study: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [path.name for path in tiny_study(tmp_path)]
    both = ["evaluation.csv", "spectra.csv"]
    assert written == [*both, "states.safetensors", *both, "world-single", *both, "keys", "records.json"]
    records = tmp_path / "records"
    assert set(verify_manifest(records)) == {*both, "states.safetensors"}
    scored, spectra = (read_records(records / name) for name in both)
    assert set(zip(scored["model"], scored["seed"], strict=True)) == {("world", 0), ("world", 1), ("world-seed-1", 0)}
    main = scored[scored["model"] == "world"]
    assert set(zip(main["n_edits"], main["restraint"], strict=True)) == {
        (n, restraint) for n in (0, 2, 3) for restraint in ("none", "clip")
    }
    assert set(spectra["n_edits"]) == {0, 1, 3}
    # A state is that of the first order, after so many edits.
    weight = load_file(records / "states.safetensors")[f"3.{TENSOR}"]
    norm = spectra[(spectra["metric"] == f"frobenius:weight:{TENSOR}") & (spectra["model"] == "world")]
    recorded = norm[(norm["seed"] == 0) & (norm["n_edits"] == 3) & (norm["restraint"] == "none")]["mean"].item()
    assert np.linalg.norm(weight) == pytest.approx(recorded, rel=1e-4)

    before = contents(records)
    monkeypatch.setattr(points, "score", None)  # what is on record is not scored again
    tiny_study(tmp_path)
    assert contents(records) == before


@pytest.mark.parametrize("folder", ["records", "runs"])
def test_records_are_made_by_one_process_at_a_time(
    tiny_study: Callable[..., list[Path]], tmp_path: Path, folder: str
) -> None:
    with (
        held_output(tmp_path / folder, folder),
        pytest.raises(InputError, match=rf"{folder} .*{folder}: process \d+ on .* writes into it"),
    ):
        tiny_study(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / ".evaluation.csv.ab12_xyz.prunejax-part").touch()
    tiny_study(tmp_path, "world-seed-1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records", "runs"]
    assert not list((tmp_path / "records").glob(".*"))


def test_only_the_series_that_are_named_are_made(tiny_study: Callable[..., list[Path]], tmp_path: Path) -> None:
    written = [path.name for path in tiny_study(tmp_path, "world-seed-1")]
    assert written == ["evaluation.csv", "spectra.csv", "records.json"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["world-seed-1-0"]


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Single edits of the world's requests, made up: the arguments they were asked for with."""
    seen: dict[str, Any] = {}

    def make_up(model: Any, requests: Any, editor: str, settings: Any, contexts: Any, moments: Any) -> pd.DataFrame:
        seen.update(requests=requests, editor=editor, settings=settings)
        rows = []
        for number, request in enumerate(requests):
            rows += [
                (number, request.case_id, "efficacy", 0.0, 1.0),
                (number, request.case_id, "locality_top1", 1.0, 0.75),
                (number, request.case_id, "sigma_max:update", 0.0, 0.5 + number / 1000),
                (number, request.case_id, "sigma_max:weight", 4.0, 4.5),
                (number, request.case_id, "kappa:weight", 90.0, 95.0),
            ]
        return pd.DataFrame(rows, columns=["edit", "case", "metric", "before", "after"])

    monkeypatch.setattr(study, "single_edits", make_up)
    sampled_as(monkeypatch, lambda model, seed: ("{}",))
    monkeypatch.setattr(study, "moments_for", lambda series, model, path: path)
    return seen


def test_single_cases_are_the_requests_of_the_first_order(edited: dict[str, Any]) -> None:
    rows = single_cases(SERIES[0], [5, 2], "model", WORLD_MOMENTS)
    order = draw(edit_requests(find_world(), POOL), 10, 0)
    assert edited["requests"] == [order[5], order[2]]
    assert edited["editor"] == "rome"
    assert edited["settings"] == settings_of("rome", preset_settings(PRESET, "rome"))
    found = rows[rows["case"] == order[2].case_id].set_index(["n_edits", "metric"])["value"].to_dict()
    assert found == {
        (0, "efficacy"): 0.0,
        (1, "efficacy"): 1.0,
        (0, "locality_top1"): 1.0,
        (1, "locality_top1"): 0.75,
        (0, "sigma_max"): 4.0,
        (1, "sigma_max"): 0.501,
    }
    assert set(rows["restraint"]) == {"none"}


def test_single_records_keep_the_cases_and_their_summary(edited: dict[str, Any], tmp_path: Path) -> None:
    paths = list(single_records(SERIES[0], "model", WORLD_MOMENTS, tmp_path))
    assert [path.name for path in paths] == ["single_cases.csv", "single.csv"]
    cases, means = map(read_records, paths)
    assert cases["case"].nunique() == SINGLE
    assert len(cases) == SINGLE * 2 * 3
    found = means.set_index(["n_edits", "metric"])
    assert set(found.index) == {(n, metric) for n in (0, 1) for metric in ("efficacy", "locality_top1")}
    assert set(found["n"]) == {SINGLE}
    assert found.loc[(1, "locality_top1"), "mean"] == 0.75
    assert found["requests"].unique().tolist() == [f"world/{POOL}:{SINGLE}"]


def test_followed_restraints_get_ages_and_early_values(
    tiny_study: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, *_) = study.SERIES
    monkeypatch.setattr(study, "SERIES", (replace(first, followed=("clip",), files="of-"),))
    for module in (study, values):
        monkeypatch.setattr(module, "EARLY", 2)
    monkeypatch.setattr(ages, "AGES", (0, 2, 100))
    written = [path.name for path in tiny_study(tmp_path)]
    own = ["of-evaluation.csv", "of-spectra.csv", "of-ages.csv", "of-early.csv"]
    assert written == [*own, "of-values.csv", "of-states.safetensors", *own, "world-single", "keys", "records.json"]
    found = {name: read_records(tmp_path / "records" / name) for name in set(written) if name.endswith(".csv")}
    assert set(found["of-ages.csv"]["restraint"]) == {"clip"}
    assert set(found["of-ages.csv"]["seed"]) == {0, 1}
    assert set(found["of-early.csv"]["n_edits"]) == {0, 3}
    assert set(found["of-values.csv"]["seed"]) == {0}
    late = found["of-values.csv"].query("n_edits > 2")
    assert set(late["restraint"]) == {"clip"}
    median = late.query("metric == 'value_change' and n_edits == 3")["value"].median()
    kept = found["of-early.csv"].query("metric == 'value_change:early' and n_edits == 3 and seed == 0")
    assert kept["mean"].item() == pytest.approx(median, rel=1e-5)


def test_a_scheduled_series_measures_the_weights_that_it_edited(
    tiny_study: Callable[..., list[Path]], tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(series: Series, order: int, model: Model, moments: Path, runs: Path) -> Run:
        return edit_tiny(runs / f"{series.folder}-{order}", model, series.during, REQUESTS[:4], seed=order)

    specs = ("log:1.5@2", "log:1.5@2,raw")
    series = [
        Series(f"s{i}", "world", "rome", 0, (0,), (0, 4), (spec,), (0, 4), stored=(4,), files=f"{i}-")
        for i, spec in enumerate(specs)
    ]
    once = Series("once", "world", "rome", 0, (0,), (0, 4), ("none", "log:1.5"), (0, 4))
    monkeypatch.setattr(study, "SERIES", (once, *series))
    monkeypatch.setattr(study, "edit_run", edit)
    tiny_study(tmp_path)
    original = np.asarray(tiny_model.weight(TENSOR))
    sizes = {}
    for one in (once, *series):
        rows = read_records(tmp_path / "records" / f"{one.files}spectra.csv")
        assert set(rows["restraint"]) == set(one.restraints)
        rows = rows[(rows["metric"] == f"frobenius:update:{TENSOR}") & (rows["n_edits"] == 4)]
        sizes |= rows.set_index("restraint")["mean"].to_dict()
        if one.during:
            left = np.asarray(read_state(open_run(tmp_path / "runs" / f"{one.folder}-0"), 4)[TENSOR])
            assert sizes[one.during] == pytest.approx(np.linalg.norm(left - original), rel=1e-4)
            stored = load_file(tmp_path / "records" / f"{one.files}states.safetensors")[f"4.{TENSOR}"]
            np.testing.assert_allclose(stored, left, rtol=1e-4, atol=1e-5)
    assert len({round(size, 3) for size in sizes.values()}) == 4, "each of them is another update"


def test_orders_are_made_by_several_processes_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, kept = [], []

    class Pool:
        def __init__(self, jobs: int, context: Any, initializer: Callable, initargs: tuple) -> None:
            asked.append((jobs, context.get_start_method(), initializer))
            for _ in range(3):
                initializer(*initargs)

        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *error: object) -> None:
            asked.append("closed")

        map = staticmethod(map)

    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda process: {7, 4}, raising=False)
    monkeypatch.setattr(workers.os, "sched_setaffinity", lambda process, cores: kept.append(cores), raising=False)
    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(study, "measure", lambda runs, one: {"order": one})
    monkeypatch.setattr(study, "model_of_seed", lambda seed, runs: asked.append(seed))
    monkeypatch.setattr(study, "prepare", lambda series, runs: asked.append(series.name))

    def order(jobs: int) -> list:
        with workers.workers(jobs) as each:
            return list(study.measured(SERIES[:2], tmp_path, each))

    alone, together = order(1), order(2)
    assert alone == together == [{"order": (series, seed)} for series in SERIES[:2] for seed in series.orders]
    inputs = [0, 1, "world", "world-seed-1"]
    assert asked == [*inputs, (2, "spawn", workers.begin_work), *inputs, "closed"]
    assert kept == [{4}, {7}, {4}]


def test_each_seed_of_mend_has_a_network_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_seed = {series.pretraining_seed: series for series in SERIES if series.editor == "mend" and series.pool == POOL}
    assert set(by_seed) == {0, 1, 2}
    assert study.settings_for(by_seed[0], tmp_path).network == "world"
    assert study.settings_for(by_seed[2], tmp_path).network == str(tmp_path / "world-seed-2" / "mend.safetensors")
    trained = []
    monkeypatch.setattr(study, "model_of_seed", lambda seed, runs: (f"model {seed}", Path("moments")))
    monkeypatch.setattr(study, "moments_to_measure", lambda *given: None)
    monkeypatch.setattr(study, "train_mend", lambda *given: trained.append(given))
    for seed in (0, 1):
        study.prepare(by_seed[seed], tmp_path)
    ((model, requests, training, seed, out),) = trained
    assert (model, seed, out) == ("model 1", 0, tmp_path / "world-seed-1" / "mend.safetensors")
    assert requests == edit_requests(find_world(), "train")
    assert training.layers == study.settings_for(by_seed[1], tmp_path).layers


def test_drift_of_mend_is_measured_on_every_matrix_it_edits(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "find_text", lambda source: list(TEXTS))
    (mend, *_) = (series for series in SERIES if series.editor == "mend")
    found = study.moments_to_measure(mend, tiny_model, Path("unused"), tmp_path)
    assert set(found.by_tensor) == set(EDITORS["mend"].make(study.settings_for(mend, tmp_path)).tensors(tiny_model))
    before = contents(tmp_path)
    study.moments_to_measure(mend, tiny_model, Path("unused"), tmp_path)
    assert contents(tmp_path) == before
