"""Verdicts: printed, read again, and gathered on a page."""

import json
from pathlib import Path

import pandas as pd
import pytest

from prunejax.errors import InputError
from prunejax.verdicts import (
    Verdict,
    alike,
    by_seed,
    every,
    heading,
    index,
    kept,
    orders_of,
    together,
    told,
    verdicts_of,
)

ONE = Verdict("Fig. 2", "kappa: it grows", "does not hold", "-43.1 [-44.0, -42.3]", "5 request orders", 3, "0.5 | 0.7")
TWO = Verdict("referee 4", "the map amplifies", "holds when m ln(base) is below 1", "1.07", "1 matrix; all bases", 0)


def write(folder: Path, printed: str, name: str = "01_does_it.ipynb") -> Path:
    head = {"cell_type": "markdown", "metadata": {}, "source": ["# Does *it*\n", "text"]}
    said = {"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)}
    other = {"cell_type": "code", "metadata": {}, "source": "", "outputs": [said | {"text": ["holds: not this\n"]}]}
    last = {"cell_type": "code", "metadata": {"tags": ["verdict"]}, "source": "", "outputs": [said]}
    path = folder / name
    path.write_text(json.dumps({"cells": [head, other, last]}), encoding="utf-8")
    return path


def test_verdicts_are_read_as_they_were_printed(tmp_path: Path) -> None:
    printed = told(ONE, TWO)
    assert printed.startswith("does not hold: kappa: it grows\n  number: -43.1")
    assert verdicts_of(write(tmp_path, f"{printed}\n")) == [ONE, TWO]


@pytest.mark.parametrize("printed", ["", "holds: something\n", f"{told(ONE)}\nand more\n", f"so:\n{told(ONE)}\n"])
def test_a_cell_that_prints_other_things_is_named(tmp_path: Path, printed: str) -> None:
    with pytest.raises(InputError, match=r"01_does_it.ipynb: its verdict cell prints other things"):
        verdicts_of(write(tmp_path, printed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"number": " "}, "every field"),
        ({"claim": "a\nb"}, "every field"),
        ({"answer": "yes"}, "'yes' is none of holds, does not hold"),
        ({"answer": "holds when: never"}, "is none of"),
    ],
)
def test_a_verdict_must_say_something(changed: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        told(ONE._replace(**changed))


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "undecided"], "undecided"),
        (["holds", "does not hold", "undecided"], "does not hold"),
        (["undecided"], "undecided"),
    ],
)
def test_what_needs_all_holds_only_if_all_do(words: list[str], answer: str) -> None:
    assert together(words) == answer


@pytest.mark.parametrize(
    ("ends", "same", "keeps"),
    [
        ([(-0.01, 0.01), (-0.015, 0.0)], "holds", "holds"),
        ([(-0.01, 0.01), (-0.30, 0.3)], "undecided", "undecided"),
        ([(-0.01, 0.01), (0.1, 0.3)], "does not hold", "holds"),
        ([(-0.01, 0.01), (-0.3, -0.1)], "does not hold", "does not hold"),
        ([(0.005, 0.015)], "holds", "holds"),
        ([(float("nan"), float("nan"))], "undecided", "undecided"),
    ],
)
def test_what_is_the_same_lies_within_a_margin(ends: list[tuple[float, float]], same: str, keeps: str) -> None:
    assert (alike(ends), kept(ends)) == (same, keeps)


def test_orders_and_intervals_are_told_seed_by_seed() -> None:
    rows = pd.DataFrame({"model": ["world-seed-1", "world", "world", "world"], "seed": [0, 0, 1, 1]})
    assert orders_of(rows) == "2 and 1 request orders"
    assert orders_of(rows[rows["model"] == "world"]) == "2 request orders"
    ends = pd.DataFrame({"model": ["b", "a"], "mean": [0.5, 0.1], "lo": [0.4, 0.0], "hi": [0.6, 0.2]})
    assert by_seed(ends) == "0.100 [0.000, 0.200]; 0.500 [0.400, 0.600]"
    with pytest.raises(InputError, match="more than one row of a model"):
        by_seed(pd.concat([ends, ends]))


def test_the_page_has_a_table_a_notebook_and_a_row_a_verdict(tmp_path: Path) -> None:
    write(tmp_path, f"{told(TWO)}\n", "02_other.ipynb")
    write(tmp_path, f"{told(ONE, TWO)}\n")
    page = index(tmp_path)
    first, second = page.index("## [01](01_does_it.ipynb) Does *it*"), page.index("## [02](02_other.ipynb)")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    assert first < second
    assert len(rows) == 2 + 3
    assert rows[1] == (
        "| Fig. 2 | kappa: it grows | **does not hold** | -43.1 [-44.0, -42.3] | 5 request orders | 3 | 0.5 \\| 0.7 |"
    )
    assert " | none | unknown |" in rows[2]
    assert (
        heading([{"cell_type": "code", "source": "# no"}, {"cell_type": "markdown", "source": "text\n## So?"}]) == "So?"
    )
    assert heading([]) == ""


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (("holds", "holds"), "holds"),
        (("holds", "undecided"), "undecided"),
        (("undecided", "does not hold", "holds"), "does not hold"),
    ],
)
def test_of_several_claims_together_every_one_must_hold(answers: tuple[str, ...], said: str) -> None:
    assert every(*answers) == said
