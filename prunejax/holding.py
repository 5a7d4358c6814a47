"""One process at a time writes into a folder, or one output; a second is told who does."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from prunejax.disk import telling
from prunejax.errors import InputError

LOCK = ".lock"
PROGRESS = ".progress"
"""How hidden neighbours of an output end (`beside`)."""


@contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder`, made if it is not there, while the block runs; `what` names its role in errors ("run").

    InputError says which process, on which machine, holds it since when; DiskError why it cannot be written. The
    system lets go of what a killed process held: nothing is to be removed by hand. A folder that was made for it and
    into which nothing was written is removed.
    Misleads: some network file systems know no locks between machines.
    """
    new = not folder.exists()
    path = folder / LOCK
    with telling(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(path, f"{what} {folder}"):
        try:
            _sign(path)
            yield
        finally:
            with suppress(OSError):  # of a disk that refuses: what the block raised says more
                path.write_text("")
                if new and list(folder.iterdir()) == [path]:
                    path.unlink()
                    folder.rmdir()


@contextmanager
def held_output(out: Path, what: str) -> Iterator[None]:
    """Hold what is written as `out`, a file or a folder, there or not yet, while the block runs: as `held`, but by a
    lock beside it, which is removed afterwards, as are folders made for it in which nothing was written."""
    path = beside(out, LOCK)
    made = [folder for folder in path.parents if not folder.exists()]
    with telling(out):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(path, f"{what} {out}"):
            try:
                _sign(path)
                yield
            finally:
                with suppress(OSError):
                    path.unlink()
    finally:
        with suppress(OSError):  # something is in it
            for folder in made:
                folder.rmdir()


def beside(out: Path, ending: str) -> Path:
    """The hidden neighbour of an output, a file or a folder: `.NAME` and the ending."""
    whole = out.resolve()  # "." has a name, too
    return whole.parent / f".{whole.name}{ending}"


@contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    """The lock at `path`, or who holds it."""
    try:
        with telling(path.parent):
            lock = FileLock(path, timeout=0).acquire()
    except Timeout:
        raise InputError(f"{what}: {_holder(path)} writes into it; wait for it, or choose another") from None
    with lock:
        yield


def _sign(path: Path) -> None:
    """Say in a lock who holds it."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    with telling(path):
        path.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since}))


def _holder(path: Path) -> str:
    """Who says in the lock that it holds it."""
    try:
        said = json.loads(path.read_text())
        return f"process {said['process']} on {said['host']} (since {said['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
