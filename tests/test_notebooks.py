"""Guards around nbval, which compares nothing in a notebook never run, or in a cell that asks to be left alone."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Cells that nbval need not compare, as "notebook.ipynb#cell-id", each with its reason beside it.
UNCHECKED: frozenset[str] = frozenset()
UNCHECKING_TAGS = {"nbval-skip", "nbval-ignore-output", "nbval-raises-exception", "raises-exception", "skip-execution"}
UNCHECKING_COMMENT = re.compile(r"#\s*(NBVAL_(SKIP|IGNORE_OUTPUT|RAISES_EXCEPTION)|PYTEST_VALIDATE_IGNORE_OUTPUT)")
DEFINITION = re.compile(r"^\s*(async\s+)?def\s", re.MULTILINE)

Notebook = dict[str, Any]


def text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def tags(cell: dict[str, Any]) -> set[str]:
    return set(cell["metadata"].get("tags", ()))


def faults(notebook: Notebook, name: str) -> list[str]:
    """What keeps a notebook from being evidence: empty when it was run in order, without error, and is compared."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    found = []
    if [cell["execution_count"] for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("not run from top to bottom: make notebooks")
    if not outputs:
        found.append("no output")
    if any(output["output_type"] == "error" for output in outputs):
        found.append("an error is stored")
    if any(output.get("name") == "stderr" for output in outputs):
        found.append("a warning or a progress bar is stored")
    if any(DEFINITION.search(text(cell)) for cell in cells):
        found.append("a function is defined: it belongs in the package")
    unchecked = (cell for cell in cells if tags(cell) & UNCHECKING_TAGS or UNCHECKING_COMMENT.search(text(cell)))
    if any(f"{name}#{cell.get('id')}" not in UNCHECKED for cell in unchecked):
        found.append("a cell is kept from comparison")
    if sum("parameters" in tags(cell) for cell in cells) != 1:
        found.append("not one cell tagged parameters")
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        found.append("no python3 kernelspec")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_run_and_compared(path: Path) -> None:
    assert faults(json.loads(path.read_text()), path.name) == []


def test_the_readme_lists_exactly_the_notebooks() -> None:
    readme = ROOT / "README.md"
    listed = re.findall(r"notebooks/([\w-]+\.ipynb)", readme.read_text()) if readme.exists() else []
    assert sorted(set(listed)) == [path.name for path in NOTEBOOKS]


def code(count: int, source: str, *outputs: dict[str, Any], tags: tuple[str, ...] = ()) -> dict[str, Any]:
    stored = {"execution_count": count, "metadata": {"tags": list(tags)}, "outputs": list(outputs)}
    return {"cell_type": "code", "source": source, **stored}


SOUND: Notebook = {
    "metadata": {"kernelspec": {"name": "python3"}},
    "cells": [
        {"cell_type": "markdown", "metadata": {}, "source": ["Does def hold?"]},
        code(1, "edits = 3", tags=("parameters",)),
        code(2, "print(edits)", {"output_type": "stream", "name": "stdout", "text": "3\n"}),
    ],
}


def test_a_sound_notebook_has_no_faults() -> None:
    assert faults(SOUND, "sound.ipynb") == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"execution_count": None}, "not run"),
        ({"execution_count": 3}, "not run"),
        ({"outputs": []}, "no output"),
        ({"outputs": [{"output_type": "error"}]}, "an error"),
        ({"outputs": [{"output_type": "stream", "name": "stderr"}]}, "a warning"),
        ({"source": ["print(1)\n", "    def f(): pass"]}, "a function"),
        ({"source": "# NBVAL_IGNORE_OUTPUT\nprint(1)"}, "a cell is kept"),
        ({"metadata": {"tags": ["nbval-skip"]}}, "a cell is kept"),
        ({"metadata": {"tags": ["parameters"]}}, "not one cell"),
    ],
)
def test_each_fault_is_seen(changes: dict[str, Any], fault: str) -> None:
    notebook = copy.deepcopy(SOUND)
    notebook["cells"][2] |= changes
    (found,) = faults(notebook, "doctored.ipynb")
    assert found.startswith(fault)


def test_a_missing_kernelspec_is_seen() -> None:
    assert faults(SOUND | {"metadata": {}}, "doctored.ipynb") == ["no python3 kernelspec"]
