"""What the disk refuses, in one line: what, where, what to do; and whether it would take a file, asked before the
work."""

import errno
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from prunejax.errors import DiskError, InputError

REFUSALS = {
    errno.ENOSPC: ("no space left on the device", "make room"),
    errno.EDQUOT: ("the quota is used up", "make room"),
    errno.EROFS: ("the file system is read-only", "make it writable, or choose another place"),
    errno.EACCES: ("permission denied", "let this user write there, or choose another place"),
    errno.EPERM: ("not permitted", "let this user write there, or choose another place"),
    errno.EIO: ("input/output error of the device", "see what the system's log says of the disk"),
    errno.ENOTDIR: ("a file is where a folder is needed", "choose another place"),
    errno.EEXIST: ("a file is where a folder is needed", "choose another place"),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many open files on this machine", "close some"),
}
"""What the system's numbers mean, and what to do."""


@contextmanager
def telling(place: Path | str) -> Iterator[None]:
    """What the disk refuses while the block writes to `place`, as a DiskError; other errors pass as they are."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if (line := refusal(error, place)) is None:
            raise
        raise DiskError(line) from error


def refusal(error: Exception, place: Path | str | None = None) -> str | None:
    """The line for an error of the disk; None for another one, or one that is told already. Where no place is given,
    it is the file that the error names."""
    number, named = getattr(error, "errno", None), getattr(error, "filename", None)
    if isinstance(error, SafetensorError) and (found := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(found[1])  # the library hands on no more than the system's words
    if number not in REFUSALS:
        return None
    what, do = REFUSALS[number]
    where = f"{place or named}: " if place or named else ""
    return f"{where}{what}; {do} (what was written is whole, the same command goes on)"


def check_folder(folder: Path, what: str) -> None:
    """Before long work: InputError where `folder` is a file, DiskError where none could be written into it. `what`
    names its role ("run"). Nothing is made. Misleads: what fits now may not fit later."""
    if folder.is_file():
        raise InputError(f"{what} {folder}: is a file, a folder was expected; choose another --out")
    _try(folder, folder)


def check_file(path: Path, what: str) -> None:
    """Before long work: InputError where `path` is a folder, DiskError where it could not be written. Nothing is
    made."""
    if path.is_dir():
        raise InputError(f"{what} {path}: is a folder, a file was expected; choose another --out")
    _try(path.parent, path)


def _try(folder: Path, place: Path) -> None:
    """Write a byte, without a name where the system can, into the nearest folder above that is there."""
    with telling(place):
        above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=above) as handle:
            handle.write(b"\0")
