"""Killed at random moments, in the middle of a write among them, and taken up each time, a run ends as if never killed.

`make torture` kills more often than `make test`: PRUNEJAX_KILLS says how often.
"""

import os
import signal
from pathlib import Path

import numpy as np

from disturbed import kept, lay_out, program, words

KILLS = int(os.environ.get("PRUNEJAX_KILLS", "5"))


def test_an_edit_killed_and_taken_up_is_never_killed(tiny_folder: Path, tmp_path: Path) -> None:
    desk, whole = lay_out(tmp_path), tmp_path / "whole"
    ended = program("killed_program.py", 0, whole, *words(tiny_folder, desk, whole))
    assert ended.returncode == 0, ended.stderr
    asked = int(ended.stdout.split()[-2])
    assert asked > 40
    rng, killed, number = np.random.default_rng(0), 0, 0
    while killed < KILLS:
        out = tmp_path / f"run-{number}"
        number += 1
        while True:
            kill = int(rng.integers(1, asked))
            ended = program("killed_program.py", kill, out, *words(tiny_folder, desk, out))
            if ended.returncode == 0:
                break
            assert ended.returncode == -signal.SIGKILL, ended.stderr
            killed += 1
        assert kept(out) == kept(whole)
