"""One process at a time writes into a folder; a second is told who does."""

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
    try:
        with telling(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, timeout=0).acquire()
    except Timeout:
        raise InputError(f"{what} {folder}: {_holder(path)} writes into it; wait for it, or choose another") from None
    with lock:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with telling(path):
                path.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since}))
            yield
        finally:
            with suppress(OSError):  # of a disk that refuses: what the block raised says more
                path.write_text("")
                if new and list(folder.iterdir()) == [path]:
                    path.unlink()
                    folder.rmdir()


def _holder(path: Path) -> str:
    """Who says in the lock that it holds it."""
    try:
        said = json.loads(path.read_text())
        return f"process {said['process']} on {said['host']} (since {said['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
