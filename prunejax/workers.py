"""Processes, each on a core of its own, that work off a `map` and end with whoever asked for it."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any

Each = Callable[..., Iterable[Any]]
"""`map`, or one that hands its work to other processes at once."""


@contextmanager
def workers(jobs: int) -> Iterator[Each]:
    """A `map` that so many processes, each on a core of its own, work off in order; the plain one for one job."""
    if jobs == 1:
        yield map
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=begin_work, initargs=(context.Value("i", 0),)) as pool:
        yield pool.map


def begin_work(taken: Any) -> None:
    """What a worker does first: it keeps to a core (`keep_to_a_core`), and ends with the process that it works for,
    also if that is killed. Else it would work on, hold what it writes, and keep whoever goes on waiting."""

    def end() -> None:
        wait([parent.sentinel])
        os._exit(1)  # as a kill, which everything survives

    if (parent := parent_process()) is not None:
        threading.Thread(target=end, daemon=True).start()
    keep_to_a_core(taken)


def keep_to_a_core(taken: Any) -> None:
    """Keep this process to a core of its own, the next after those `taken` (a shared counter), where the system can:
    two processes that share two cores take half as long again."""
    if not hasattr(os, "sched_setaffinity"):
        return
    with taken.get_lock():
        number, taken.value = taken.value, taken.value + 1
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
