"""Notebooks of two or three cells, run for real: what agrees, what differs, what raises, and what is left untouched."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from rich.console import Console

from prunejax.errors import InputError
from prunejax.reproduce import Outcome, agreement, ok, reproduce, summary

SHOW = "from IPython.display import display; display({'image/png': 'bmV3', 'text/plain': 'a figure'}, raw=True)"
DRAW = """
import os
from pathlib import Path
figures = Path(os.environ["PRUNEJAX_FIGURES"])
figures.mkdir(parents=True, exist_ok=True)
written = (figures / "curve.png").write_text("curve")
print(Path.cwd().name, os.environ.get("MPLBACKEND", "")[-6:], os.environ.get("PRUNEJAX_LIVE"), sep="\\n")
"""


class House(NamedTuple):
    root: Path
    outcomes: list[Outcome]
    reported: list[Outcome]
    before: dict[str, bytes]


def printed(text: str) -> Any:
    return new_output("stream", name="stdout", text=text)


def cell(source: str, *outputs: Any, tags: tuple[str, ...] = ()) -> Any:
    return new_code_cell(
        source, execution_count=1, outputs=list(outputs), metadata={"tags": list(tags)} if tags else {}
    )


def commit(root: Path, name: str, *cells: Any) -> Path:
    """A notebook whose kernelspec is installed nowhere, with an execution time in its metadata."""
    notebook = new_notebook(cells=list(cells), metadata={"kernelspec": {"name": "elsewhere", "display_name": "?"}})
    notebook.cells[-1].metadata["execution"] = {"iopub.status.idle": "2001-01-01T00:00:00Z"}
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def files(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file() and "build" not in path.relative_to(root).parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def run(root: Path, only: str | None = None, live: bool = False, write: bool = False) -> list[Outcome]:
    return reproduce(root / "notebooks", root / "build", only, live, write, lambda outcome: None)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """One run over a notebook that agrees, one that raises, one whose kernel dies and one that differs."""
    root = tmp_path_factory.mktemp("house")
    figure = new_output("display_data", data={"image/png": "b2xk", "text/plain": "a figure"})
    commit(
        root,
        "01_sound",
        new_markdown_cell("A word before.\n\n# Does it hold?\n\n## Not this"),
        cell(DRAW, printed("notebooks  \n"), printed("inline\nNone\n\n")),
        cell(SHOW, figure),
        cell("print('Holds [0.1, 0.2].\\nIn detail')", printed("Holds [0.1, 0.2].\nIn detail\n"), tags=("verdict",)),
    )
    commit(
        root,
        "02_raises",
        new_markdown_cell("# Does it stop?"),
        cell("edits = 3"),
        cell("raise ValueError('too many edits\\nfor one sitting')"),
        cell("print('Holds.')", printed("Holds.\n"), tags=("verdict",)),
    )
    commit(root, "03_dies", cell("import os; os._exit(3)"))
    commit(
        root,
        "04_moved",
        cell("print('same'); 1 + 1", printed("same\n"), new_output("execute_result", data={"text/plain": "2"})),
        cell("print('kept\\nkappa 0.841\\nkept')", printed("kept\nkappa 0.842\nkept\n")),
        cell("print('later')", printed("earlier\n")),
    )
    (root / "figures").mkdir()
    (root / "figures" / "curve.png").write_text("committed")
    elsewhere = root / "kernels" / "python3" / "kernel.json"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text('{"argv": ["false"], "display_name": "not this interpreter", "language": "python"}')
    before, reported = files(root), []
    with pytest.MonkeyPatch.context() as shell:
        shell.setenv("JUPYTER_PATH", str(root))
        shell.setenv("PRUNEJAX_LIVE", "1")
        shell.setenv("MPLBACKEND", "agg")
        outcomes = reproduce(root / "notebooks", root / "build", None, False, False, reported.append)
    return House(root, outcomes, reported, before)


def executed(house: House, name: str) -> Any:
    return nbformat.read(house.root / "build" / "notebooks" / f"{name}.ipynb", as_version=4)


def test_a_sound_notebook_agrees_whatever_its_images_pieces_and_trailing_spaces(house: House) -> None:
    sound = house.outcomes[0]
    assert (sound.name, sound.question, sound.verdict) == ("01_sound", "Does it hold?", "Holds [0.1, 0.2].")
    assert sound.agrees, sound.difference
    assert (sound.cell, sound.difference, sound.error, sound.rewritten) == (None, "", "", False)
    assert 0 < sound.seconds < 120
    assert ok([sound])


def test_a_raising_cell_is_named_and_its_notebook_tells_no_old_verdict(house: House) -> None:
    raised = house.outcomes[1]
    assert raised.error == "ValueError: too many edits\nfor one sitting"
    assert (raised.cell, raised.agrees, raised.verdict) == (2, False, "")
    assert agreement(raised) == "no: cell 2 raised ValueError: too many edits"
    assert not ok([raised])
    assert [len(cell.get("outputs", ())) for cell in executed(house, "02_raises").cells] == [0, 0, 1, 0]


def test_a_dead_kernel_is_an_error_with_a_place_to_look(house: House) -> None:
    died = house.outcomes[2]
    log = house.root / "build" / "notebooks" / "03_dies.log"
    assert died.error.startswith("DeadKernelError")
    assert str(log) in died.error
    assert log.is_file()
    assert (died.cell, died.agrees, died.question) == (1, False, "03_dies")


def test_the_first_difference_is_named_and_shown(house: House) -> None:
    moved = house.outcomes[3]
    assert (moved.agrees, moved.cell, moved.error) == (False, 2, "")
    assert moved.difference == "stdout:\n- kappa 0.842\n+ kappa 0.841"
    assert agreement(moved) == "no: cell 2 differs"
    assert not ok([house.outcomes[0], moved])


def test_each_outcome_is_reported_and_the_table_has_a_row_for_each(house: House) -> None:
    assert house.reported == house.outcomes
    console = Console(file=io.StringIO(), width=200)
    console.print(summary(house.outcomes))
    table = console.file.getvalue()
    for words in ("Does it hold?", "Holds [0.1, 0.2].", "yes", "cell 2 raised ValueError", "cell 2 differs"):
        assert words in table


def test_nothing_but_build_is_touched_without_write(house: House) -> None:
    assert files(house.root) == house.before
    assert (house.root / "build" / "figures" / "curve.png").read_text() == "curve"


def test_the_executed_copy_says_nothing_of_this_machine(house: House) -> None:
    copied = executed(house, "01_sound")
    committed = nbformat.read(house.root / "notebooks" / "01_sound.ipynb", as_version=4)
    kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert copied.metadata == {"kernelspec": kernelspec, "language_info": {"name": "python"}}
    assert [cell.id for cell in copied.cells] == [cell.id for cell in committed.cells]
    assert [cell.metadata for cell in copied.cells] == [{}, {}, {}, {"tags": ["verdict"]}]
    assert [cell.execution_count for cell in copied.cells[1:]] == [1, 2, 3]


def test_write_replaces_what_ran_and_then_agrees(tmp_path: Path) -> None:
    path = commit(tmp_path, "01_moved", cell(DRAW, printed("notebooks\ninline\nNone\n")), cell("2"))
    raising = commit(tmp_path, "02_raises", cell("1 / 0", printed("1\n")))
    before = raising.read_bytes()

    moved, raised = run(tmp_path, live=True, write=True)
    assert (moved.agrees, moved.cell, moved.rewritten, ok([moved])) == (False, 1, True, True)
    assert moved.difference == "stdout:\n- None\n+ 1", "PRUNEJAX_LIVE"
    assert agreement(moved) == "rewritten: cell 1 differed"
    assert (raised.error, raised.rewritten, ok([raised])) == ("ZeroDivisionError: division by zero", False, False)
    assert raising.read_bytes() == before
    assert (tmp_path / "figures" / "curve.png").read_text() == "curve"
    assert not (tmp_path / "build" / "figures").exists()

    written = path.read_bytes()
    (again,) = run(tmp_path, only="1", live=True)
    assert (again.agrees, again.rewritten) == (True, False)
    assert path.read_bytes() == written == (tmp_path / "build" / "notebooks" / path.name).read_bytes()


@pytest.mark.parametrize("only", ["03", "3", "03_three", "03_three.ipynb", "notebooks/03_three.ipynb"])
def test_only_takes_a_number_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: str) -> None:
    for name in ("01_one", "03_three", "13_thirteen"):
        commit(tmp_path, name, new_markdown_cell(f"# {name}?"))
    monkeypatch.setattr("prunejax.reproduce._execute", lambda *_: (None, ""))
    assert [outcome.name for outcome in run(tmp_path, only)] == ["03_three"]
    assert [outcome.question for outcome in run(tmp_path)] == ["01_one?", "03_three?", "13_thirteen?"]


@pytest.mark.parametrize("only", ["02", "2", "one", "", "01_one.py.ipynb"])
def test_only_without_a_match_lists_what_there_is(tmp_path: Path, only: str) -> None:
    commit(tmp_path, "01_one", cell("1"))
    with pytest.raises(InputError, match="choose among 01_one"):
        run(tmp_path, only)


def test_a_folder_without_notebooks_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no NN_\*\.ipynb"):
        run(tmp_path)


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", "[]", "{}", '{"nbformat": 4, "nbformat_minor": 5, "cells": 3}'])
def test_a_broken_notebook_is_bad_input_before_anything_runs(tmp_path: Path, text: str) -> None:
    commit(tmp_path, "01_one", cell("1"))
    (tmp_path / "notebooks" / "02_two.ipynb").write_text(text)
    with pytest.raises(InputError, match=r"02_two\.ipynb") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "build").exists()


def test_missing_packages_are_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(tmp_path, "01_one", cell("1"))
    monkeypatch.setitem(sys.modules, "nbclient", None)
    with pytest.raises(InputError, match=r"^reproduce needs nbclient: .*prunejax\[notebooks\]"):
        run(tmp_path)


def test_an_interrupt_ends_the_run_instead_of_the_notebook(tmp_path: Path) -> None:
    started, following = tmp_path / "started", tmp_path / "next"
    commit(tmp_path, "01_long", cell(f"open({str(started)!r}, 'w').close(); import time; time.sleep(100)"))
    commit(tmp_path, "02_next", cell(f"open({str(following)!r}, 'w').close()"))
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a background job ignores it
        "from pathlib import Path; from prunejax.reproduce import reproduce; "
        "reproduce(Path('notebooks'), Path('build'), None, False, False, print)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 100
            while not started.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            assert started.exists()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert said.rstrip().endswith("KeyboardInterrupt"), said
    assert not following.exists()
