"""The live slice of second moments agrees with the committed record, and finds one that was moved or swapped."""

import pandas as pd
import pytest

from prunejax.enough_live import check_enough, held_against
from prunejax.enough_records import FILE, SEEDS
from prunejax.live import Check
from prunejax.records import is_score, read_records
from prunejax.sources import RECORDS, find_model


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    return read_records(RECORDS / FILE)


@pytest.fixture(scope="module")
def live(records: pd.DataFrame) -> Check:
    return check_enough(records, find_model("world"), shares=(5,), seed=0)


def against(records: pd.DataFrame, live: Check, seed: int) -> Check:
    """The live numbers of a check that was made, held against other records."""
    rows = live.rows["metric"].str.extract(r"(?P<settings>\S+) (?P<keys>\d+) (?P<metric>\S+)")
    return held_against(records, rows.assign(keys=rows["keys"].astype(int), mean=live.rows["live"]), "world", seed)


def seed_of(records: pd.DataFrame, live: Check) -> int:
    (seed,) = (seed for seed in SEEDS if against(records, live, seed).agrees)
    return seed


def test_the_committed_record_agrees_and_those_of_other_seeds_do_not(records: pd.DataFrame, live: Check) -> None:
    assert live.agrees, live.rows[~live.rows["agrees"]]
    assert set(live.rows["metric"].str.split().str[-1]) == {
        *("kappa", "scaled_kappa", "cosine", "cost"),
        *("efficacy_top1", "generalization_top1", "locality_top1", "sigma_max:update"),
    }
    assert seed_of(records, live) in SEEDS


def test_a_record_moved_by_a_tenth_is_found(records: pd.DataFrame, live: Check) -> None:
    seed = seed_of(records, live)
    for place, recorded in live.rows[["metric", "recorded"]].itertuples(index=False):
        settings, keys, metric = place.split()
        moved = records.copy()
        at = (moved["model"] == "world") & (moved["seed"] == seed) & (moved["metric"] == metric)
        at &= (moved["settings"] == settings) & (moved["keys"] == int(keys))
        step = (0.1 if recorded <= 0.5 else -0.1) if is_score(metric) else 0.1 * recorded
        moved.loc[at, "mean"] += step
        rows = against(moved, live, seed).rows
        assert rows.loc[~rows["agrees"], "metric"].tolist() == [place]


def test_what_is_not_on_record_does_not_agree(records: pd.DataFrame, live: Check) -> None:
    seed = seed_of(records, live)
    assert not against(records[records["metric"] != "cost"], live, seed).agrees
    assert not against(records.replace({"settings": {"ridge=0": "ridge=1", "ridge=1": "ridge=0"}}), live, seed).agrees
