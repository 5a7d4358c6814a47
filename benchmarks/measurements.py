"""What a benchmark leaves behind: tidy rows, a side of a case each, and the claims that they are held to."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.clock import Times
from prunejax.errors import InputError
from prunejax.files import write_atomic

NAN = float("nan")


class Measurement(NamedTuple):
    """One side of a case.

    n calls of `unit`, median_s, lowest_s, highest_s: seconds. ratio: how many times as long as ours it took (its median
    over ours, or the median over the requests that both did). difference: ||ours - its|| / ||its||, the largest.
    gflop, rate_gflops, fraction: `rates.Reached`; of ours useful operations, of PyTorch's those that it does. peak_mb:
    the most memory that the side's process had held by then; held_mb: what it held at that moment. cores, versions:
    what it ran on.
    """

    case: str
    side: str
    unit: str
    n: int
    median_s: float
    lowest_s: float
    highest_s: float
    ratio: float = NAN
    difference: float = NAN
    gflop: float = NAN
    rate_gflops: float = NAN
    fraction: float = NAN
    peak_mb: float = NAN
    held_mb: float = NAN
    cores: int = 0
    versions: str = ""


class Claim(NamedTuple):
    """A number of a row that should be at least (sign +1) or at most (sign -1) a bound."""

    case: str
    side: str
    column: str
    sign: int
    bound: float


CLAIMS = (
    Claim("rome", "pytorch", "ratio", 1, 12),
    Claim("rome", "pytorch", "difference", -1, 1e-3),
    Claim("rome", "prunejax", "fraction", 1, 0.5),
    Claim("memit", "pytorch", "ratio", 1, 12),
    Claim("memit", "pytorch", "difference", -1, 1e-3),
    Claim("memit", "prunejax", "fraction", 1, 0.5),
    Claim("restraint", "reference", "ratio", 1, 100),
    Claim("restraint", "reference", "difference", -1, 1e-3),
    Claim("restraint", "eight bases", "ratio", -1, 1.3),
    Claim("kappa", "thin SVD", "ratio", 1, 5),
    Claim("kappa", "thin SVD", "difference", -1, 1e-3),
    Claim("moments-gpt2", "prunejax", "ratio", -1, 1.25),
    Claim("moments-world", "prunejax", "ratio", -1, 1.25),
    Claim("world", "prunejax", "median_s", -1, 120),
    Claim("saving", "rome", "ratio", -1, 1.03),
    Claim("saving", "alphaedit", "ratio", -1, 1.03),
    Claim("world-long", "last thousand", "ratio", -1, 1.1),
)
"""What is asked of the CPU. The ratio of `moments` is that of second moments to their two parts alone."""


def measurement(case: str, side: str, unit: str, found: Times, **numbers: float | int | str) -> Measurement:
    """A row from the summary of its calls and what else is known."""
    return Measurement(case, side, unit, found.n, found.median, found.lowest, found.highest, **numbers)


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    """||actual - expected||_F / ||expected||_F in float64."""
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def verdicts(rows: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> list[str]:
    """A line for each claim whose row is there, with "yes" or "no"."""
    lines = []
    for claim in claims:
        here = rows[(rows["case"] == claim.case) & (rows["side"] == claim.side)]
        for value in here[claim.column]:
            answer = "yes" if claim.sign * value >= claim.sign * claim.bound else "no"
            wanted = f"{'at least' if claim.sign > 0 else 'at most'} {claim.bound:g}"
            lines.append(f"{answer:4}{claim.case}, {claim.side}: {claim.column} {value:.3g}, {wanted} is asked")
    return lines


def read_measurements(path: Path) -> pd.DataFrame:
    """The rows in a file, none where there is no file; InputError for a file of other columns."""
    if not path.exists():
        return pd.DataFrame(columns=list(Measurement._fields))
    rows = pd.read_csv(path)
    if list(rows.columns) != list(Measurement._fields):
        raise InputError(f"records {path}: its columns are not those of this version; remove it and measure again")
    return rows


def write_measurements(path: Path, fresh: Sequence[Measurement]) -> pd.DataFrame:
    """Write the rows in `path` with those of every case in `fresh` replaced; returns them all. Numbers keep four
    significant digits."""
    old, new = read_measurements(path), pd.DataFrame(fresh, columns=list(Measurement._fields))
    kept = old[~old["case"].isin(new["case"])]
    rows = pd.concat([part for part in (kept, new) if len(part)], ignore_index=True)
    write_atomic(path, rows.to_csv(index=False, float_format="%.4g", lineterminator="\n"))
    return rows
