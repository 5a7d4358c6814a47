"""What a run notes of every edit beside its update: diagnostics.csv, and timing.csv, which is never compared."""

import io
import platform
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from prunejax.editors.editor import Diagnostics
from prunejax.files import write_atomic
from prunejax.mesh import on_host
from prunejax.run import Run


def each_edit(diagnostics: Diagnostics, n: int) -> list[Diagnostics]:
    """The diagnostics of a batch as those of its n edits."""
    columns = {name: np.broadcast_to(on_host(value), (n,)) for name, value in diagnostics.items()}
    return [{name: column[i] for name, column in columns.items()} for i in range(n)]


def write_diagnostics(run: Run, done: int, noted: Sequence[Diagnostics]) -> Path:
    """diagnostics.csv, one row an edit; rows beyond the last whole chunk are written anew."""
    rows = pd.DataFrame([{name: np.asarray(value).item() for name, value in row.items()} for row in noted])
    numbers = range(done + 1, done + 1 + len(noted))
    rows.insert(0, "edit", list(numbers))
    rows.insert(1, "case", [run.requests[number - 1].case_id for number in numbers])
    path, text = run.folder / "diagnostics.csv", rows.to_csv(index=False, float_format="%.9g")
    if done and path.exists():
        # Read as text, so that a case called 007 or NA keeps its name.
        old, new = (pd.read_csv(source, dtype=str, keep_default_na=False) for source in (path, io.StringIO(text)))
        text = pd.concat([old[old["edit"].astype(int) <= done], new]).to_csv(index=False)
    return write_atomic(path, text)


def write_timing(run: Run, first: int, edits: int, seconds: float) -> None:
    """timing.csv, one row a chunk, never compared: seconds from the end of the chunk before, writing and compilation
    included where the device waited for them."""
    path = run.folder / "timing.csv"
    row = pd.DataFrame(
        [
            {
                "first": first,
                "edits": edits,
                "seconds": round(seconds, 3),
                "host": platform.machine(),
                "cores": jax.device_count(),
            }
        ]
    )
    known = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = known[: known.rfind("\n") + 1]  # a row that was cut off, as by an older version on a full disk, is none
    write_atomic(path, whole + row.to_csv(index=False, header=not whole, lineterminator="\n"))
