"""Records: tidy rows of what was measured, and the files and checksums that keep them.

A case row says what one case scored, a summary row what one run scored (`prunejax.intervals` makes it of case rows), a
moment row what a second moment of so many keys is good for (`prunejax.enough_records`). Figures and tables read nothing
else.
"""

import csv
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from prunejax.errors import InputError
from prunejax.files import read_json, read_text, sha256, write_atomic, write_json

CASE_COLUMNS = ("editor", "restraint", "n_edits", "seed", "case", "metric", "value")
SUMMARY_COLUMNS = (
    *("run_id", "model", "requests", "editor", "preset", "restraint", "batch", "seed", "n_edits", "metric"),
    *("n", "mean", "lo", "hi", "nan_count"),
)
MOMENT_COLUMNS = (
    *("model", "weights", "corpus", "texts", "requests", "tensor", "d_in", "seed", "settings", "keys", "metric"),
    *("n", "mean", "lo", "hi", "nan_count"),
)
RESULTS = ("value", "n", "mean", "lo", "hi", "nan_count")
LEAST = {"n_edits": 0, "seed": 0, "batch": 1, "n": 1, "nan_count": 0, "d_in": 1, "keys": 0}
FLOATS = ("value", "mean", "lo", "hi")

COMPARED = ("efficacy", "generalization", "locality")
SCORES = frozenset((*COMPARED, *(f"{name}_top1" for name in COMPARED), "portability", "ability"))
SPECTRAL = ("sigma_max", "sigma_min", "kappa", "frobenius", "rank", "margin", "amplification", "eta", "drift")
VALUES = ("value_change", "key_change", "value_norm")
INVERSES = ("scaled_kappa", "cost")
SIGNED = ("principal", "cosine")
"""A coordinate and a cosine: the numbers that can be negative."""

NUMBERS = frozenset(("perplexity", "seconds", "denominator", *SPECTRAL, *VALUES, *INVERSES, *SIGNED))
MANIFEST = "records.json"


class Provenance(NamedTuple):
    """Where a run's rows come from: what a summary row repeats so that it can be read alone."""

    run_id: str
    model: str
    requests: str
    editor: str
    preset: str
    batch: int


def is_score(metric: str) -> bool:
    """Whether a metric is a score in [0, 1] averaged over cases, rather than one number of a model or of a matrix.

    A metric may carry a suffix after a colon ("ability:arithmetic", "sigma_max:weight:NAME"). InputError if unknown.
    """
    name = metric.partition(":")[0]
    if name not in SCORES | NUMBERS:
        raise InputError(f"records: unknown metric {metric!r}; there are {', '.join(sorted(SCORES | NUMBERS))}")
    return name in SCORES


def check(frame: pd.DataFrame, where: str = "records") -> pd.DataFrame:
    """`frame` as case, summary or moment rows: columns in order, text, int64 and float64. InputError if it can be none.

    Scores lie in [0, 1] and other numbers, `SIGNED` apart, are at least 0 (inf allowed: kappa of a singular matrix);
    NaN stands for a collapsed model or a matrix without an inverse, and a mean is never NaN for a score; lo <= mean <=
    hi; no two rows measure the same.
    """
    kinds = (CASE_COLUMNS, SUMMARY_COLUMNS, MOMENT_COLUMNS)
    columns = next((kind for kind in kinds if sorted(kind) == sorted(map(str, frame.columns))), None)
    if columns is None:
        expected = " or ".join(", ".join(kind) for kind in kinds)
        raise InputError(f"{where}: columns are {', '.join(map(str, frame.columns))}; expected {expected}")
    checked = pd.DataFrame({column: _typed(frame[column], where) for column in columns}).reset_index(drop=True)
    metrics = checked["metric"].unique()
    score = checked["metric"].map({metric: is_score(metric) for metric in metrics}).astype(bool)
    signed = checked["metric"].map({metric: metric.partition(":")[0] in SIGNED for metric in metrics}).astype(bool)
    for column in (c for c in FLOATS if c in columns):
        values = checked[column]
        reject((values < 0) & ~signed | (score & (values > 1)), checked[column], where, "outside its metric's range")
    if columns is not CASE_COLUMNS:
        reject(score & checked["mean"].isna(), checked["mean"], where, "for a score, where a NaN case counts as 0")
        reject(checked["mean"] < checked["lo"], checked["mean"], where, "below lo")
        reject(checked["mean"] > checked["hi"], checked["mean"], where, "above hi")
        reject(checked["nan_count"] > checked["n"], checked["nan_count"], where, "more than n")
    reject(checked.duplicated(_key(checked)), checked["metric"], where, "measured twice (an earlier row has its key)")
    return checked


def merge(existing: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """`existing` with the rows of `new`, which replace rows of the same key; sorted by key, whatever the order given.

    Rows that `new` does not measure again stay: re-evaluating fewer cases does not forget the others.
    """
    old, new = check(existing, "existing records"), check(new, "new records")
    if list(old.columns) != list(new.columns):
        raise InputError("records: rows of different kinds do not merge")
    return ordered(pd.concat([old, new]).drop_duplicates(_key(new), keep="last"))


def write_records(path: str | Path, frame: pd.DataFrame) -> Path:
    """Write rows of one kind as CSV, whole or not at all; floats keep six significant digits. Returns the path."""
    checked = check(frame, f"records for {path}")
    return write_atomic(path, checked.to_csv(index=False, float_format="%.6g", na_rep="NaN", lineterminator="\n"))


def read_records(path: str | Path) -> pd.DataFrame:
    """The rows that `write_records` wrote, checked as `check` does; InputError names the damage."""
    content = read_text(path, "records")
    if not content.endswith("\n"):
        raise InputError(f"records {path}: cut off in its last line; make it again")
    try:
        header, *rows = csv.reader(io.StringIO(content), strict=True)
    except csv.Error as error:
        raise InputError(f"records {path}: not valid CSV ({error})") from None
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise InputError(f"records {path}: row {number} has {len(row)} fields, its header {len(header)}")
    return check(pd.DataFrame(rows, columns=header, dtype=object), f"records {path}")


def write_manifest(folder: str | Path) -> Path:
    """Write records.json into `folder`: {NAME: {"sha256": digits, "rows": n}} of its files; returns its path.

    Left out are the manifest, Markdown, hidden files and subfolders; `rows` is for CSV alone. Every CSV is read first,
    so that no damaged one is signed.
    """
    files = _files(Path(folder))
    entries = {name: {"sha256": sha256(path)} for name, path in files.items()}
    rows = {name: {"rows": len(read_records(path))} for name, path in files.items() if path.suffix == ".csv"}
    return write_json(Path(folder) / MANIFEST, {name: entry | rows.get(name, {}) for name, entry in entries.items()})


def verify_manifest(folder: str | Path) -> dict[str, dict[str, Any]]:
    """The manifest of `folder`, if its files are those listed; else an InputError that names every one that is not.

    Tells an altered file from a recorded one; against someone who also writes a new manifest only recomputing helps.
    """
    manifest = read_json(Path(folder) / MANIFEST, "manifest")
    if not isinstance(manifest, dict) or not all(isinstance(entry, dict) for entry in manifest.values()):
        raise InputError(f"manifest {Path(folder) / MANIFEST}: expected an object of files; make the records again")
    files = _files(Path(folder))
    missing = [f"{name} is missing" for name in sorted(manifest.keys() - files.keys())]
    unlisted = [f"{name} is not listed" for name in sorted(files.keys() - manifest.keys())]
    listed = sorted(files.keys() & manifest.keys())
    altered = [f"{name} was altered" for name in listed if sha256(files[name]) != manifest[name].get("sha256")]
    if faults := missing + unlisted + altered:
        raise InputError(f"records {folder}: {', '.join(faults)} (against {MANIFEST}); make the records again")
    return manifest


def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` sorted by its key: every column that is not a result."""
    return frame.sort_values(_key(frame), ignore_index=True)


def reject(bad: pd.Series, values: pd.Series, where: str, why: str) -> None:
    """InputError for the first row in which `bad` is true: "WHERE: row 3: lo is '1.2', WHY"."""
    rows = bad.to_numpy().nonzero()[0]
    if len(rows):
        raise InputError(f"{where}: row {rows[0] + 1}: {values.name} is {str(values.iloc[rows[0]])!r}, {why}")


def _files(folder: Path) -> dict[str, Path]:
    names = (path for path in sorted(folder.glob("[!.]*")) if path.is_file())
    return {path.name: path for path in names if path.suffix != ".md" and path.name != MANIFEST}


def _key(frame: pd.DataFrame) -> list[str]:
    return [column for column in frame.columns if column not in RESULTS]


def _typed(values: pd.Series, where: str) -> pd.Series:
    if values.name not in LEAST and values.name not in FLOATS:
        reject(values.isna(), values, where, "where text was expected")
        texts = values.astype(str)
        broken = [text for text in texts.unique() if re.search(r"[\x00-\x1f]", text)]
        reject(texts.isin(broken), values, where, "with a line break or control character")
        return texts
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    if values.name in FLOATS:
        reject(numbers.isna() & values.notna() & (values.astype(str) != "NaN"), values, where, "not a number")
        return numbers
    least = LEAST[values.name]
    whole = numbers.between(least, 2**53) & (numbers % 1 == 0)
    reject(~whole, values, where, f"not a whole number of at least {least}")
    return numbers.astype("int64")
