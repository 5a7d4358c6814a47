"""A guard of a run: how often the model is looked at, past which thresholds it is broken, and what happens then."""

import math
import re
from dataclasses import dataclass, fields
from typing import NamedTuple

from prunejax.errors import InputError

ACTIONS = ("stop", "rollback")
EXAMPLE = "rollback@10, or stop@50,perplexity=1.5,held=0.5"


class Look(NamedTuple):
    """A model after some edits, seen by its guard. perplexity: of the guard's text; ratio: over the unedited model's;
    norm: ||W_n - W_0||_F / ||W_0||_F, of several edited tensors the largest; denominator: the least |k . u| of the
    edits since the look before, NaN where an editor has none; held: the share of the edits so far (0-1; NaN of none)
    whose target is the arg-max after the prompt."""

    perplexity: float
    ratio: float
    norm: float
    denominator: float
    held: float


@dataclass(frozen=True)
class Guard:
    """After every `every` edits the model is looked at. It is broken where `perplexity`, over the unedited model's, is
    above its threshold, or `norm` is, or `held` or `denominator` below theirs (`Look`); a number that is NaN is past
    every threshold. Then a run stops, or edits are rolled back, and it goes on; it stops after `most` edits rolled back
    one after another, for then nothing more can be written.

    1.5 is the largest of 1.05, 1.1, 1.25, 1.5, 2 and 3 that lets no recorded run on the embedded world's tune pool
    pass which has lost half of its mean ability (2 lets one in seven pass): on another model it is a guess. The other
    three thresholds are off.
    """

    action: str
    every: int
    perplexity: float = 1.5
    norm: float = math.inf
    denominator: float = 0.0
    held: float = 0.0
    most: int = 10

    def __post_init__(self) -> None:
        bad = [field.name for field in fields(self)[2:] if not getattr(self, field.name) >= 0]
        if bad or self.perplexity <= 1 or self.held > 1 or self.most < 1:
            raise InputError(
                "guard: perplexity is a number above 1 (times the unedited model's), held a share up to 1, norm and "
                "denominator are at least 0, most is a whole number of at least 1"
            )


def parse_guard(spec: str) -> Guard | None:
    """The guard that "ACTION@EDITS" or "ACTION@EDITS,NAME=NUMBER,..." names, None for ""; InputError, one line, for
    anything else."""
    if not spec:
        return None
    first, *words = spec.split(",")
    named = re.fullmatch(r"(\w+)@([1-9][0-9]{0,8})", first)
    if named is None or named[1] not in ACTIONS:
        raise InputError(f"guard {spec!r}: give {' or '.join(f'{action}@EDITS' for action in ACTIONS)} ({EXAMPLE})")
    kinds, values = {field.name: field.type for field in fields(Guard)[2:]}, {}
    for word in words:
        name, _, number = word.partition("=")
        if name not in kinds or name in values:
            raise InputError(f"guard {spec!r}: {word!r} is none of {', '.join(kinds)}, each once ({EXAMPLE})")
        try:
            values[name] = kinds[name](number)
        except ValueError:
            raise InputError(f"guard {spec!r}: {number!r} is no number for {name} ({EXAMPLE})") from None
    return Guard(named[1], int(named[2]), **values)


def broken(guard: Guard, look: Look) -> str:
    """What is past a threshold, in words; "" where the model is whole."""
    if not look.ratio <= guard.perplexity:
        return f"perplexity {look.ratio:.3g} times that of the unedited model (at most {guard.perplexity:g})"
    if not look.norm <= guard.norm:
        return f"an update of {look.norm:.3g} times the norm of the weight (at most {guard.norm:g})"
    if guard.denominator and not look.denominator >= guard.denominator:
        return f"a denominator of {look.denominator:.3g} (at least {guard.denominator:g})"
    if guard.held and not look.held >= guard.held:
        return f"{look.held:.0%} of the edits are held (at least {guard.held:.0%})"
    return ""
