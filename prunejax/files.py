"""Files that appear whole or not at all, and the checksums that name them."""

import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prunejax.disk import telling
from prunejax.errors import InputError
from prunejax.holding import LOCK, beside

PART = ".prunejax-part"
"""How `write_through` ends the hidden name of a file that is not whole yet: nobody else's file is called so."""


def write_atomic(path: str | Path, content: bytes | str) -> Path:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part; returns the path."""
    data = content.encode() if isinstance(content, str) else content
    return write_through(path, lambda part: part.write_bytes(data))


def write_through(path: str | Path, write: Callable[[Path], Any]) -> Path:
    """Let `write` fill a temporary neighbour of `path`, then rename it into place; returns the path. DiskError where
    the disk refuses: then `path` is as it was, or whole."""
    path = Path(path)
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        os.close(descriptor)
        part = Path(name)
        try:
            write(part)
            with part.open("rb") as handle:
                os.fsync(handle.fileno())
            part.chmod(0o644)
            part.replace(path)
            _sync_names(path.parent)
        finally:
            with suppress(OSError):  # where not even that can be done, `remove_parts` does it later
                part.unlink(missing_ok=True)
    return path


def _sync_names(folder: Path) -> None:
    """Let the names in a folder outlast a loss of power, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_parts(folder: Path) -> None:
    """Remove what writes left, in a folder and in those right below it, that a killed process had begun. Whoever calls
    must know that nobody is writing there, but what has a lock of its own, a folder below or a file: that is left to
    whoever holds it."""
    for path in (*folder.glob(f".*{PART}"), *folder.glob(f"*/.*{PART}")):
        name = path.name[1 : -len(PART)].rpartition(".")[0]
        below = path.parent != folder and (path.parent / LOCK).exists()
        if not below and not beside(path.with_name(name), LOCK).exists():
            path.unlink()


def remove_parts_of(path: Path) -> None:
    """Remove what writes of one file left that a killed process had begun. Whoever calls must know that nobody is
    writing it."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.{'[a-z0-9_]' * 8}{PART}"):
        part.unlink()


def write_json(path: str | Path, value: Any) -> Path:
    """Write `value` as indented JSON with sorted keys, atomically; returns the path."""
    return write_atomic(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str | Path, what: str) -> Any:
    """The JSON value in `path`; `what` names the file's role in the error ("contexts", "requests")."""
    text = read_text(path, what)
    try:
        return json.loads(text)
    except (RecursionError, ValueError) as error:
        line = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{what} {path}: not valid JSON ({line}{json_fault(error)})") from None


def json_fault(error: RecursionError | ValueError) -> str:
    """What json.loads has against a text, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"


def read_text(path: str | Path, what: str) -> str:
    """The UTF-8 text of `path`, or an InputError that names the file's role."""
    with readable(path, what):
        return Path(path).read_text(encoding="utf-8")


def read_lines(path: str | Path, what: str) -> Iterator[str]:
    """The lines of UTF-8 text in `path` without line ends, one at a time as they are asked for; an InputError when one
    is met that is none. A line ends with a newline, not with U+2028 and its like."""
    with readable(path, what), Path(path).open("rb") as handle:
        for number, line in enumerate(handle, 1):
            try:
                text = line.decode()
            except UnicodeDecodeError:
                raise InputError(f"{what} {path}: line {number} is not UTF-8 text") from None
            yield text.rstrip("\r\n")


@contextmanager
def readable(path: str | Path, what: str) -> Iterator[None]:
    """What can go wrong in reading a file of text, as an InputError that names the file's role. A device is refused: it
    may never end."""
    try:
        if Path(path).is_char_device() or Path(path).is_block_device():
            raise InputError(f"{what} {path}: is a device, a file was expected")
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{what} {path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{what} {path}: is a folder, a file was expected") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be read ({error.strerror})") from None


def is_there(path: str | Path) -> bool:
    """Whether there is a file or folder of that name; a name that no file can have is not there."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_file(path: str | Path) -> bool:
    """Whether there is a file of that name."""
    return is_there(path) and Path(path).is_file()


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hex digits."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
