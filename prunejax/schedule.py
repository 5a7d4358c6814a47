"""What restrains a run while it goes on: each update, and the accumulated one every so many edits."""

import re
from dataclasses import dataclass

from prunejax.errors import InputError
from prunejax.masking import SPECS as MASKS
from prunejax.masking import Mask, is_mask, parse_mask
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
    parts = re.fullmatch(r"([^@]+)@([1-9][0-9]{0,17})(,raw)?", spec)
    if parts is None:
        raise InputError(f"restraint schedule {spec!r}: give SPEC@EDITS or SPEC@EDITS,raw (log:1.2@50); SPEC: {SPECS}")
    return Schedule(parse(parts[1]), every=int(parts[2]), raw=parts[3] is not None)


@dataclass(frozen=True)
class During:
    """The restraints of a run, the text they were written as, and each of them or None."""

    spec: str = ""
    mask: Mask | None = None
    schedule: Schedule | None = None


def parse_during(spec: str) -> During:
    """What "rect:20", "log:1.2@50" or both, joined by +, restrain during a run; nothing for "". InputError for more."""
    if not spec:
        return During()
    parts = spec.split("+")
    masks, rest = [part for part in parts if is_mask(part)], [part for part in parts if not is_mask(part)]
    if len(masks) > 1 or sum("@" in part for part in rest) > 1:
        raise InputError(f"restraint {spec!r}: at most one of {MASKS} and one SPEC@EDITS during a run")
    mask = parse_mask(masks[0]) if masks else None
    return During(spec, mask, parse_schedule("+".join(rest)) if rest else None)
