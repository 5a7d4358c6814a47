"""One process at a time writes into a folder; the second is told who does, and nobody has to clean up after a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prunejax.errors import InputError
from prunejax.files import PART, remove_parts, write_through
from prunejax.holding import held

HOLDING = """
import sys, time
from pathlib import Path
from prunejax.holding import held
with held(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_holds_the_folder_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", HOLDING, folder], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    said = rf"run .*run: process {other.pid} on \S+ \(since 20\S+\) writes into it; wait for it, or choose another"
    for _ in range(2):  # asking does not wipe out who holds it
        with pytest.raises(InputError, match=said), held(folder, "run"):
            pass
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    other.stdout.close()
    with held(folder, "run"):
        (folder / "written").touch()
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "written"]
    assert (folder / ".lock").read_text() == ""


def test_a_folder_into_which_nothing_was_written_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(tmp_path / "run", "run"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_parts_of_writes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "updates").mkdir()
    kept = [
        tmp_path / ".lock",
        tmp_path / ".gitignore",
        tmp_path / "updates" / "a.safetensors",
        tmp_path / ".foo.settings",
    ]
    for path in (
        *kept,
        tmp_path / f".run.json.ab12_xyz{PART}",
        tmp_path / "updates" / f".a.safetensors.abcdefgh{PART}",
    ):
        path.touch()
    remove_parts(tmp_path)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


def test_parts_are_called_what_is_removed(tmp_path: Path) -> None:
    seen: list[str] = []
    write_through(tmp_path / "run.json", lambda part: (part.write_text("{}"), seen.append(part.name)))
    (tmp_path / seen[0]).touch()
    remove_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
