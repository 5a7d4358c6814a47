import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax import records
from prunejax.errors import InputError

CASES = pd.DataFrame(
    [
        ("rome", "none", 10, 0, "null", "efficacy", 1.0),
        ("rome", "none", 10, 0, 'a, "quoted" name', "generalization", 1 / 3),
        ("rome", "log:1.2", 10, 0, "NA", "efficacy", math.nan),
        ("rome", "none", 0, 1, "all", "perplexity", 1234567.0),
        ("rome", "none", 10, 0, "weight:transformer.h.2.mlp.c_proj.weight", "kappa", math.inf),
    ],
    columns=list(records.CASE_COLUMNS),
)
RUN = ("r1", "world", "world:10", "rome", "", "none", 1, 0, 10)
SUMMARY = pd.DataFrame(
    [(*RUN, "efficacy", 10, 0.8, 0.490162, 0.943318, 1), (*RUN, "perplexity", 1, math.nan, math.nan, math.nan, 1)],
    columns=list(records.SUMMARY_COLUMNS),
)
PREFIX = ("tiny", "0a1b2c3d", "a text", "3d2c1b0a", "facts:2", "h.0", 64, 0, "ridge=0")
MOMENTS = pd.DataFrame(
    [
        (*PREFIX, 128, "cosine", 2, -0.25, -0.5, 0.0, 0),
        (*PREFIX, 128, "cost", 2, 1.5, 0.0, 4.0, 0),
        (*PREFIX, 128, "locality_top1", 2, 0.5, 0.1, 0.9, 0),
        (*PREFIX, 32, "cost", 2, math.nan, math.nan, math.nan, 2),
        (*PREFIX, 32, "scaled_kappa", 1, math.inf, math.inf, math.inf, 0),
    ],
    columns=list(records.MOMENT_COLUMNS),
)


def changed(frame, row, column, value):
    frame = frame.astype({column: object})
    frame.loc[row, column] = value
    return frame


def test_case_rows_round_trip(tmp_path):
    path = records.write_records(tmp_path / "records" / "evaluation.csv", CASES)
    assert path.read_text().splitlines()[:3] == [
        "editor,restraint,n_edits,seed,case,metric,value",
        "rome,none,10,0,null,efficacy,1",
        'rome,none,10,0,"a, ""quoted"" name",generalization,0.333333',
    ]
    found = records.read_records(path)
    expected = CASES.assign(value=[1.0, 0.333333, math.nan, 1.23457e6, math.inf])
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    again = records.write_records(tmp_path / "again.csv", found)
    assert again.read_bytes() == path.read_bytes()


def test_summary_rows_round_trip(tmp_path):
    found = records.read_records(records.write_records(tmp_path / "s.csv", SUMMARY[list(reversed(SUMMARY.columns))]))
    pd.testing.assert_frame_equal(found, SUMMARY, check_exact=True)


def test_moment_rows_round_trip_and_merge(tmp_path):
    found = records.read_records(records.write_records(tmp_path / "m.csv", MOMENTS))
    pd.testing.assert_frame_equal(found, MOMENTS, check_exact=True)
    again = records.merge(MOMENTS, MOMENTS.assign(mean=MOMENTS["lo"]))
    assert len(again) == len(MOMENTS)
    np.testing.assert_array_equal(again["mean"], again["lo"])


def test_no_rows_round_trip(tmp_path):
    found = records.read_records(records.write_records(tmp_path / "s.csv", SUMMARY.iloc[:0]))
    pd.testing.assert_frame_equal(found, SUMMARY.iloc[:0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0) | st.just(math.nan), min_size=1, max_size=5))
def test_what_is_read_is_the_value_that_was_printed(tmp_path_factory, values):
    rows = [("rome", "none", i, 0, "all", "perplexity", value) for i, value in enumerate(values)]
    folder = tmp_path_factory.mktemp("records")
    path = records.write_records(folder / "a.csv", pd.DataFrame(rows, columns=list(records.CASE_COLUMNS)))
    found = records.read_records(path)["value"].tolist()
    assert found == pytest.approx([float(f"{value:.6g}") for value in values], rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (CASES.drop(columns="seed"), "columns are editor, .*expected editor"),
        (CASES.assign(note="x"), "columns are"),
        (changed(MOMENTS, 2, "hi", 1.1), "row 3: hi is '1.1', outside its metric's range"),
        (changed(MOMENTS, 1, "lo", -0.1), "row 2: lo is '-0.1', outside"),
        (changed(MOMENTS, 0, "lo", -0.1), "row 1: mean is '-0.25', below lo"),
        (changed(MOMENTS, 0, "d_in", 0), "row 1: d_in is '0', not a whole number of at least 1"),
        (changed(MOMENTS, 4, "settings", math.nan), "row 5: settings is 'nan', where text was expected"),
        (changed(CASES, 0, "value", 1.1), "row 1: value is '1.1', outside its metric's range"),
        (changed(CASES, 3, "value", -1.0), "row 4: value is '-1.0', outside"),
        (changed(CASES, 1, "value", "many"), "row 2: value is 'many', not a number"),
        (changed(CASES, 1, "value", ""), "row 2: value is '', not a number"),
        (changed(CASES, 1, "n_edits", 1.5), "row 2: n_edits is '1.5', not a whole number of at least 0"),
        (changed(CASES, 1, "n_edits", math.nan), "row 2: n_edits is 'nan', not a whole number"),
        (changed(CASES, 1, "seed", 2**60), "row 2: seed is .*not a whole number"),
        (changed(CASES, 2, "case", None), "row 3: case is .*where text was expected"),
        (changed(CASES, 2, "case", "two\nlines"), "row 3: case is .*line break"),
        (changed(CASES, 2, "metric", "happiness"), "unknown metric 'happiness'; there are ability, "),
        (pd.concat([CASES, CASES.iloc[:1]]), "row 6: metric is 'efficacy', measured twice"),
        (changed(SUMMARY, 0, "mean", 0.48), "row 1: mean is '0.48', below lo"),
        (changed(SUMMARY, 0, "mean", 0.95), "row 1: mean is '0.95', above hi"),
        (changed(SUMMARY, 0, "mean", math.nan), "row 1: mean is 'nan', for a score"),
        (changed(SUMMARY, 0, "hi", 1.2), "row 1: hi is '1.2', outside"),
        (changed(SUMMARY, 0, "nan_count", 11), "row 1: nan_count is '11', more than n"),
        (changed(SUMMARY, 0, "n", 0), "row 1: n is '0', not a whole number of at least 1"),
    ],
)
def test_rows_that_cannot_be_are_refused_and_nothing_is_written(tmp_path, frame, message):
    with pytest.raises(InputError, match=message) as caught:
        records.write_records(tmp_path / "a.csv", frame)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-3], "cut off in its last line"),
        (lambda text: "", "cut off"),
        (lambda text: text.replace(",1\n", ",1,1\n"), "row 1 has 8 fields, its header 7"),
        (lambda text: text.replace(",1\n", ",1.1\n"), "row 1: value is '1.1', outside"),
        (lambda text: text.replace(",1\n", ",\n"), "row 1: value is '', not a number"),
        (lambda text: text.replace('""quoted""', '"quoted"'), "not valid CSV"),
        (lambda text: text.replace("seed", "sed"), "columns are editor, restraint, n_edits, sed"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message):
    path = records.write_records(tmp_path / "a.csv", CASES)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=message) as caught:
        records.read_records(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        records.read_records(tmp_path / "a.csv")


def test_merge_replaces_keeps_and_sorts():
    new = pd.concat(
        [CASES.iloc[[0]].assign(value=0.0), CASES.iloc[[0]].assign(n_edits=9), CASES.iloc[[0]].assign(n_edits=100)]
    )
    merged = records.merge(CASES, new)
    assert len(merged) == len(CASES) + 2
    hit = merged[merged["case"] == "null"]
    assert hit["n_edits"].tolist() == [9, 10, 100]
    assert hit["value"].tolist() == [1.0, 0.0, 1.0]
    shuffled = records.merge(CASES.sample(frac=1, random_state=1), new.sample(frac=1, random_state=2))
    pd.testing.assert_frame_equal(shuffled, merged)
    pd.testing.assert_frame_equal(records.merge(merged, new), merged)


def test_merge_of_nothing_and_of_unlike_rows():
    pd.testing.assert_frame_equal(records.merge(CASES.iloc[:0], CASES), records.ordered(records.check(CASES)))
    with pytest.raises(InputError, match="do not merge"):
        records.merge(CASES, SUMMARY)


def test_manifest_lists_every_record(tmp_path):
    records.write_records(tmp_path / "a.csv", CASES)
    records.write_records(tmp_path / "b.csv", SUMMARY)
    (tmp_path / "stored.bin").write_bytes(b"abc")
    (tmp_path / "README.md").write_text("how it was made")
    manifest = json.loads(records.write_manifest(tmp_path).read_text())
    assert sorted(manifest) == ["a.csv", "b.csv", "stored.bin"]
    assert (manifest["a.csv"]["rows"], manifest["b.csv"]["rows"]) == (5, 2)
    # SHA-256 of "abc", FIPS 180-2 appendix B.1
    assert manifest["stored.bin"] == {"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    assert records.verify_manifest(tmp_path) == manifest


def test_a_doctored_record_is_named(tmp_path):
    for name in ("a", "b", "c"):
        records.write_records(tmp_path / f"{name}.csv", SUMMARY)
    records.write_manifest(tmp_path)
    doctored = tmp_path / "b.csv"
    records.write_records(doctored, changed(SUMMARY, 0, "mean", 0.9))
    with pytest.raises(InputError, match=r"b\.csv was altered") as caught:
        records.verify_manifest(tmp_path)
    assert "a.csv" not in str(caught.value)
    assert "c.csv" not in str(caught.value)
    (tmp_path / "c.csv").rename(tmp_path / "d.csv")
    with pytest.raises(InputError, match=r"c\.csv is missing, d\.csv is not listed, b\.csv was altered"):
        records.verify_manifest(tmp_path)


def test_a_damaged_record_is_never_signed(tmp_path):
    records.write_records(tmp_path / "a.csv", SUMMARY).write_text("run_id\n1\n")
    with pytest.raises(InputError, match="columns are run_id"):
        records.write_manifest(tmp_path)
    assert not (tmp_path / records.MANIFEST).exists()


@pytest.mark.parametrize("content", ["[]", '{"a.csv": 1}', "{"])
def test_a_damaged_manifest_is_an_input_error(tmp_path, content):
    (tmp_path / records.MANIFEST).write_text(content)
    with pytest.raises(InputError, match="manifest"):
        records.verify_manifest(tmp_path)
