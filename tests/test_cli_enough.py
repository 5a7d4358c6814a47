"""The verb that counts keys: what it says and writes, and bad input."""

from pathlib import Path

import pytest

from prunejax.cli import main
from prunejax.records import read_records
from prunejax.requests import to_json_line
from tiny import TEXTS
from tiny_runs import REQUESTS, TENSOR


@pytest.fixture
def words(tiny_folder: Path, tmp_path: Path) -> list[object]:
    (tmp_path / "text.txt").write_text("\n".join(f"{text}{i}" for i in range(6) for text in TEXTS), encoding="utf-8")
    lines = [to_json_line(request) for request in REQUESTS]
    (tmp_path / "requests.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {"model": tiny_folder, "text": tmp_path / "text.txt", "requests": f"{tmp_path / 'requests.jsonl'}:3"}
    options |= {"layer": 1, "ridge": 0.5, "seeds": 2, "out": tmp_path / "enough.csv"}
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["enough", *map(str, words)])
    return ended.value.code


def test_it_writes_moment_rows_and_says_them(words: list[object], tmp_path: Path, capsys) -> None:
    assert call(*words) == 0
    rows = read_records(tmp_path / "enough.csv")
    assert set(rows["seed"]) == {0, 1}
    facts = rows[["model", "corpus", "requests", "tensor"]].drop_duplicates()
    assert facts.to_numpy().tolist() == [["tiny", "text.txt", "requests.jsonl:3", TENSOR]]
    assert set(rows["settings"]) == {"ridge=0", "ridge=0.5"}
    assert set(rows["metric"]) == {"kappa", "scaled_kappa", "cosine", "cost"}
    said = capsys.readouterr().out.splitlines()
    at = (rows["settings"] == "ridge=0.5") & (rows["keys"] == 128) & (rows["metric"] == "cost")
    (line,) = (line for line in said if line.startswith("ridge=0.5, 2 keys a dimension: "))
    assert f"cost {rows.loc[at, 'mean'].mean():.3g}," in line
    assert said[-1] == f"wrote {tmp_path / 'enough.csv'}"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--layer", 3, "layers [3]: the model has layers 0 to 2"),
        ("--text", "none.txt", "text none.txt: no such file"),
        ("--ridge", 0, "Invalid value for '--ridge'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    words: list[object], tmp_path: Path, capsys, option: str, value: object, message: str
) -> None:
    assert call(*words, option, value) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
    assert not (tmp_path / "enough.csv").exists()
