"""Verbs of which the K-th thing of one kind that they ask of the disk fails, as a full or broken disk lets it fail.

python tests/faulty_program.py [UID]: a JSON list of [kind, K, errno, folder, words] comes from standard input, K 0
being no fault. It runs one after another, and prints for each its exit status, what it said on standard error, and how
many things of each kind it asked; what lies outside the folder is not counted. After the first, by which all that is
needed is loaded, it goes on as the user UID.
"""

import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from prunejax import stored
from prunejax.cli import main

kind, k, number, folder = "", 0, 0, Path()
asked: Counter[str] = Counter()


def failing(function: Callable, name: str, where: int, half: Callable[..., Any] = lambda *words: None) -> Callable:
    """The function, but the K-th call of this kind does no more than `half`, and then fails; the path of the folder is
    its argument number `where`."""

    def counted(*words: Any, **more: Any) -> Any:
        if isinstance(words[where], int) or Path(words[where]).absolute().is_relative_to(folder):
            asked[name] += 1
            if (name, asked[name]) == (kind, k):
                half(*words)
                named = [] if name in ("write", "fsync") else [str(words[0])]  # these know no more than a descriptor
                raise OSError(number, os.strerror(number), *named)
        return function(*words, **more)

    return counted


def half_of_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(data[: len(data) // 2])


def half_of_text(path: Path, text: str, **more: Any) -> None:
    half_of_bytes(path, text.encode())


def half_of_arrays(arrays: dict, path: Path) -> None:
    """As the library does it, which hands on the system's words alone."""
    save_file(arrays, path)
    os.truncate(path, path.stat().st_size // 2)
    raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")


save_file = stored.save_file
stored.save_file = failing(save_file, "write", 1, half_of_arrays)
Path.write_bytes = failing(Path.write_bytes, "write", 0, half_of_bytes)
Path.write_text = failing(Path.write_text, "write", 0, half_of_text)
Path.replace = failing(Path.replace, "rename", 1)
Path.mkdir = failing(Path.mkdir, "mkdir", 0)
Path.unlink = failing(Path.unlink, "unlink", 0)
os.fsync = failing(os.fsync, "fsync", 0)

ended, user = [], int(sys.argv[1]) if sys.argv[1:] else None
for *fault, named, words in json.load(sys.stdin):
    (kind, k, number), folder = fault, Path(named)
    asked.clear()
    with redirect_stderr(io.StringIO()) as said, redirect_stdout(io.StringIO()):
        try:
            main(words)
        except SystemExit as status:
            ended.append({"status": status.code, "said": said.getvalue(), "asked": dict(asked)})
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        user = None
json.dump(ended, sys.stdout)
