"""Every notebook run from top to bottom, and whether it still says what the committed one says.

The comparison is nbval's: what a cell prints, its text and html results and its errors, not its images. What is run is
kept in build/; the committed notebooks and figures/ change only when asked to.
"""

import asyncio
import copy
import difflib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table
from rich.text import Text

from prunejax.errors import InputError
from prunejax.files import read_text, write_atomic
from prunejax.verdicts import heading

if TYPE_CHECKING:
    from nbformat import NotebookNode

PACKAGES = ("ipykernel", "nbclient", "nbformat")
# One BLAS thread keeps the bits of an SVD; the rest keeps bars, hints and XLA's complaints of a slow machine out.
FIXED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
FIXED |= {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "TF_CPP_MIN_LOG_LEVEL": "3"}
# From whatever shell this was started in: a backend that stores no figure, other number types, somebody's live run.
UNWANTED = ("MPLBACKEND", "JAX_ENABLE_X64", "PRUNEJAX_LIVE")
UNCOMPARED = {"image/png", "image/jpeg", "application/vnd.jupyter.widget-view+json"}
DIFF_LINES = 8


class Outcome(NamedTuple):
    """What became of one notebook. Cells are numbered from 1 over code cells, as Jupyter shows them."""

    name: str  # the file's name without its ending
    question: str  # its first heading
    verdict: str  # first line printed by the cell tagged `verdict`; empty when that cell was not reached
    agrees: bool  # every compared output equals the committed one; False after an error
    cell: int | None  # the first cell that raised or differs
    difference: str  # of that cell, as lines "- committed" and "+ now"
    error: str  # "ValueError: its message", or empty
    rewritten: bool  # the committed notebook was replaced by this run
    seconds: float  # wall time, starting the kernel included


def reproduce(
    notebooks: Path, build: Path, only: str | None, live: bool, write: bool, report: Callable[[Outcome], None]
) -> list[Outcome]:
    """One Outcome for each notebooks/NN_*.ipynb in order, also given to `report` as each ends.

    They run in this interpreter, in their own folder as under Jupyter and nbval, into `build`/notebooks. A cell reads
    two variables: PRUNEJAX_FIGURES, the folder for its figures (`build`/figures, or figures/ beside `notebooks` if
    `write`), and PRUNEJAX_LIVE, set to 1 if `live`. `only` is a number ("03", "3") or a name. `write` replaces each
    committed notebook that ran without error; its figures are replaced as they are drawn. A notebook that raises does
    not stop the others. Images are never compared, so `agrees` says nothing of what a figure shows.

    InputError, before anything runs: no such notebook, one that is no notebook, packages that are not installed.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise InputError(f"reproduce needs {', '.join(missing)}: install prunejax[notebooks]")
    root = notebooks.resolve().parent
    figures = root / "figures" if write else build.resolve() / "figures"
    environment = {name: value for name, value in os.environ.items() if name not in UNWANTED} | FIXED
    environment |= {"PRUNEJAX_FIGURES": str(figures)} | ({"PRUNEJAX_LIVE": "1"} if live else {})
    committed = [(path, _read(path)) for path in _chosen(notebooks, only)]
    outcomes = []
    for path, notebook in committed:
        outcome = _run(path, notebook, build / "notebooks" / path.name, environment, write)
        outcomes.append(outcome)
        report(outcome)
    return outcomes


def ok(outcomes: Iterable[Outcome]) -> bool:
    """Whether every notebook ran without error and the committed one now says the same."""
    return all(not outcome.error and (outcome.agrees or outcome.rewritten) for outcome in outcomes)


def agreement(outcome: Outcome) -> str:
    """A few words on whether the notebook agrees with the committed one, and where it stopped or differs first."""
    place = f"cell {outcome.cell}" if outcome.cell else "the kernel"
    if outcome.error:
        return f"no: {place} raised {outcome.error.splitlines()[0]}"
    if outcome.agrees:
        return "yes"
    return f"rewritten: {place} differed" if outcome.rewritten else f"no: {place} differs"


def summary(outcomes: Iterable[Outcome]) -> Table:
    """The closing table: notebook, question, verdict, agrees with the committed, seconds."""
    table = Table("notebook", "question", "verdict", "agrees with the committed")
    table.add_column("seconds", justify="right")
    for outcome in outcomes:
        told = (outcome.name, outcome.question, outcome.verdict or "none", agreement(outcome), f"{outcome.seconds:.1f}")
        table.add_row(*(Text(words) for words in told))  # Text, since brackets in a verdict are no markup
    return table


def _chosen(notebooks: Path, only: str | None) -> list[Path]:
    paths = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise InputError(f"notebooks {notebooks}: holds no NN_*.ipynb, name the folder that does")
    if only is None:
        return paths
    number = int(only) if only.isdecimal() else None
    chosen = [path for path in paths if int(path.name[:2]) == number or path.stem == Path(only).stem]
    if not chosen:
        raise InputError(f"no notebook {only!r} in {notebooks}: choose among {', '.join(path.stem for path in paths)}")
    return chosen


def _read(path: Path) -> "NotebookNode":
    import nbformat

    text = read_text(path, "notebook")
    try:
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except (AttributeError, TypeError, ValueError, nbformat.ValidationError) as error:
        reason = str(error).splitlines()[0][:80]
        raise InputError(f"notebook {path}: no notebook of format 4 ({reason}), restore it") from None
    return notebook


def _run(path: Path, committed: "NotebookNode", target: Path, environment: Mapping[str, str], write: bool) -> Outcome:
    import nbformat

    executed = _unrun(committed)
    target.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    cell, error = _execute(executed, path.parent.resolve(), environment, target.with_suffix(".log"))
    seconds = time.monotonic() - started
    _normalise(executed)
    text = nbformat.writes(executed).rstrip("\n") + "\n"
    write_atomic(target, text)
    differing, difference = (None, "") if error else _first_difference(committed, executed)
    rewritten = write and not error
    if rewritten:
        write_atomic(path, text)
    agrees = not error and differing is None
    place = cell if error else differing
    question = heading(committed.cells) or path.stem
    return Outcome(path.stem, question, _verdict(executed), agrees, place, difference, error, rewritten, seconds)


def _unrun(notebook: "NotebookNode") -> "NotebookNode":
    """A copy without outputs: those of the committed one must not stand in cells that are never reached."""
    copied = copy.deepcopy(notebook)
    for cell in _code_cells(copied):
        cell.outputs, cell.execution_count = [], None
    return copied


def _execute(
    notebook: "NotebookNode", folder: Path, environment: Mapping[str, str], log: Path
) -> tuple[int | None, str]:
    """Fill `notebook` with outputs, in place; returns the number of the cell that raised and what, or None and "".

    `log` takes what the kernel's process says outside of cells, such as why it died.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    # With no folder of installed kernels to look in, "python3" is ipykernel's own: this interpreter, whatever the
    # notebook names and the machine has installed.
    kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    # Streams are joined because how a cell's output falls into pieces is a matter of timing.
    recorded = {"coalesce_streams": True, "record_timing": False, "store_widget_state": False}
    client = NotebookClient(notebook, km=kernel, on_notebook_start=_let_interrupts_through, **recorded)
    try:
        with log.open("wb") as said:
            client.execute(cwd=str(folder), env=dict(environment), cleanup_kc=True, stdout=said, stderr=said)
    except CellExecutionError as error:
        return client.code_cells_executed, f"{error.ename}: {error.evalue}"
    except RuntimeError as error:  # the kernel died or did not start
        return client.code_cells_executed or None, f"{type(error).__name__}: {error} (see {log})"
    return None, ""


def _let_interrupts_through(notebook: "NotebookNode") -> None:
    """Undo nbclient's signal handlers: they turn Ctrl-C into a kernel that died, and the next notebook would start."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().remove_signal_handler(number)


def _normalise(notebook: "NotebookNode") -> None:
    """Leave out, in place, what changes from machine to machine without a cell having changed."""
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)


def _first_difference(committed: "NotebookNode", executed: "NotebookNode") -> tuple[int | None, str]:
    for number, (before, now) in enumerate(zip(_code_cells(committed), _code_cells(executed), strict=True), start=1):
        difference = _difference(_compared(before), _compared(now))
        if difference:
            return number, difference
    return None, ""


def _compared(cell: "NotebookNode") -> dict[str, list[str]]:
    """What is held against the committed outputs: for each stream and each kind of result, its texts in order."""
    found: dict[str, list[str]] = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            found[output.name] = ["".join([*found.get(output.name, ()), output.text])]
        elif output.output_type == "error":
            found.setdefault("error", []).append(f"{output.ename}: {output.evalue}")
        else:
            for kind in output.data.keys() - UNCOMPARED:
                found.setdefault(kind, []).append(str(output.data[kind]))
    return {kind: ["\n".join(map(str.rstrip, text.rstrip().splitlines())) for text in found[kind]] for kind in found}


def _difference(before: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> str:
    """The lines that differ in the first kind of output that does, for people to read; empty when all are equal."""
    for kind in sorted(before.keys() | now.keys(), key=lambda kind: (kind == "text/html", kind)):  # html reads worst
        if before.get(kind) != now.get(kind):
            old, new = ("\n[next output]\n".join(found.get(kind, ())).splitlines() for found in (before, now))
            lines = list(difflib.unified_diff(old, new, lineterm="", n=0))[2:]
            changed = [f"{line[0]} {line[1:]}" for line in lines if line[0] in "+-"]
            more = [f"... {len(changed) - DIFF_LINES} more"] if len(changed) > DIFF_LINES else []
            return "\n".join([f"{kind}:", *changed[:DIFF_LINES], *more])
    return ""


def _verdict(notebook: "NotebookNode") -> str:
    told = (_compared(cell) for cell in _code_cells(notebook) if "verdict" in cell.metadata.get("tags", ()))
    texts = (text for found in told for text in [*found.get("stdout", ()), *found.get("text/plain", ())] if text)
    return next(texts, "").lstrip().partition("\n")[0]


def _code_cells(notebook: "NotebookNode") -> list["NotebookNode"]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
