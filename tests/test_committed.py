"""The committed records and notebooks: whole, as signed, and caught when somebody moves a number or swaps two runs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prunejax.grid import SERIES, STORED
from prunejax.live import Check, check_state
from prunejax.models.checkpoints import Model
from prunejax.records import is_score, read_records, verify_manifest
from prunejax.reproduce import reproduce
from prunejax.sources import RECORDS, find_model

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
RESTRAINT_NOTEBOOK = "04_what_does_the_restraint_save_and_cost"
STATES = RECORDS / "states.safetensors"


@pytest.fixture(scope="module")
def evaluation() -> pd.DataFrame:
    return read_records(RECORDS / "evaluation.csv")


@pytest.fixture(scope="module")
def model() -> Model:
    return find_model("world")


def test_the_records_are_those_that_were_signed() -> None:
    assert {"evaluation.csv", "spectra.csv", "single.csv", "states.safetensors"} <= verify_manifest(RECORDS).keys()


def test_the_records_hold_the_whole_grid(evaluation: pd.DataFrame) -> None:
    for files in {series.files for series in SERIES}:
        together = [series for series in SERIES if series.files == files]
        for name, counts in (("evaluation", "edits"), ("spectra", "spectra_edits")):
            rows = read_records(RECORDS / f"{files}{name}.csv")
            key = ["model", "editor", "seed", "n_edits", "restraint"]
            wanted = {
                (series.model, series.editor, order, n, spec)
                for series in together
                for order in series.orders
                for n in getattr(series, counts)
                for spec in series.restraints
            }
            assert set(rows[key].itertuples(index=False, name=None)) == wanted, files + name
    edited = evaluation[(evaluation["metric"] == "efficacy") & (evaluation["n_edits"] > 0)]
    assert (edited["n"] == edited["n_edits"]).all()


def checked(records: pd.DataFrame, model: Model, restraint: str) -> Check:
    return check_state(records, STATES, model, STORED[-1], restraint)


def test_a_record_moved_by_a_tenth_is_caught_by_the_live_check(evaluation: pd.DataFrame, model: Model) -> None:
    first = SERIES[0]
    live = checked(evaluation, model, "none")
    assert live.agrees, live.rows
    here = (evaluation["model"] == first.model) & (evaluation["seed"] == first.orders[0])
    here &= (evaluation["n_edits"] == STORED[-1]) & (evaluation["restraint"] == "none")
    for metric in live.rows["metric"]:
        moved = evaluation.copy()
        at = here & (moved["metric"] == metric)
        value = moved.loc[at, "mean"].item()
        moved.loc[at, "mean"] = value + (0.1 if value <= 0.5 else -0.1) if is_score(metric) else 1.1 * value
        rows = checked_against(moved, live)
        assert rows.loc[~rows["agrees"], "metric"].tolist() == [metric]


def checked_against(records: pd.DataFrame, live: Check) -> pd.DataFrame:
    """The live numbers of a check that was made, held against other records."""
    from prunejax.live import compare

    first = SERIES[0]
    found = live.rows.rename(columns={"live": "mean"})[["metric", "mean"]]
    return compare(found, records, first, first.orders[0], STORED[-1], "none").rows


def test_restrained_and_unrestrained_records_that_are_swapped_are_caught(
    evaluation: pd.DataFrame, model: Model
) -> None:
    swap = {"none": "log:e", "log:e": "none"}
    swapped = evaluation.assign(restraint=evaluation["restraint"].replace(swap))
    for restraint in swap:
        assert not checked(swapped, model, restraint).agrees


def test_a_notebook_in_which_restrained_and_unrestrained_are_swapped_does_not_agree(tmp_path: Path) -> None:
    text = (NOTEBOOKS / f"{RESTRAINT_NOTEBOOK}.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(text)
    pair = 'paired(both, claimed, "none")'
    sources = [cell for cell in notebook["cells"] if pair in "".join(cell["source"])]
    assert len(sources) == 1
    sources[0]["source"] = "".join(sources[0]["source"]).replace(pair, 'paired(both, "none", claimed)')
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / f"{RESTRAINT_NOTEBOOK}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (outcome,) = reproduce(folder, tmp_path / "build", None, False, False, lambda outcome: None)
    assert (outcome.error, outcome.agrees) == ("", False)
    assert np.isfinite(outcome.seconds)
