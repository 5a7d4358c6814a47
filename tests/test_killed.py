"""Killed at random moments, in the middle of a write among them, and taken up each time, a run ends as if never killed.

`make torture` kills more often than `make test`: PRUNEJAX_KILLS says how often.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from disturbed import kept, lay_out, program, words
from tiny_runs import REQUESTS

KILLS = int(os.environ.get("PRUNEJAX_KILLS", "5"))
PROGRAM = "killed_program.py"

Words = list[object]
"""A verb and its options."""


def moments_words(model: Path, desk: Path, out: Path) -> Words:
    """Second moments of a text of several pools, whose last row is cut."""
    said = ["moments", "--model", model, "--layers", "0,1", "--text", desk / "text.txt"]
    return [*said, "--tokens", 250, "--max-length", 30, "--out", out / "moments.safetensors"]


def evaluate_words(model: Path, run: Path) -> Words:
    """An evaluation after every number of edits, also between two restraints of the run."""
    said = ["evaluate", run, "--model", model, "--tasks", "editing", "--restraint", "none,log:1.2"]
    return [*said, "--edits", ",".join(map(str, range(len(REQUESTS) + 1)))]


def whole_of(out: Path, verb: Words) -> int:
    """How many things the verb that is never killed asks and does."""
    ended = program(PROGRAM, "SIGKILL", 0, out, *verb)
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout.split()[-2])


def kill_and_take_up(verb: Callable[[Path], Words], begin: Callable[[Path], object], whole: Path, asked: int) -> None:
    """End the verb once by Ctrl-C and KILLS times by a kill, each at a random one of `asked` moments, and take it up
    until it ends, in as many folders as that takes, which `begin` makes: each ends as `whole`."""
    rng, killed, number = np.random.default_rng(0), 0, 0
    while killed < KILLS:
        out = whole.parent / f"{whole.name}-{number}"
        begin(out)
        if not number:
            ended = program(PROGRAM, "SIGINT", asked // 2, out, *verb(out))
            assert ended.returncode == 1, ended.stderr
            assert ended.stderr.strip() == "prunejax: interrupted; what was written is whole, the same command goes on"
            assert not list(out.rglob("*.prunejax-part"))
        number += 1
        while True:
            ended = program(PROGRAM, "SIGKILL", int(rng.integers(1, asked + 1)), out, *verb(out))
            if ended.returncode == 0:
                break
            assert ended.returncode == -signal.SIGKILL, ended.stderr
            killed += 1
        assert kept(out) == kept(whole)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the verbs read."""
    return lay_out(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def edited(tiny_folder: Path, desk: Path) -> tuple[Path, int]:
    """The run of an edit that was never killed, and how many things that asked."""
    return desk / "run", whole_of(desk / "run", words(tiny_folder, desk, desk / "run"))


def test_an_edit_killed_and_taken_up_is_never_killed(tiny_folder: Path, desk: Path, edited: tuple[Path, int]) -> None:
    whole, asked = edited
    assert asked > 40
    assert "rollback" in (whole / "events.jsonl").read_text()
    kill_and_take_up(lambda out: words(tiny_folder, desk, out), lambda out: None, whole, asked)


def test_moments_killed_and_taken_up_are_never_killed(tiny_folder: Path, desk: Path) -> None:
    whole = desk / "moments"
    whole.mkdir()
    asked = whole_of(whole, moments_words(tiny_folder, desk, whole))
    assert asked > 25
    assert [path.name for path in whole.iterdir()] == ["moments.safetensors"]
    kill_and_take_up(lambda out: moments_words(tiny_folder, desk, out), Path.mkdir, whole, asked)


def test_an_evaluation_killed_and_taken_up_is_never_killed(
    tiny_folder: Path, desk: Path, edited: tuple[Path, int]
) -> None:
    run, _ = edited
    whole = desk / "evaluated"
    shutil.copytree(run, whole)
    asked = whole_of(whole, evaluate_words(tiny_folder, whole))
    assert asked > 40
    assert [path.name for path in (whole / "records").iterdir()] == ["evaluation.csv"]
    kill_and_take_up(lambda out: evaluate_words(tiny_folder, out), lambda out: shutil.copytree(run, out), whole, asked)
