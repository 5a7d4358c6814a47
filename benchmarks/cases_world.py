"""The case of a long run: `prunejax edit` on the embedded world, from nothing compiled to a whole run folder."""

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.clock import timed, times
from benchmarks.measurements import Measurement, measurement
from benchmarks.ours import stack
from benchmarks.sides import Call, children_peak_mb
from prunejax.requests import EditRequest, write_requests
from prunejax.run import open_run
from prunejax.sources import find_requests

ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""The environment in which every verb of the Makefile runs."""


def run_seconds(n: int) -> tuple[float, float]:
    """n ROME edits by the verb, nothing compiled before: seconds, and the peak memory of the process in MB."""
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        folder = Path(made)
        write_requests(folder / "requests.jsonl", requests_again(n))
        words = ["--model", "world", "--editor", "rome", "--preset", "world", "--set", "stop_loss=0"]
        words += ["--requests", str(folder / "requests.jsonl"), "--out", str(folder / "run")]
        seconds, _ = timed(
            lambda: subprocess.run(
                [sys.executable, "-m", "prunejax.cli", "edit", *words],
                env=os.environ | ALONE | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")},
                stdout=subprocess.DEVNULL,
                check=True,
            )
        )
        if open_run(folder / "run").n_edits != n:
            raise RuntimeError(f"the run has not {n} edits")
        return seconds, children_peak_mb()


def requests_again(n: int) -> list[EditRequest]:
    """n requests: the world's pool `report` in the order of seed 0, again and again under other names."""
    pool = find_requests("world", 0)
    rounds = (divmod(i, len(pool)) for i in range(n))
    return [replace(pool[i], case_id=f"{pool[i].case_id}/{number}") for number, i in rounds]


def world_case(me: Call, name: str, n: int, cores: int) -> list[Measurement]:
    """One run of n edits."""
    seconds, peak = me(run_seconds, n)
    facts = {"cores": cores, "versions": me(stack), "peak_mb": peak}
    return [measurement(name, "prunejax", f"{n} edits, compilation included", times([seconds]), **facts)]
