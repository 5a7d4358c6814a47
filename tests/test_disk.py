"""What the disk refuses is told in one line, and asked before the work."""

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pooch
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from prunejax import cli, points
from prunejax.datasets import DATASETS, download
from prunejax.disk import REFUSALS, check_file, check_folder, refusal, telling
from prunejax.errors import DiskError, InputError
from prunejax.export import check_out
from prunejax.files import write_atomic, write_through
from prunejax.holding import held
from prunejax.models.checkpoints import Model
from prunejax.points import evaluate_run, spectra_of_run
from tiny_runs import contents, edit_tiny

FULL = "no space left on the device; make room (what was written is whole, the same command goes on)"


def refuse(number: int = errno.ENOSPC, *named: str) -> None:
    raise OSError(number, os.strerror(number), *named)


@pytest.mark.parametrize("number", REFUSALS)
def test_what_where_and_what_to_do(number: int) -> None:
    what, do = REFUSALS[number]
    with pytest.raises(DiskError) as told, telling("place"):
        refuse(number, "elsewhere")
    line = str(told.value)
    assert line == f"place: {what}; {do} (what was written is whole, the same command goes on)"
    assert refusal(OSError(number, "", "named")) == line.replace("place", "named", 1)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(FileNotFoundError), telling("place"):
        refuse(errno.ENOENT)
    with pytest.raises(DiskError, match=r"^inner: no space"), telling("outer"), telling("inner"):
        refuse()
    with pytest.raises(SafetensorError), telling("place"):
        raise SafetensorError("InvalidHeader")
    assert refusal(ConnectionError()) is None


def test_a_library_that_hands_on_words_alone_is_understood(tmp_path: Path) -> None:
    """If it says it otherwise one day, this fails."""
    (tmp_path / "file").touch()
    with pytest.raises(DiskError) as told, telling("place"):
        save_file({"x": np.zeros(3)}, tmp_path / "file" / "x")
    assert isinstance(told.value.__cause__, SafetensorError)
    assert str(told.value).startswith("place: a file is where a folder is needed")


@pytest.mark.parametrize("call", [None, (Path, "replace"), (os, "fsync"), (Path, "unlink")])
def test_what_was_there_before_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: tuple[object, str] | None
) -> None:
    path = write_atomic(tmp_path / "file", "before")
    if call is not None:
        number = errno.EIO if call == (Path, "unlink") else errno.ENOSPC  # the first thing to fail is told
        monkeypatch.setattr(*call, lambda *words, **more: refuse(number))
    with pytest.raises(DiskError, match=r"/file: no space left"):
        write_through(path, lambda part: (part.write_text("half"), call in (None, (Path, "unlink")) and refuse()))
    monkeypatch.undo()
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == (2 if call == (Path, "unlink") else 1)


def test_a_place_is_asked_for_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    before = contents(tmp_path)
    for path in (tmp_path, tmp_path / "new" / "newer"):
        check_folder(path, "run")
    for path in (tmp_path / "file", tmp_path / "new" / "newer"):
        check_file(path, "moments")
    with pytest.raises(InputError, match=r"run .*file: is a file, a folder was expected"):
        check_folder(tmp_path / "file", "run")
    with pytest.raises(InputError, match=r"moments .*: is a folder, a file was expected"):
        check_file(tmp_path, "moments")
    for check in (check_file, check_folder):
        with pytest.raises(DiskError, match=r"file/new/newer: a file is where a folder is needed"):
            check(tmp_path / "file" / "new" / "newer", "run")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **more: refuse(errno.EROFS, more["dir"]))
    monkeypatch.chdir(tmp_path)
    for check in (check_file, check_folder):
        with pytest.raises(DiskError, match=r"^new/newer: the file system is read-only"):
            check(Path("new/newer"), "run")
    assert contents(tmp_path) == before


VERBS = {
    "edit": "--editor rome --model nowhere --requests nowhere",
    "single": "--editor rome --model nowhere --requests nowhere",
    "pretrain": "",
    "moments": "--model nowhere --layers 0 --text nowhere",
    "tune": "--model nowhere",
    "train-mend": "--model nowhere",
    "records": "",
    "enough": "--model nowhere --text nowhere --requests nowhere --layer 0",
}
"""Verbs that work long, with words that would be found wrong as soon as the work began."""


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_takes_no_file_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **more: refuse())
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, *VERBS[verb].split(), "--out", str(tmp_path / "out")])
    assert (ended.value.code, capsys.readouterr().err) == (1, f"prunejax: {tmp_path}/out: {FULL}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_takes_no_record_is_told_before_it_is_measured(
    tmp_path: Path, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on record already is read without a question."""
    run = edit_tiny(tmp_path / "run", tiny_model)
    known = [spectra_of_run(run, tiny_model, [0], ["none"]) for _ in range(2)][1]
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **more: refuse(errno.EROFS))
    monkeypatch.setattr(points, "sweeps_along", lambda *words: 1 / 0)
    assert spectra_of_run(run, tiny_model, [0], ["none"]).equals(known)
    with pytest.raises(DiskError, match=r"run/records/spectra\.csv: the file system is read-only"):
        spectra_of_run(run, tiny_model, [1], ["none"])
    with pytest.raises(DiskError, match=r"run/records/evaluation\.csv: the file system is read-only"):
        evaluate_run(run, tiny_model, [1], ["none"], ["editing"])
    with pytest.raises(DiskError, match=f"^{tmp_path}: the file system is read-only"):
        check_out(tmp_path / "exported", tmp_path / "base")


def test_a_lock_that_cannot_be_written_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda path, text: write(path, text) if not text else refuse())
    with pytest.raises(DiskError, match=r"run/\.lock: no space left"), held(tmp_path / "run", "run"):
        raise AssertionError
    monkeypatch.setattr(Path, "mkdir", lambda *words, **more: refuse(errno.EACCES))
    with pytest.raises(DiskError, match=r"run: permission denied"), held(tmp_path / "run", "run"):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_a_download_on_a_full_disk_does_not_blame_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **more: lambda *words: refuse())
    with pytest.raises(DiskError, match=r"no space left"):
        download(next(iter(DATASETS.values())), tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_standard_output_that_is_full_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.click, "echo", lambda line, **more: more.get("err") or refuse())
    with pytest.raises(DiskError, match=r"^standard output: no space left"):
        cli.say("words")
