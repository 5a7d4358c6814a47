"""A verb that dies at the K-th thing it asks of the file system in its output folder, in the middle of it, or at the
K-th step of its work: of what it asks and does, counted together.

python tests/killed_program.py SIGNAL K FOLDER VERB WORDS...: of SIGKILL it dies, SIGINT is Ctrl-C; 0 is never. It ends
by printing how many such things there were. Progress is saved as often as it can be.
"""

import math
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from prunejax import points, progress, stored
from prunejax.cli import main
from prunejax.editors import key_sums, moments

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
SIGNAL, K, FOLDER = signal.Signals[sys.argv[1]], int(sys.argv[2]), Path(sys.argv[3]).resolve()
asked = count(1)
done = 0


def die() -> None:
    os.kill(os.getpid(), SIGNAL)


def dying(function: Callable, where: int | None, begin: Callable[..., Any] = lambda *words: None) -> Callable:
    """The function, but the K-th call with a path in FOLDER, its argument number `where`, or any call for None, goes as
    far as `begin`."""

    def counted(*words: Any, **more: Any) -> Any:
        global done
        if where is None or Path(words[where]).resolve().is_relative_to(FOLDER):
            done = next(asked)
            if done == K:
                begin(*words)
                die()
        return function(*words, **more)

    return counted


def half_of_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(data[: len(data) // 2])


def half_of_arrays(save_file: Callable) -> Callable:
    def half(arrays: dict, path: Path, **more: Any) -> None:
        save_file(arrays, path, **more)
        os.truncate(path, path.stat().st_size // 2)

    return half


Path.write_bytes = dying(Path.write_bytes, 0, half_of_bytes)
Path.replace = dying(Path.replace, 1)
Path.unlink = dying(Path.unlink, 0)
Path.chmod = dying(Path.chmod, 0)
for module in (stored, moments, progress):
    module.save_file = dying(module.save_file, 1, half_of_arrays(module.save_file))
key_sums.add_pool = dying(key_sums.add_pool, None)
points.evaluate_point = dying(points.evaluate_point, None)
key_sums.POOL, progress.SAVE_SECONDS, progress.SHARE = 40, 0.0, math.inf

try:
    main(sys.argv[4:])
finally:
    sys.stdout.write(f"asked {done} times\n")
