"""What a run of edits does, and where it pauses: a plan, and the counts of edits at which chunks end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunejax.editors import editor_row
from prunejax.editors.regimes import regime_of
from prunejax.errors import InputError
from prunejax.guard import Guard, parse_guard
from prunejax.schedule import During, parse_during

CHUNK = 50
"""Edits between two writes; with a restraint every t edits, a chunk ends there too."""


@dataclass(frozen=True)
class Plan:
    """What a run does, apart from its model and requests: editor, settings, where they come from, what restrains it
    while it goes on (`schedule.parse_during`), seed, how many requests are edited at once, and what guards it
    (`guard.parse_guard`)."""

    editor: str
    settings: Any
    preset: str = "default"
    restrain: str = ""
    seed: int = 0
    source: str = ""
    batch: int = 1
    guard: str = ""

    @property
    def during(self) -> During:
        """What `restrain` says."""
        return parse_during(self.restrain)

    @property
    def guarded(self) -> Guard | None:
        """What `guard` says."""
        return parse_guard(self.guard)


def check(plan: Plan, n: int, tensors: Sequence[str]) -> None:
    """InputError for a regime that the editor has not, or a restraint with nothing to restrain."""
    row, during = editor_row(plan.editor), plan.during
    if refused := row.refused(regime_of(n, plan.batch)):
        raise InputError(f"batch {plan.batch}: {refused}")
    if during.spec and not tensors:
        raise InputError(f"restraint {during.spec!r}: {plan.editor} writes no weight that could be restrained")
    if plan.guarded and plan.guarded.every % plan.batch:
        raise InputError(f"guard every {plan.guarded.every} edits: falls within a batch of {plan.batch}")
    if plan.guarded and plan.guarded.denominator and not row.divides:
        raise InputError(f"guard: {plan.editor} divides by nothing; leave out denominator")
    if plan.guarded and not tensors:
        raise InputError(f"guard: {plan.editor} writes no weight that could be broken")
    chunk_of(plan)


def chunk_of(plan: Plan) -> int:
    """How many edits lie between two writes: whole batches, and a restraint during the run falls between them."""
    if plan.batch < 1:
        raise InputError(f"batch {plan.batch}: at least one request is edited at a time")
    schedule = plan.during.schedule
    if schedule and schedule.every % plan.batch:
        raise InputError(f"restraint every {schedule.every} edits: falls within a batch of {plan.batch}")
    return schedule.every if schedule else max(CHUNK // plan.batch, 1) * plan.batch


def end_of_chunk(plan: Plan, done: int, n: int, *, summed: bool) -> int:
    """Where the chunk after `done` edits ends, and where a guard looks. Of sums of updates no count within a chunk can
    be had again, so these also end after 1, 2, 5, 10, 20 batches and so on."""
    steps = [chunk_of(plan)] + ([plan.guarded.every] if plan.guarded else [])
    ends = [n, *(done - done % step + step for step in steps)]
    if summed:
        ends += [plan.batch * digit * 10**power for power in range(len(str(n))) for digit in (1, 2, 5)]
    return min(end for end in ends if end > done)


def restrains_after(plan: Plan, done: int) -> bool:
    """Whether the accumulated update is restrained after so many edits."""
    schedule = plan.during.schedule
    return schedule is not None and done % schedule.every == 0
