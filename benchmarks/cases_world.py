"""The case of a long run: `prunejax edit` on the embedded world, from nothing compiled to a whole run folder."""

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmarks.clock import times
from benchmarks.measurements import Measurement, measurement
from benchmarks.ours import stack
from benchmarks.sides import Call, children_peak_mb
from prunejax.requests import EditRequest, write_requests
from prunejax.run import open_run
from prunejax.sources import find_requests

ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""The environment in which every verb of the Makefile runs."""


class Ran(NamedTuple):
    """A run of edits: seconds of the whole and of each thousand, the peak of its memory, and what it held when each
    thousand was on record (MB; nothing where the system does not tell)."""

    seconds: float
    thousands: list[float]
    peak_mb: float
    held_mb: list[float]


def run_of(n: int) -> Ran:
    """n ROME edits by the verb, nothing compiled before."""
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        folder = Path(made)
        run, held = folder / "run", []
        write_requests(folder / "requests.jsonl", requests_again(n))
        words = ["--model", "world", "--editor", "rome", "--preset", "world", "--set", "stop_loss=0"]
        words += ["--requests", str(folder / "requests.jsonl"), "--out", str(run)]
        started = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "prunejax.cli", "edit", *words],
            env=os.environ | ALONE | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")},
            stdout=subprocess.DEVNULL,
        ) as process:
            while process.poll() is None:
                if len(thousands(run)) > len(held):
                    held.append(held_mb(process.pid))
                time.sleep(0.1)
        seconds = time.perf_counter() - started
        if process.returncode or open_run(run).n_edits != n:
            raise RuntimeError(f"the run has not {n} edits")
        return Ran(seconds, thousands(run), children_peak_mb(), held)


def thousands(run: Path) -> list[float]:
    """Seconds that each whole thousand of a run's edits took so far, by its timing.csv."""
    if not (run / "timing.csv").exists():
        return []
    rows = pd.read_csv(run / "timing.csv")
    sums = rows.groupby((rows["first"] - 1) // 1000)[["edits", "seconds"]].sum()
    return sums.loc[sums["edits"] == 1000, "seconds"].tolist()


def held_mb(process: int) -> float:
    """The memory that another process holds now, MB; NaN where the system does not tell."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return math.nan
    found = re.search(r"VmRSS:\s+([0-9]+) kB", status.read_text(encoding="ascii", errors="replace"))
    return int(found[1]) / 1024 if found else math.nan


def requests_again(n: int) -> list[EditRequest]:
    """n requests: the world's pool `report` in the order of seed 0, again and again under other names."""
    pool = find_requests("world", 0)
    rounds = (divmod(i, len(pool)) for i in range(n))
    return [replace(pool[i], case_id=f"{pool[i].case_id}/{number}") for number, i in rounds]


def world_case(me: Call, name: str, n: int, cores: int) -> list[Measurement]:
    """One run of n edits; of several thousand the second and the last, the first of which compiles, beside the
    whole."""
    ran = me(run_of, n)
    facts = {"cores": cores, "versions": me(stack), "peak_mb": ran.peak_mb}
    rows = [measurement(name, "prunejax", f"{n} edits, compilation included", times([ran.seconds]), **facts)]
    if len(ran.thousands) > 2:
        held = [*ran.held_mb, math.nan]  # a process that has ended holds nothing more
        for side, at in (("second thousand", 1), ("last thousand", len(ran.thousands) - 1)):
            seconds = ran.thousands[at]
            ratio = seconds / ran.thousands[1] if at > 1 else math.nan
            row = measurement(name, side, "1000 edits", times([seconds]), ratio=ratio, held_mb=held[at], **facts)
            rows.append(row)
    return rows
