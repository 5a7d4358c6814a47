"""Killed at random moments, in the middle of a write among them, and taken up each time, a run ends as if never killed.

`make torture` kills more often than `make test`: PRUNEJAX_KILLS says how often.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from prunejax.requests import write_requests
from tiny import TEMPLATES
from tiny_runs import REQUESTS, contents

KILLS = int(os.environ.get("PRUNEJAX_KILLS", "5"))
TESTS = Path(__file__).parent
SETTINGS = {"layers": 1, "steps": 4, "lr": 0.5, "second_moment": "identity", "moment_weight": 0.1}


def words(model: Path, desk: Path, out: Path) -> list[object]:
    """An edit that remembers keys and restrains what accumulated every two edits."""
    said = ["edit", "--model", model, "--editor", "memit-seq", "--restrain", "log:1.2@2", "--out", out]
    said += ["--requests", desk / "requests.jsonl", "--contexts", desk / "contexts.json"]
    return said + [word for pair in SETTINGS.items() for word in ("--set", "{}={}".format(*pair))]


def program(kill: int, out: Path, verb: list[object]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    given = [sys.executable, TESTS / "killed_program.py", str(kill), out, *map(str, verb)]
    return subprocess.run(given, env=environment, capture_output=True, text=True, check=False)


def kept(folder: Path) -> dict[str, bytes | None]:
    """Everything but what is never compared."""
    return {name: content for name, content in contents(folder).items() if name != "timing.csv"}


def test_an_edit_killed_and_taken_up_is_never_killed(tiny_folder: Path, tmp_path: Path) -> None:
    write_requests(tmp_path / "requests.jsonl", REQUESTS)
    (tmp_path / "contexts.json").write_text(json.dumps([["{}"], TEMPLATES[1:]]))
    whole = tmp_path / "whole"
    ended = program(0, whole, words(tiny_folder, tmp_path, whole))
    assert ended.returncode == 0, ended.stderr
    asked = int(ended.stdout.split()[-2])
    assert asked > 40
    rng, killed, number = np.random.default_rng(0), 0, 0
    while killed < KILLS:
        out = tmp_path / f"run-{number}"
        number += 1
        while True:
            ended = program(int(rng.integers(1, asked)), out, words(tiny_folder, tmp_path, out))
            if ended.returncode == 0:
                break
            assert ended.returncode == -signal.SIGKILL, ended.stderr
            killed += 1
        assert kept(out) == kept(whole)
