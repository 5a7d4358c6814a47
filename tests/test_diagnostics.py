"""Tables of a run that grow chunk by chunk: as if written at once, whatever an interruption left of the last."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from prunejax.diagnostics import columns, write_diagnostics, write_timing
from prunejax.run import Run
from tiny_runs import REQUESTS

NAMES = ("007", "NA", "a,b", 'two "words", 6 of them', "5", "Łódź\u2028", 'last,"of" them')


@pytest.fixture
def run(tmp_path: Path) -> Run:
    named = [dataclasses.replace(one, case_id=name) for one, name in zip(REQUESTS, NAMES, strict=True)]
    return Run(tmp_path, {}, tuple(named), ())


def noted(first: int, last: int) -> dict[str, np.ndarray]:
    n = np.arange(first, last + 1)
    return {"loss": np.float32(n) / np.float32(3), "finite": n % 2 == 1}


def write(run: Run, ends: Sequence[int]) -> bytes:
    for first, last in zip([0, *ends], ends, strict=False):
        path = write_diagnostics(run, first, noted(first + 1, last))
    return path.read_bytes()


@pytest.mark.parametrize("ends", [range(1, 8), (3, 5, 7), (4, 7)])
def test_rows_written_chunk_by_chunk_are_those_written_at_once(run: Run, ends: Sequence[int]) -> None:
    whole = write(run, [7])
    assert write(run, ends) == whole
    read = pd.read_csv(run.folder / "diagnostics.csv", dtype=str, keep_default_na=False)
    assert read["case"].tolist() == list(NAMES)


@pytest.mark.parametrize("done", range(1, 7))
def test_rows_beyond_what_is_done_are_written_anew(run: Run, done: int) -> None:
    whole = write(run, [7])
    write_diagnostics(run, done, noted(done + 1, 7))
    assert (run.folder / "diagnostics.csv").read_bytes() == whole


def test_a_table_of_other_columns_is_joined_by_their_names(run: Run) -> None:
    write_diagnostics(run, 0, {"finite": np.array([True]), "loss": np.ones(1, np.float32)})
    write_diagnostics(run, 1, noted(2, 2))
    rows = pd.read_csv(run.folder / "diagnostics.csv")
    assert rows.columns.tolist() == ["edit", "case", "finite", "loss"]
    assert rows["finite"].tolist() == [True, False]


def test_every_edit_of_a_batch_has_a_row_of_its_own() -> None:
    batches = [({"loss": jnp.array([0.5, 2]), "norm": jnp.float32(7)}, 2), ({"loss": [4.0], "norm": 8}, 1)]
    found = {name: column.tolist() for name, column in columns(batches).items()}
    assert found == {"loss": [0.5, 2, 4], "norm": [7, 7, 8]}
    assert columns([]) == {}


def test_a_row_of_times_that_was_cut_off_is_dropped(run: Run) -> None:
    path = run.folder / "timing.csv"
    for cut in (0, 1):
        write_timing(run, 1 + 2 * cut, 2, 0.12345)
        path.write_text(path.read_text() + "5,2,0."[: 6 * cut])
    write_timing(run, 5, 2, 7)
    rows = pd.read_csv(path)
    assert rows[["first", "edits", "seconds"]].to_numpy().tolist() == [[1, 2, 0.123], [3, 2, 0.123], [5, 2, 7]]
    assert rows.columns.tolist() == ["first", "edits", "seconds", "host", "cores"]
