"""An edit for other programs to disturb: its words, a program that runs it, and what of its folder is compared."""

import json
import os
import subprocess
import sys
from pathlib import Path

from prunejax.requests import write_requests
from tiny import TEMPLATES, TEXTS
from tiny_runs import REQUESTS, contents

TESTS = Path(__file__).parent
SETTINGS = {"layers": 1, "steps": 4, "lr": 0.5, "second_moment": "identity", "moment_weight": 0.1}


def lay_out(desk: Path) -> Path:
    """The folder with requests, contexts and a text in it."""
    write_requests(desk / "requests.jsonl", REQUESTS)
    (desk / "contexts.json").write_text(json.dumps([["{}"], TEMPLATES[1:]]))
    (desk / "text.txt").write_text("".join(f"{text}\n" for text in (*TEXTS, *TEXTS[::-1])))
    return desk


def words(model: Path, desk: Path, out: Path) -> list[str]:
    """An edit that remembers keys, restrains what accumulated every two edits, and whose guard takes some back."""
    said = ["edit", "--model", model, "--editor", "memit-seq", "--restrain", "log:1.2@2", "--out", out]
    said += ["--requests", desk / "requests.jsonl", "--contexts", desk / "contexts.json"]
    said += ["--guard", "rollback@2,perplexity=1e9,norm=0.45", "--guard-text", desk / "text.txt"]
    return [*map(str, said), *(word for pair in SETTINGS.items() for word in ("--set", "{}={}".format(*pair)))]


def program(name: str, *given: object, input: str = "") -> subprocess.CompletedProcess[str]:
    """A program of this folder, run to its end."""
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "TQDM_DISABLE": "1"}
    command = [sys.executable, TESTS / name, *map(str, given)]
    return subprocess.run(command, env=environment, input=input, capture_output=True, text=True, check=False)


def kept(folder: Path) -> dict[str, bytes | None]:
    """Everything but what is never compared, and locks: of what is whole, nobody takes one away that a kill left."""
    found = contents(folder).items()
    return {name: content for name, content in found if name != "timing.csv" and not name.endswith(".lock")}
