"""Half precision: what each arm rounds and when, and what is read off its records."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax import Array
from numpy.testing import assert_allclose, assert_array_equal

from prunejax import half
from prunejax.base_checkpoint import find_base
from prunejax.delta import delta_of_run
from prunejax.editors import EDITORS
from prunejax.editors.rome import RomeSettings
from prunejax.half import (
    Edits,
    Point,
    edit,
    edited_points,
    half_records,
    held_in,
    on_text,
    rows_of,
    stored_points,
    summed_points,
    surprise,
)
from prunejax.half_costs import PAIRS, costs, roundings, unedited_costs, unit
from prunejax.half_live import held_against
from prunejax.intervals import student, wilson
from prunejax.models.checkpoints import Model, load_model
from prunejax.models.decoder import logits
from prunejax.records import SUMMARY_COLUMNS, check, read_records
from prunejax.restraint import parse
from prunejax.scoring import TASKS, Asked
from prunejax.sources import RECORDS, WORLD_FOLDER
from tiny import TEXTS, save_tiny
from tiny_runs import CONTEXTS, REQUESTS, SETTINGS, TENSOR, contents

EDITS = Edits("rome", RomeSettings(**SETTINGS), REQUESTS[:3], CONTEXTS, None, 0, (1, 3))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A tiny model whose file is float16, in the embedded model's place."""
    folder = save_tiny(tmp_path / "tiny", dtype="float16")
    monkeypatch.setattr(half, "WORLD_FOLDER", folder)
    monkeypatch.setattr(half, "TASKS", ("editing",))
    return load_model(folder)


def to(dtype: str, weight: Array) -> Array:
    return jnp.asarray(weight).astype(dtype).astype(jnp.float32)


def numbers(point: Point) -> dict[tuple[str, str], float]:
    return {(metric, case): value for case, metric, value in point.numbers}


def test_a_checkpoint_holds_the_weights_rounded_to_its_dtype(world: Model, tmp_path: Path) -> None:
    assert held_in("float16", tmp_path) == world.folder
    copy = load_model(held_in("bfloat16", tmp_path))
    assert copy.dtype == "float32"
    for tensor in (TENSOR, TENSOR.replace(".1.", ".2.")):
        assert_array_equal(copy.weight(tensor), to("bfloat16", world.weight(tensor)))
        assert not np.array_equal(copy.weight(tensor), world.weight(tensor))
    assert load_model(copy.folder, "bfloat16").dtype == "bfloat16"


def test_summing_in_float32_is_the_run_itself(world: Model, tmp_path: Path) -> None:
    run = edit(EDITS, world, tmp_path / "run")
    left, summed = list(edited_points(EDITS, run, world)), list(summed_points(EDITS, world))
    assert [point.n for point in left] == [point.n for point in summed] == [1, 3]
    for one, other in zip(left, summed, strict=True):
        assert_allclose(one.model.weight(TENSOR), other.model.weight(TENSOR), rtol=1e-5, atol=1e-5)
        found, expected = numbers(other), numbers(one)
        assert found.pop(("frobenius", f"rounding:{TENSOR}")) == 0
        assert found == pytest.approx(expected, rel=1e-4)
        size = np.linalg.norm(np.asarray(one.model.weight(TENSOR)) - np.asarray(world.weight(TENSOR)))
        assert expected["frobenius", f"update:{TENSOR}"] == pytest.approx(size, rel=1e-5)


@pytest.mark.parametrize("dtype", half.HALVES)
def test_summed_kernels_are_rounded_after_every_edit_and_stored_ones_once(
    world: Model, tmp_path: Path, dtype: str
) -> None:
    checkpoint = held_in(dtype, tmp_path)
    narrow, wide = load_model(checkpoint, dtype), load_model(checkpoint)
    run = edit(EDITS, narrow, tmp_path / "run")
    original = np.asarray(wide.weight(TENSOR))
    first, last = summed_points(EDITS, narrow)
    (exact, stored), (exact_last, stored_last) = stored_points(EDITS, run, wide)
    # The first edit sees the same weights, and is rounded once in both.
    assert_array_equal(first.model.weight(TENSOR), stored.model.weight(TENSOR))
    assert not np.array_equal(last.model.weight(TENSOR), stored_last.model.weight(TENSOR))
    for point in (first, last, stored, stored_last):
        weight = point.model.weight(TENSOR)
        assert weight.dtype == jnp.float32
        assert_array_equal(weight, to(dtype, weight))
    base = find_base(run.facts["model"], str(checkpoint), "run")
    for point, whole in ((stored, exact), (stored_last, exact_last)):
        assert_allclose(whole.model.weight(TENSOR), point.model.weight(TENSOR), rtol=2.0 ** (-8), atol=1e-6)
        assert not np.array_equal(whole.model.weight(TENSOR), to(dtype, whole.model.weight(TENSOR)))
        found = numbers(point)
        share = found["frobenius", f"rounding:{TENSOR}"] / found["frobenius", f"update:{TENSOR}"]
        told = delta_of_run(run, base, point.n, parse("none")).facts["tensors"][TENSOR]
        assert share == pytest.approx(told["rounding"], rel=0.01)
        size = np.linalg.norm(np.asarray(whole.model.weight(TENSOR), np.float64) - original)
        assert found["frobenius", f"update:{TENSOR}"] == pytest.approx(size, rel=1e-6)
    rounding = numbers(last)["frobenius", f"rounding:{TENSOR}"]
    assert rounding > numbers(stored_last)["frobenius", f"rounding:{TENSOR}"] > 0


def test_what_a_half_precision_run_computes_with_is_what_would_be_stored(world: Model, tmp_path: Path) -> None:
    checkpoint = held_in("bfloat16", tmp_path)
    narrow, wide = load_model(checkpoint, "bfloat16"), load_model(checkpoint)
    run = edit(EDITS, narrow, tmp_path / "run")
    left, (_, stored) = list(edited_points(EDITS, run, narrow))[-1], list(stored_points(EDITS, run, wide))[-1]
    ids = np.array([narrow.tokenizer(TEXTS[0])["input_ids"]])
    place = np.arange(ids.size)[None]
    again = narrow.with_weights({TENSOR: stored.model.weight(TENSOR)})
    said = [logits(m.decoder, ids, place, m.overrides) for m in (left.model, again, narrow)]
    assert_allclose(said[0], said[1], atol=0.02 * float(jnp.abs(said[0]).max()))
    assert jnp.abs(said[0] - said[2]).max() > 0.1 * jnp.abs(said[0]).max()


def test_surprise_is_a_perplexity() -> None:
    assert surprise([0.5, 0.125]) == ("target", "perplexity", pytest.approx(4.0))
    assert surprise([0.5, 0.0])[2] == np.inf


def test_rows_say_which_arm_they_are_of(world: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = []

    def scored(model: Model, asked: Asked) -> pd.DataFrame:
        answered.append(asked)
        return pd.DataFrame([("a", "efficacy", 1.0), ("a", "efficacy_top1", 1.0)], columns=["case", "metric", "value"])

    monkeypatch.setattr(half, "score", scored)
    points = [Point(n, world, [(f"update:{TENSOR}", "frobenius", 2.0 * n), surprise([0.5])]) for n in (1, 3)]
    asked = {1: Asked(), 3: Asked(perplexity=[])}
    rows = rows_of("bfloat16/summed", EDITS, points, asked)
    assert answered == [Asked(), Asked(perplexity=[])]
    assert rows["model"].unique().tolist() == ["world/bfloat16/summed"]
    assert rows["run_id"].unique().tolist() == ["half-rome-bfloat16-summed-0"]
    assert rows.set_index(["n_edits", "metric"])["mean"].to_dict() == {
        (n, metric): value
        for n in (1, 3)
        for metric, value in {
            "efficacy_top1": 1.0,
            f"frobenius:update:{TENSOR}": 2.0 * n,
            "perplexity:target": 2.0,
        }.items()
    }


def test_everything_is_asked_after_the_last_edit(world: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "TASKS", TASKS)
    asked = half.asked_of(EDITS, load_model(WORLD_FOLDER))
    assert {n: one.editing.questions["case"].nunique() for n, one in asked.items()} == {1: 1, 3: 3}
    assert {n: [part is None for part in one[1:]] for n, one in asked.items()} == {1: [True] * 2, 3: [False] * 2}


def test_held_out_text_is_read_in_joined_sentences(world: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "held_out_text", lambda: ("One.", "Two.", "Three.", "Four.", "Five."))
    for name, value in {"SENTENCES": 2, "TEXTS": 2}.items():
        monkeypatch.setattr(half, name, value)
    seen = []
    found = half.difference(world, world.with_weights({TENSOR: world.weight(TENSOR) + 0.1}), ["One. Two."])
    monkeypatch.setattr(half, "difference", lambda one, other, texts: seen.append(texts) or found)
    rows = on_text("float16", world, world).set_index("metric")
    assert seen == [["One. Two.", "Three. Four."]]
    assert rows.loc["drift:logits", "mean"] == found.logits > 0
    interval = wilson(round(found.argmax * found.positions), found.positions)
    assert_allclose(rows.loc["locality_top1:text", ["mean", "lo", "hi"]].astype(float), interval)
    assert rows.loc["locality_top1:text", "n"] == found.positions


@pytest.fixture
def tiny_record(world: Model, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], pd.DataFrame]:
    """`half_records` on two orders of three tiny edits; abilities are made up."""

    def scored(model: Model, asked: Asked) -> pd.DataFrame:
        rows = [("all", "perplexity", 2.0), *((str(i), "ability:summary", 1.0) for i in range(2))]
        return pd.DataFrame(rows, columns=["case", "metric", "value"])

    changed = {
        "EDITORS": ("rome",),
        "TRIALS": (("rome", 0), ("rome", 1)),
        "score": scored,
        "edits_of": lambda world, editor, order: EDITS._replace(order=order, requests=REQUESTS[order : order + 3]),
        "held_out_text": lambda: TEXTS[:1],
    }
    for name, value in changed.items():
        monkeypatch.setattr(half, name, value)
    monkeypatch.setitem(EDITORS, "rome", EDITORS["rome"]._replace(contexts=lambda model, seed: ("{}", "I think. {}")))

    def make(folder: Path) -> pd.DataFrame:
        (path,) = half_records(folder / "records", folder / "runs")
        return read_records(path)

    return make


def test_every_arm_is_on_record_and_nothing_is_measured_twice(
    tiny_record: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tiny_record(tmp_path)
    arms = {arm for pair in PAIRS for arm in pair}
    edited = rows[rows["n_edits"] > 0]
    assert set(edited["model"]) == {f"world/{arm}" for arm in arms}
    assert set(zip(edited["seed"], edited["n_edits"], strict=True)) == {(o, n) for o in (0, 1) for n in (1, 3)}
    unedited = rows[rows["n_edits"] == 0].set_index(["model", "metric"])["mean"]
    drift = unedited.xs("drift:logits", level="metric")
    assert set(drift.index) == {"world/bfloat16", "world/bfloat16/exact", "world/float16"}
    assert 0 < drift["world/float16"] < drift["world/bfloat16"] < 0.1
    assert drift["world/bfloat16/exact"] > 0
    sizes = edited[edited["metric"].str.startswith("frobenius:update")].set_index(["model", "seed", "n_edits"])["mean"]
    assert (sizes["world/float32"] != sizes["world/float32/prefixes"]).all()

    before = contents(tmp_path / "records")
    monkeypatch.setattr(half, "arms", None)
    tiny_record(tmp_path)
    assert contents(tmp_path / "records") == before


TEXT = "locality_top1:text"


def row(arm: str, metric: str, mean: float, seed: int = 0, n_edits: int = 100, editor: str = "rome") -> tuple:
    return (
        *(f"{arm}-{seed}", f"world/{arm}", "world/report:100", editor, "world", "none", 1, seed, n_edits, metric),
        *(10, mean, mean, mean, 0),
    )


def frame(rows: list[tuple]) -> pd.DataFrame:
    return check(pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS)))


def test_costs_are_positive_where_something_is_lost() -> None:
    arms = {arm for pair in PAIRS for arm in pair}
    lost = {"bfloat16": 0.1, "bfloat16/summed": 0.3}
    rows = []
    for arm in arms:
        for seed in (0, 1, 2):
            less = lost.get(arm, 0.0) * (1 + seed / 10)
            rows += [row(arm, f"ability:{task}", 0.9 - less, seed) for task in ("arithmetic", "summary")]
            rows += [row(arm, "efficacy_top1", 0.5 - less, seed), row(arm, "perplexity", 3 * np.exp(less), seed)]
    rows.append(row("float32", "perplexity", 3.0, n_edits=0, editor="none"))
    found = costs(frame(rows)).set_index(["arm", "beside", "metric"])
    for metric in ("ability", "efficacy_top1", "perplexity"):
        for arm, beside, size in (("bfloat16", "float32", 0.1), ("bfloat16/summed", "bfloat16", 0.2)):
            expected = student([size * (1 + seed / 10) for seed in (0, 1, 2)])
            assert_allclose(found.loc[(arm, beside, metric), ["mean", "lo", "hi"]].astype(float), expected)
    assert_allclose(found.xs("float16", level="arm")["mean"], 0, atol=1e-12)
    assert set(found["n"]) == {3}


def test_the_unedited_model_is_held_against_float32() -> None:
    rows = [row(arm, "perplexity", mean, 0, 0, "none") for arm, mean in (("float32", 3.0), ("float16", 3 * np.e))]
    for arm, less in (("float32", 0.0), ("float16", 0.1)):
        rows += [row(arm, f"ability:{task}", 0.9 - less * i, 0, 0, "none") for i, task in enumerate(("a", "b"))]
    rows += [row("float16", metric, mean, 0, 0, "none") for metric, mean in (("drift:logits", 0.01), (TEXT, 0.9))]
    rows.append(row("float16", "perplexity", 7.0))
    found = unedited_costs(frame(rows)).T.to_dict()
    expected = {"ability": 0.05, "perplexity": 1, "logits": 0.01, "text": 0.9, "lo": 0.9, "hi": 0.9, "positions": 10}
    assert found == {"float16": pytest.approx(expected)}


def test_roundings_are_shares_of_the_update() -> None:
    rows = [row("float32", f"frobenius:weight:{TENSOR}", 8.0, n_edits=0, editor="none")]
    for arm, rounding in (("bfloat16/stored", 0.5), ("float16/summed", 0.25), ("bfloat16", None)):
        rows.append(row(arm, f"frobenius:update:{TENSOR}", 2.0))
        rows += [row(arm, f"frobenius:rounding:{TENSOR}", rounding)] if rounding else []
    found = roundings(frame(rows)).set_index("arm")[["tensor", "size", "share"]].T.to_dict("list")
    assert found == {"bfloat16/stored": [TENSOR, 0.25, 0.25], "float16/summed": [TENSOR, 0.25, 0.125]}


@pytest.mark.parametrize("dtype", half.HALVES)
def test_the_unit_is_the_rounding_of_numbers_of_all_sizes(dtype: str) -> None:
    drawn = np.exp2(np.random.default_rng(0).uniform(-3, -2, 100_000)).astype(np.float32)
    error = np.asarray(to(dtype, drawn)) - drawn
    assert np.linalg.norm(error) / np.linalg.norm(drawn) == pytest.approx(unit(dtype), rel=0.01)


def test_a_live_number_agrees_with_its_own_record_alone() -> None:
    rows = [row("bfloat16", "efficacy_top1", 0.5, seed, 10) for seed in (0, 1)]
    rows += [row("bfloat16", f"frobenius:update:{TENSOR}", 10.0, 1, 10)]
    rows += [row("bfloat16", metric, mean, 0, 0, "none") for metric, mean in (("drift:logits", 0.01), (TEXT, 0.9))]
    recorded = frame(rows)
    recorded["n"] = recorded["n"].where(recorded["metric"] != TEXT, 1000)
    live = recorded[(recorded["seed"] == 1) | (recorded["n_edits"] == 0)]
    assert held_against(recorded, live).agrees
    allowed = {"efficacy_top1": 0.1, TEXT: -0.019, f"frobenius:update:{TENSOR}": 0.19, "drift:logits": 0.009}
    for metric, change in allowed.items():
        for factor, agrees in ((1, True), (1.15, False)):
            moved = live.assign(mean=live["mean"] + (live["metric"] == metric) * change * factor)
            found = held_against(recorded, moved).rows
            assert found.loc[~found["agrees"], "metric"].tolist() == [metric] * (not agrees)
    assert not held_against(recorded[recorded["metric"] != "efficacy_top1"], live).agrees
    assert not held_against(recorded, live.assign(model="world/float16")).agrees


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return read_records(RECORDS / half.FILE)


def test_the_committed_record_holds_every_arm_of_every_trial(committed: pd.DataFrame) -> None:
    edited = committed[committed["n_edits"] > 0]
    found = set(edited[["model", "editor", "seed", "n_edits"]].itertuples(index=False, name=None))
    arms = {arm for pair in PAIRS for arm in pair}
    assert found == {(f"world/{arm}", *trial, n) for arm in arms for trial in half.TRIALS for n in half.COUNTS}
    scored = edited[edited["metric"] == "efficacy_top1"]
    assert (scored["n"] == scored["n_edits"]).all()


def test_the_live_slice_catches_orders_and_dtypes_that_are_swapped(committed: pd.DataFrame) -> None:
    here = committed[(committed["editor"] == "rome") & (committed["n_edits"] == 10)]
    here = here[here["model"] == "world/bfloat16"]
    for order in half.ORDERS:
        live = here[here["seed"] == order]
        assert held_against(committed, live).agrees
        for other in set(half.ORDERS) - {order}:
            swapped = committed.assign(seed=committed["seed"].replace({order: other, other: order}))
            assert not held_against(swapped, live).agrees, (order, other)
    unedited = committed[(committed["model"] == "world/bfloat16") & (committed["n_edits"] == 0)]
    names = {"world/bfloat16": "world/float16", "world/float16": "world/bfloat16"}
    assert not held_against(committed.replace({"model": names}), unedited).agrees
