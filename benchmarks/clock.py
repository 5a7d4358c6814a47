"""Seconds: of one call, and what is said of several."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple


class Times(NamedTuple):
    """What was measured of n calls, seconds."""

    n: int
    median: float
    lowest: float
    highest: float


def times(seconds: Sequence[float]) -> Times:
    """The summary of at least one measurement."""
    return Times(len(seconds), median(seconds), min(seconds), max(seconds))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """How many seconds a call took, and what it returned. On a device that works on after a call returns, `call` has to
    wait for it."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def repeated(call: Callable[[], Any], least: int = 3, seconds: float = 0.3) -> float:
    """The median of so many calls as fill `seconds`, at least `least`, after one that is not counted."""
    call()
    found: list[float] = []
    while len(found) < least or sum(found) < seconds:
        found.append(timed(call)[0])
    return median(found)
