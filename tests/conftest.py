"""What all tests share: the folder of reference numbers, PyTorch where installed, the account of parity tests."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import hypothesis
import matplotlib as mpl
import pytest

if TYPE_CHECKING:
    from desk import Call, Desk
    from prunejax.models.checkpoints import Model

mpl.use("Agg")  # not through the environment, which the notebooks' kernels inherit: they would store no figure
# The same examples in every run, and no limit on the one that waits for a compilation.
hypothesis.settings.register_profile("prunejax", derandomize=True, deadline=None)
hypothesis.settings.load_profile("prunejax")

SHARED = "PRUNEJAX_SHARED"


def pytest_configure() -> None:
    named = os.environ.get(SHARED)
    if named and not Path(named).is_dir():
        raise pytest.UsageError(f"{SHARED} names no folder: {named}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"shared", "torch"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("parity")


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Nothing compiled for one file is kept for the next: a process may map 65,530 pieces of memory, a program takes
    some ten, and the suite compiles thousands."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers, absolute; a test that asks for it is a parity test."""
    named = os.environ.get(SHARED)
    if not named:
        pytest.skip(f"{SHARED} is not set")
    return Path(named).resolve()


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch itself; a test that asks for it is a parity test."""
    return pytest.importorskip("torch", reason="PyTorch is not installed (make parity installs it)")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a random tiny GPT-2 with its tokenizer (tests/tiny.py); read it, never write into it."""
    from tiny import save_tiny  # jax takes a second to import, which other tests need not wait for

    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> "Model":
    """The model in `tiny_folder`: 3 layers, 2 heads, d_model 16, d_ff 64, 64 positions."""
    from prunejax.models.checkpoints import load_model

    return load_model(tiny_folder)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> "Call":
    """Run a verb in this process."""
    from desk import Ended
    from prunejax.cli import main

    def run(*words: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def finished(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> "Desk":
    """A desk whose run is made by the verb itself, once."""
    from desk import prepare_desk
    from prunejax.cli import main

    desk = prepare_desk(tmp_path_factory.mktemp("finished") / "desk", tiny_folder)
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in desk.edit()])
    assert ended.value.code == 0
    return desk


@pytest.fixture
def desk(finished: "Desk", tmp_path: Path) -> "Desk":
    """A copy of that desk to work on."""
    return finished._replace(root=Path(shutil.copytree(finished.root, tmp_path / "desk")))


def parity_summary(reports: Iterable[pytest.TestReport]) -> list[str]:
    """Lines that say how many parity tests ran and how many were skipped, a line for each reason."""
    parity = [report for report in reports if "parity" in getattr(report, "keywords", ())]
    ran = {report.nodeid for report in parity if report.outcome != "skipped"}
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in parity if report.skipped)
    lines = [f"parity tests: {len(ran)} ran, {reasons.total()} skipped"]
    return lines + [f"  {count} skipped: {reason}" for reason, count in reasons.most_common()]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    yield  # the outermost wrapper writes last, after pytest's own lists
    outcomes = ("passed", "failed", "error", "skipped")
    reports = [report for outcome in outcomes for report in terminalreporter.stats.get(outcome, ())]
    for line in parity_summary(reports):
        terminalreporter.write_line(line)
