"""Moment rows are what dense algebra and single edits say, of every seed, and take the place of their own model's."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from prunejax import enough_records
from prunejax.editors.metric import MOST_KAPPA
from prunejax.editors.moments import Moments, second_moments
from prunejax.editors.rome import RomeSettings
from prunejax.enough import compare_inverses
from prunejax.enough_records import FILE, IDENTITY, Edits, Trial, counts_of, world_records, world_trial
from prunejax.errors import InputError
from prunejax.intervals import student
from prunejax.models.checkpoints import Model
from prunejax.models.presets import preset_settings
from prunejax.records import read_records, write_records
from prunejax.requests import draw
from prunejax.single import single_edits
from prunejax.sources import find_model, find_world
from prunejax.values import keys_and_values
from prunejax.world.facts import edit_requests
from tiny import TEXTS
from tiny_runs import CONTEXTS, REQUESTS, SETTINGS, TENSOR

TEXT = tuple(f"{text}{number}" for number in range(9) for text in TEXTS)
SEEDS = {0: REQUESTS[:3], 4: REQUESTS[2:5]}
EDITS = Edits("rome", RomeSettings(**SETTINGS), CONTEXTS)
TRIAL = Trial("a text", TEXT, "requests:3", SEEDS, 1, (0.0, 0.5), EDITS)


@pytest.fixture(scope="module")
def made(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    path = tmp_path_factory.mktemp("enough") / FILE
    assert enough_records.enough_records(path, tiny_model, TRIAL) == path
    return read_records(path)


def prefix(model: Model, seed: int, count: int):
    """The second moment of the first `count` keys of the text that the seed shuffles."""
    shuffled = [TEXT[number] for number in np.random.default_rng(seed).permutation(len(TEXT))]
    return second_moments(model, shuffled, [1], max_tokens=count)[TENSOR]


def test_counts_are_shares_of_the_dimensions_and_all_of_the_text(tiny_model: Model, made: pd.DataFrame) -> None:
    total = sum(len(row) for row in tiny_model.tokenizer(list(TEXT))["input_ids"])
    assert 10 * 64 < total < 20 * 64
    assert counts_of(tiny_model, TEXT) == [32, 64, 128, 320, 640, total]
    assert set(made["keys"]) == {0, 32, 64, 128, 320, 640, total}
    with pytest.raises(InputError, match="text: 32 tokens in it, and keys of 64 dimensions need more"):
        counts_of(tiny_model, TEXT[:1])


def test_every_row_says_where_it_is_from(tiny_model: Model, made: pd.DataFrame) -> None:
    facts = made[["model", "weights", "corpus", "requests", "tensor", "d_in"]].drop_duplicates()
    assert facts.to_numpy().tolist() == [["tiny", tiny_model.sha256[:8], "a text", "requests:3", TENSOR, 64]]
    assert made["texts"].unique().tolist() == [second_moments(tiny_model, TEXT, [1])[TENSOR].origin.texts[:8]]
    assert set(made["seed"]) == set(SEEDS)
    assert set(made["settings"]) == {"ridge=0", "ridge=0.5", IDENTITY}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ridge", TRIAL.ridges)
def test_inverses_are_compared_for_the_keys_of_the_seeds_requests(
    tiny_model: Model, made: pd.DataFrame, seed: int, ridge: float
) -> None:
    rows = made[(made["seed"] == seed) & (made["settings"] == f"ridge={ridge:g}")]
    keys, _ = keys_and_values(tiny_model, SEEDS[seed], 1)
    found = rows.set_index(["keys", "metric"])
    counts = counts_of(tiny_model, TEXT)
    table = compare_inverses([prefix(tiny_model, seed, count) for count in counts], keys, ridge)
    for asked in counts:
        expected = table[table["count"] == asked]
        if ridge == 0 and asked == 64:  # as many keys as dimensions: what the inverse says is rounding
            assert found.loc[[(asked, "cosine"), (asked, "cost")], "mean"].isna().all()
            assert found.loc[(asked, "scaled_kappa"), "mean"] > MOST_KAPPA
            continue
        for metric in ("kappa", "scaled_kappa"):
            assert found.loc[(asked, metric), "mean"] == pytest.approx(expected[metric].iloc[0], rel=1e-2)
        for metric in ("cosine", "cost"):
            mean, lo, hi = student(expected[metric])
            row = found.loc[(asked, metric)]
            lo = lo if metric == "cosine" else max(lo, 0.0)
            assert row[["mean", "lo", "hi"]].tolist() == pytest.approx([mean, lo, hi], rel=1e-2, abs=5e-3, nan_ok=True)
            assert row["n"] == 3


def test_fewer_keys_than_dimensions_have_neither_inverse_nor_edits_without_a_ridge(made: pd.DataFrame) -> None:
    few = made[made["keys"] == 32]
    plain = few[few["settings"] == "ridge=0"]
    assert set(plain["metric"]) == {"kappa", "scaled_kappa", "cosine", "cost"}
    assert plain.loc[plain["metric"] == "cost", "nan_count"].tolist() == [3, 3]
    assert (plain.loc[plain["metric"].str.endswith("kappa"), "mean"] == math.inf).all()
    assert "efficacy_top1" in set(few.loc[few["settings"] == "ridge=0.5", "metric"])


@pytest.mark.parametrize(
    ("settings", "asked", "changed"),
    [
        ("ridge=0", 128, {"second_moment": "corpus"}),
        ("ridge=0.5", 128, {"second_moment": "corpus", "ridge": 0.5}),
        (IDENTITY, 0, {}),
    ],
)
def test_edits_are_single_ones_with_that_second_moment(
    tiny_model: Model, made: pd.DataFrame, settings: str, asked: int, changed: dict
) -> None:
    rows = made[(made["seed"] == 4) & (made["settings"] == settings) & (made["keys"] == asked)]
    moments = Moments({TENSOR: prefix(tiny_model, 4, asked)}, "") if asked else None
    chosen = replace(EDITS.settings, **changed)
    cases = single_edits(tiny_model, SEEDS[4], "rome", chosen, CONTEXTS, moments).groupby("metric")["after"].mean()
    found = rows.set_index("metric")["mean"]
    for metric in enough_records.MEASURED:
        assert found[metric] == pytest.approx(cases[metric], rel=1e-2)
    assert found["sigma_max:update"] > 0


def test_rows_of_a_model_replace_its_own_and_no_others(tiny_model: Model, made: pd.DataFrame, tmp_path) -> None:
    other = made.assign(model="another")
    path = write_records(tmp_path / FILE, pd.concat([other, made.assign(requests="older ones")]))
    assert enough_records.enough_records(path, tiny_model, TRIAL._replace(edits=None)) == path
    found = read_records(path)
    pd.testing.assert_frame_equal(found[found["model"] == "another"].reset_index(drop=True), other)
    own = found[found["model"] == "tiny"]
    assert set(own["requests"]) == {"requests:3"}
    assert set(own["metric"]) == {"kappa", "scaled_kappa", "cosine", "cost"}
    before = path.read_bytes()
    enough_records.enough_records(path, tiny_model, TRIAL._replace(edits=None))
    assert path.read_bytes() == before


def test_rows_of_other_models_are_the_committed_ones_in_a_new_folder(
    tiny_model: Model, made: pd.DataFrame, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = write_records(tmp_path / "committed" / FILE, made.assign(model="another"))
    monkeypatch.setattr(enough_records, "RECORDS", committed.parent)
    monkeypatch.setattr(enough_records, "world_trial", lambda model: TRIAL._replace(edits=None))
    for _ in range(2):
        found = read_records(world_records(tmp_path / "live", tiny_model))
        assert found.groupby("model").size().to_dict() == {"another": len(made), "tiny": 96}
    assert set(read_records(committed)["model"]) == {"another"}


def test_the_world_is_tried_on_the_pool_that_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enough_records, "REQUESTS", 5)
    trial = world_trial(find_model("world"), [2])
    assert trial.requests == {2: draw(edit_requests(find_world(), "report"), 5, 2)}
    preset = preset_settings("world", "rome")
    assert (trial.layer, *trial.ridges) == (*preset["layers"], 0.0, preset["ridge"])
    assert trial.edits.settings == RomeSettings(**preset)
    assert trial.edits.contexts[0] == "{}"
