"""One process at a time writes into a folder; the second is told who does, and nobody has to clean up after a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prunejax.errors import InputError
from prunejax.files import PART, remove_parts, remove_parts_of, write_through
from prunejax.holding import PROGRESS, beside, held, held_output

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


def test_an_output_is_held_by_a_lock_beside_it_that_does_not_stay(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "moments.safetensors"
    said = rf"moments .*safetensors: process {os.getpid()} on \S+ \(since 20\S+\) writes into it"
    with held_output(out, "moments"):
        assert [path.name for path in out.parent.iterdir()] == [".moments.safetensors.lock"]
        for _ in range(2):
            with pytest.raises(InputError, match=said), held_output(out, "moments"):
                pass
        with held_output(out.with_suffix(".csv"), "moments"), held(out.parent, "run"):
            out.touch()  # others are not kept out
    assert sorted(path.name for path in out.parent.iterdir()) == [".lock", "moments.safetensors"]
    with pytest.raises(ZeroDivisionError), held_output(tmp_path / "a" / "b" / "out", "model"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["new"], "folders made for nothing are gone"


def test_what_lies_beside_an_output_is_named_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "world").mkdir()
    monkeypatch.chdir(tmp_path / "world")
    assert beside(Path(), PROGRESS) == beside(tmp_path / "world", PROGRESS) == tmp_path / ".world.progress"


def test_parts_of_what_has_a_lock_of_its_own_are_left_to_whoever_holds_it(tmp_path: Path) -> None:
    run, records = tmp_path / "run", tmp_path / "run" / "records"
    records.mkdir(parents=True)
    parts = [records / f".{name}.csv.ab12_xyz{PART}" for name in ("evaluation", "spectra")]
    for path in (*parts, run / f".run.json.ab12_xyz{PART}"):
        path.touch()
    with held(run, "run"):
        remove_parts(tmp_path)
    assert (run / f".run.json.ab12_xyz{PART}").exists()
    with held_output(records / "evaluation.csv", "records"):
        remove_parts(run)
        assert list(run.rglob(f"*{PART}")) == parts[:1]
        remove_parts_of(records / "evaluation.csv")
    assert not list(run.rglob(f"*{PART}"))


def test_parts_of_one_file_are_told_from_those_of_a_longer_name(tmp_path: Path) -> None:
    seen: list[str] = []
    for name in ("mend", "mend.csv", "[m]end"):
        write_through(tmp_path / name, lambda part: (part.write_text(""), seen.append(part.name)))
    for name in seen:
        (tmp_path / name).touch()
    remove_parts_of(tmp_path / "mend")
    assert sorted(path.name for path in tmp_path.glob(f".*{PART}")) == sorted(seen[1:])
    remove_parts_of(tmp_path / "[m]end")
    assert [path.name for path in tmp_path.glob(f".*{PART}")] == seen[1:2]


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
