"""What a run notes of every edit beside its update: diagnostics.csv, and timing.csv, which is never compared."""

import io
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from prunejax.editors.editor import Diagnostics
from prunejax.errors import InputError
from prunejax.files import read_text, readable, write_atomic
from prunejax.mesh import on_host
from prunejax.run import Run


def columns(noted: Sequence[tuple[Diagnostics, int]]) -> dict[str, np.ndarray]:
    """The diagnostics of batches, each with the number of its edits, on this host: [edits] of each name."""
    names = noted[0][0] if noted else ()
    return {name: np.concatenate([np.full(n, on_host(batch[name])) for batch, n in noted]) for name in names}


def write_diagnostics(run: Run, done: int, noted: Mapping[str, np.ndarray]) -> Path:
    """diagnostics.csv, one row an edit, after those of the first `done`; rows beyond the last whole chunk are written
    anew."""
    rows = pd.DataFrame(noted)
    numbers = range(done + 1, done + 1 + len(rows))
    rows.insert(0, "edit", list(numbers))
    rows.insert(1, "case", [run.requests[number - 1].case_id for number in numbers])
    path, text = run.folder / "diagnostics.csv", rows.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    if done and path.exists():
        with readable(path, "diagnostics"):
            known = path.read_bytes().decode()
        text = _appended(known, text, done) or _joined(read_diagnostics(run), _as_text(text), done)
    return write_atomic(path, text)


def read_diagnostics(run: Run) -> pd.DataFrame:
    """The rows of diagnostics.csv as text; InputError where it is no table of numbered edits and their cases."""
    path = run.folder / "diagnostics.csv"
    text = read_text(path, "diagnostics")
    try:
        rows = _as_text(text)
    except ValueError as error:
        raise InputError(f"diagnostics {path}: no table of edits ({error})") from None
    if not {"edit", "case", "finite"} <= {*rows} or not rows["edit"].str.fullmatch("[0-9]{1,9}").all():
        raise InputError(f"diagnostics {path}: no table of edits (edit, case and finite were expected)")
    return rows


def _appended(known: str, new: str, done: int) -> str:
    """A table that ends with the row of edit `done`, as always but after an interruption, and the rows of a new one; ""
    where it does not. A row is a line: no case is called by several."""
    head, _, rows = new.partition("\n")
    last = known[known.rfind("\n", 0, -1) + 1 :]
    ends = known.startswith(f"{head}\n") and last.startswith(f"{done},") and last.endswith("\n")
    return known + rows if ends else ""


def _joined(known: pd.DataFrame, new: pd.DataFrame, done: int) -> str:
    """The rows up to edit `done`, and new ones."""
    return pd.concat([known[known["edit"].astype(int) <= done], new]).to_csv(index=False, lineterminator="\n")


def _as_text(table: str) -> pd.DataFrame:
    """A table whose every cell is text, so that a case called 007 or NA keeps its name."""
    return pd.read_csv(io.StringIO(table), dtype=str, keep_default_na=False)


def write_timing(run: Run, first: int, edits: int, seconds: float) -> None:
    """timing.csv, one row a chunk, never compared: seconds from the end of the chunk before, writing and compilation
    included where the device waited for them."""
    path = run.folder / "timing.csv"
    known = read_text(path, "timing") if path.exists() else ""
    whole = known[: known.rfind("\n") + 1]  # a row that was cut off, as by an older version on a full disk, is none
    row = f"{first},{edits},{round(seconds, 3)},{platform.machine()},{jax.device_count()}\n"
    write_atomic(path, (whole or "first,edits,seconds,host,cores\n") + row)
