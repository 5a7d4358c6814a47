"""`python -m benchmarks`: what it writes, what it refuses, and its figure."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib.figure import Figure

from benchmarks.__main__ import bench, conclude, main, told
from benchmarks.figure import draw_comparisons
from benchmarks.measurements import CLAIMS, Measurement, read_measurements, write_measurements
from benchmarks.rates import refuse_below
from prunejax.errors import InputError

ROWS = (
    Measurement(
        "rome", "prunejax", "edit", 20, 1.5, 1.2, 2.0, gflop=240.0, rate_gflops=160.0, fraction=0.6, peak_mb=9, cores=2
    ),
    Measurement("rome", "pytorch", "edit", 5, 30.0, 25.0, 36.0, ratio=20.0, difference=1e-5, fraction=0.8, cores=2),
    Measurement("restraint", "eight bases", "200 updates", 5, 1.0, 0.9, 1.2, ratio=1.2, cores=1),
)


@pytest.fixture
def run(torch: ModuleType, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command with cases that take no time: rome gives its rows, memit is refused. Returns its exit status."""
    from benchmarks import suite

    monkeypatch.setenv("PRUNEJAX_SHARED", str(shared))
    cases = {"rome": lambda: list(ROWS), "memit": lambda: refuse_below("memit", 0.2)}
    long = dict.fromkeys(suite.LONG, lambda: 1 / 0)
    monkeypatch.setattr(suite, "cpu_cases", lambda *_: cases | long)

    def command(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["bench", *words, "--out", str(tmp_path)])
        try:
            main()
        except SystemExit as ended:
            return ended.code
        return 0

    return command


def test_a_refused_case_leaves_its_rows_and_the_others_go_on(run, tmp_path: Path, capsys) -> None:
    write_measurements(tmp_path / "cpu.csv", [ROWS[0]._replace(case="memit", median_s=7.0)])
    assert run() == 1
    said = capsys.readouterr()
    assert said.err == (
        "refused: memit: PyTorch reached 20% of its own matrix-product rate, under 35%, so there is no comparison; "
        "is the machine busy?\n"
    )
    assert said.out.splitlines()[1] == told(ROWS[1])
    assert "yes rome, pytorch: ratio 20, at least 12 is asked" in said.out
    rows = read_measurements(tmp_path / "cpu.csv")
    assert list(rows["case"]) == ["memit", "rome", "rome", "restraint"]
    assert rows["median_s"][0] == 7.0
    assert (tmp_path / "cpu.png").stat().st_size > 10_000


def test_one_case_by_name(run, tmp_path: Path, capsys) -> None:
    assert run("--only", "rome") == 0
    assert run("--only", "nothing") == 2
    assert capsys.readouterr().err == "bench: --only nothing: there are rome, memit, saving, world-long\n"
    assert run("--device", "tpu") == 2


def test_without_pytorch_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="PyTorch is not installed: make bench installs it"):
        bench.main([], standalone_mode=False)


def test_a_row_as_a_line() -> None:
    assert told(ROWS[0]) == ("rome, prunejax: 1.5 s (1.2 to 2), edit, 240 GFLOP, rate 160 GFLOP/s, 60% of it, 9 MB")
    assert told(ROWS[1]) == "rome, pytorch: 30 s (25 to 36), edit, ratio 20, difference 1.0e-05, 80% of it"


def test_the_figure_shows_ratios_claims_and_fractions(tmp_path: Path) -> None:
    rows = write_measurements(tmp_path / "cpu.csv", ROWS)
    fig = Figure()
    draw_comparisons(fig, rows)
    left, right = fig.axes
    ratios = [line.get_xdata()[1] for line in left.lines if line.get_label() == "_ratio"]
    asked = [line.get_xdata()[0] for line in left.lines if line.get_label() == "_asked"]
    assert (ratios, asked) == ([20.0, 1.2], [12, 1.3])
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "ROME: PyTorch / prunejax (n = 5, 2 cores)",
        "restraint, factors: 8 bases / 1 (n = 5, 1 core)",
    ]
    assert [line.get_xdata()[0] for line in right.lines if line.get_label() != "_bound"] == [0.6, 0.8]


def test_a_record_without_comparisons_is_drawn_too(tmp_path: Path, capsys) -> None:
    """As after `--only world`."""
    record = tmp_path / "cpu.csv"
    write_measurements(record, [ROWS[0]._replace(case="world", fraction=float("nan"), median_s=100.0)])
    conclude(record, CLAIMS)
    assert capsys.readouterr().out.splitlines() == [
        "yes world, prunejax: median_s 100, at most 120 is asked",
        f"wrote {record} and {tmp_path / 'cpu.png'}",
    ]
