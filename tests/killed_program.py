"""A verb that dies by SIGKILL at the K-th thing it asks of the file system in its output folder, in the middle of it.

python tests/killed_program.py K FOLDER VERB WORDS...: 0 never dies. It ends by printing how many such things it asked.
"""

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from prunejax import run
from prunejax.cli import main

K, FOLDER = int(sys.argv[1]), Path(sys.argv[2]).resolve()
asked = count(1)
done = 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(function: Callable, where: int, begin: Callable[..., Any] = lambda *words: None) -> Callable:
    """The function, but the K-th call with a path in FOLDER, its argument number `where`, goes as far as `begin`."""

    def counted(*words: Any, **more: Any) -> Any:
        global done
        if Path(words[where]).resolve().is_relative_to(FOLDER):
            done = next(asked)
            if done == K:
                begin(*words)
                die()
        return function(*words, **more)

    return counted


def half_of_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(data[: len(data) // 2])


save_file, replace = run.save_file, Path.replace


def half_of_arrays(arrays: dict, path: Path) -> None:
    save_file(arrays, path)
    os.truncate(path, path.stat().st_size // 2)


Path.write_bytes = dying(Path.write_bytes, 0, half_of_bytes)
Path.replace = dying(replace, 1)
Path.unlink = dying(Path.unlink, 0)
Path.chmod = dying(Path.chmod, 0)
run.save_file = dying(save_file, 1, half_of_arrays)

try:
    main(sys.argv[3:])
finally:
    sys.stdout.write(f"asked {done} times\n")
