"""The record of measurements: written, merged, read back, held to what is asked."""

from pathlib import Path

import pytest

from benchmarks.measurements import Claim, Measurement, read_measurements, verdicts, write_measurements
from prunejax.errors import InputError


def test_a_case_measured_again_replaces_its_rows(tmp_path: Path) -> None:
    one = Measurement("rome", "prunejax", "edit", 3, 1.0, 0.5, 2.0)
    write_measurements(tmp_path / "cpu.csv", [one, one._replace(side="pytorch", ratio=12.345678)])
    rows = write_measurements(tmp_path / "cpu.csv", [one._replace(case="memit")])
    assert list(rows["case"]) == ["rome", "rome", "memit"]
    again = write_measurements(tmp_path / "cpu.csv", [one._replace(median_s=7.0)])
    assert list(again["case"]) == ["memit", "rome"]
    assert read_measurements(tmp_path / "cpu.csv")["median_s"].tolist() == [1.0, 7.0]
    (tmp_path / "bad.csv").write_text("case,side\n")
    with pytest.raises(InputError, match="its columns are not those of this version"):
        read_measurements(tmp_path / "bad.csv")


def test_claims_are_held_against_their_rows(tmp_path: Path) -> None:
    one = Measurement("rome", "pytorch", "edit", 3, 1.0, 0.5, 2.0, ratio=12.5, difference=0.01)
    rows = write_measurements(tmp_path / "cpu.csv", [one])
    claims = (Claim("rome", "pytorch", "ratio", 1, 12), Claim("rome", "pytorch", "difference", -1, 1e-3))
    assert verdicts(rows, (*claims, Claim("memit", "pytorch", "ratio", 1, 12))) == [
        "yes rome, pytorch: ratio 12.5, at least 12 is asked",
        "no  rome, pytorch: difference 0.01, at most 0.001 is asked",
    ]
    unknown = write_measurements(tmp_path / "cpu.csv", [one._replace(ratio=float("nan"))])
    assert verdicts(unknown, claims[:1]) == ["no  rome, pytorch: ratio nan, at least 12 is asked"]
