"""When a restraint is applied: during a run, every so many edits."""

import re
from dataclasses import dataclass

from prunejax.errors import InputError
from prunejax.restraint import SPECS, Restraint, parse


@dataclass(frozen=True)
class Schedule:
    """A restraint applied during a run, every `every` edits.

    raw False: the accumulated update is replaced by its restrained form and edits go on accumulating from there, so old
    edits are restrained again and again, by maps that are not idempotent.

    raw True: edits are computed on W_0 + restrained, but what accumulates, and is restrained next time, stays raw.
    """

    restraint: Restraint
    every: int
    raw: bool = False


def parse_schedule(spec: str) -> Schedule:
    """The schedule that "SPEC@EVERY" or "SPEC@EVERY,raw" names, as in log:1.2@50; InputError, one line, if none."""
    parts = re.fullmatch(r"([^@]+)@([1-9][0-9]*)(,raw)?", spec)
    if parts is None:
        raise InputError(f"restraint schedule {spec!r}: give SPEC@EDITS or SPEC@EDITS,raw (log:1.2@50); SPEC: {SPECS}")
    return Schedule(parse(parts[1]), every=int(parts[2]), raw=parts[3] is not None)
