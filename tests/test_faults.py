"""A disk that refuses, at any moment of an edit, ends it in one line and leaves nothing half-written; with the fault
gone the same command ends as if nothing had been."""

import errno
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disturbed import kept, lay_out, program, words
from prunejax.disk import REFUSALS
from prunejax.files import PART
from prunejax.run import open_run
from tiny_runs import REQUESTS, contents

KINDS = {
    "write": (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT),
    "rename": (errno.ENOSPC, errno.EROFS, errno.EIO),
    "fsync": (errno.ENOSPC, errno.EROFS, errno.EIO),
    "mkdir": (errno.EACCES, errno.EMFILE),
}
FAULTS = 3
"""Of each kind and number, one after another in one run."""
NOBODY = 65534
NONE = ("", 0, 0)


def verbs(asked: Sequence[tuple[Any, ...]], *user: int) -> list[dict[str, Any]]:
    """How verbs ended: kind, K and number of the fault, folder, words of each; after the first as another user."""
    given = json.dumps([[kind, k, number, str(folder), said] for kind, k, number, folder, said in asked])
    ended = program("faulty_program.py", *user, input=given)
    assert (ended.returncode, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


def assert_told(said: str, folder: Path, number: int) -> None:
    """One line: what, where, what to do."""
    what, do = map(re.escape, REFUSALS[number])
    assert re.fullmatch(
        rf"prunejax: {re.escape(str(folder))}\S*: {what}; {do} \(what was written is whole, .*\)\n", said
    )
    assert PART not in said


@pytest.fixture(scope="module")
def desk(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def undisturbed(tiny_folder: Path, desk: Path) -> dict[str, int]:
    """The run that nothing disturbed is `whole`; how many things of each kind it asked of the disk."""
    (ended,) = verbs([(*NONE, desk / "whole", words(tiny_folder, desk, desk / "whole"))])
    assert ended["status"] == 0, ended["said"]
    assert open_run(desk / "whole").n_edits == len(REQUESTS)
    return ended["asked"]


def test_a_run_that_the_disk_refused_goes_on_where_it_was(
    tiny_folder: Path, desk: Path, undisturbed: dict[str, int]
) -> None:
    rng, asked = np.random.default_rng(0), []
    for kind, numbers in KINDS.items():
        for number in numbers:
            out = desk / f"{kind}-{number}"
            said = words(tiny_folder, desk, out)
            # The first fault is anywhere, the next ones early enough that what is left of the run meets them.
            ks = [int(rng.integers(1, undisturbed[kind])), *map(int, rng.integers(1, 5, FAULTS - 1))]
            asked += [(kind, k, number, out, said) for k in ks] + [(*NONE, out, said)]
    ended = verbs(asked)
    failed = 0
    for (kind, k, number, out, _), found in zip(asked, ended, strict=True):
        if found["asked"].get(kind, 0) < k or not kind:  # the run ended before its fault
            assert (found["status"], found["said"]) == (0, "")
        else:
            failed += 1
            assert found["status"] == 1
            assert_told(found["said"], out, number)
    assert failed >= 2 * sum(map(len, KINDS.values()))
    for out in {out for _, _, _, out, _ in asked}:
        assert kept(out) == kept(desk / "whole")


def test_what_a_refused_write_leaves_behind_is_whole(
    tiny_folder: Path, desk: Path, undisturbed: dict[str, int], tmp_path: Path
) -> None:
    """Every file there is one that the undisturbed run wrote at some time; no part of any is left."""
    outs = {k: tmp_path / f"run-{k}" for k in range(1, undisturbed["write"], 6)}  # the last empties the lock
    ended = verbs([("write", k, errno.ENOSPC, out, words(tiny_folder, desk, out)) for k, out in outs.items()])
    assert {found["status"] for found in ended} == {1}
    whole = kept(desk / "whole")
    for out in outs.values():
        for name, content in kept(out).items() if out.exists() else ():
            assert PART not in name
            if content is not None and name in whole:  # events and diagnostics only grow
                assert whole[name].startswith(content)
        if (timing := out / "timing.csv").exists():
            assert timing.read_text().endswith("\n")


def test_a_file_that_cannot_be_removed_is_removed_by_the_next(
    tiny_folder: Path, desk: Path, undisturbed: dict[str, int]
) -> None:
    """The part of a write that fails too, or a state that is no longer needed."""
    out = desk / "unlink"
    said = words(tiny_folder, desk, out)
    asked = [("unlink", k, errno.EIO, out, said) for k in (undisturbed["unlink"] - 1, 9, 5, 2)]
    ended = verbs([*asked, (*NONE, out, said)])
    for found in ended:
        if found["said"]:
            assert_told(found["said"], out, errno.EIO)
    assert kept(out) == kept(desk / "whole")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 40 kB; whoever remounts it may make it larger."""
    folder = Path(tempfile.mkdtemp(prefix="small-disk-"))
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=52k", "tmpfs", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        folder.rmdir()
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


def test_a_full_disk_that_gets_room(
    tiny_folder: Path, desk: Path, undisturbed: dict[str, int], small_disk: Path
) -> None:
    out = small_disk / "run"
    job = (*NONE, out, words(tiny_folder, desk, out))
    for found in verbs([job, job]):  # a second attempt, with no more room, loses nothing either
        assert found["status"] == 1
        assert_told(found["said"], out, errno.ENOSPC)
    assert not [path for path in out.rglob("*") if PART in path.name]
    assert 0 < open_run(out).n_edits < len(REQUESTS)
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    (found,) = verbs([job])
    assert (found["status"], found["said"]) == (0, "")
    assert kept(out) == kept(desk / "whole")


@pytest.fixture
def readable_by_all() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="shared-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_a_folder_that_this_user_may_not_write(
    tiny_folder: Path, desk: Path, undisturbed: dict[str, int], readable_by_all: Path
) -> None:
    """Neither a new run in it, nor one in its place, nor one that is taken up there; as root, who may write anywhere,
    it is asked as nobody."""
    base = readable_by_all
    model = shutil.copytree(tiny_folder, base / tiny_folder.name)  # a run knows its model by the name, too
    lay_out(base)
    (base / "closed").mkdir()
    half = shutil.copytree(desk / "whole", base / "half")
    lines = (half / "events.jsonl").read_text().splitlines(keepends=True)
    (half / "events.jsonl").write_text("".join(lines[:2]))  # two edits and a restraint of them
    for path in (model, half, *half.iterdir(), base / "closed"):
        path.chmod(0o555)
    before = contents(base)
    outs = (base / "closed" / "run", base / "closed", half)
    first = (*NONE, desk / "whole", words(tiny_folder, desk, desk / "whole"))
    asked = [(*NONE, out, words(model, base, out)) for out in outs]
    ended = verbs([first, *asked], *([NOBODY] if os.geteuid() == 0 else []))
    for path in (model, half, *half.iterdir(), base / "closed"):
        path.chmod(0o755)
    for found, out in zip(ended[1:], outs, strict=True):
        assert found["status"] == 1, found["said"]
        assert_told(found["said"], out, errno.EACCES)
    assert contents(base) == before
