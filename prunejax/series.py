"""A series of runs: one editor, one model, some request orders, and the points to score."""

import re
from dataclasses import dataclass
from typing import Any

from prunejax.masking import is_mask
from prunejax.schedule import Schedule, parse_during

POOL = "report"
EDITS = (0, 1, 10, 50, 100, 200, 500, 1000)
SPECTRA_EDITS = (0, 1, *range(10, 100, 10), *range(100, 1001, 50))


@dataclass(frozen=True)
class Series:
    """Runs of one editor on one pretraining seed: the request orders, and the points to score.

    `model` labels the rows and begins the names of the runs' folders, which series that differ in their points alone
    share; `files` begins the names of the files that the rows go to; `pool` is whom the runs edit, `asked` whether each
    edit is written as a question, as zsRE has them. Under `followed` restraints it is also measured how old and recent
    edits fare and what becomes of the first edits' values. After `stored` edits the first order's weights are kept.

    A restraint with an @ ("log:e@50") or of each update ("rect:20"), which then is the only one, restrains during the
    run. It labels rows that are scored as the run went on.

    `batch` requests are edited at once, `length` in all (0: the whole pool). `changed` settings are laid over the
    preset's; then `label` is what the editor is called in the rows. `timed` runs also say how long an edit took.
    """

    name: str
    model: str
    editor: str
    pretraining_seed: int
    orders: tuple[int, ...]
    edits: tuple[int, ...]
    restraints: tuple[str, ...]
    spectra_edits: tuple[int, ...] = SPECTRA_EDITS
    files: str = ""
    pool: str = POOL
    followed: tuple[str, ...] = ()
    asked: bool = False
    stored: tuple[int, ...] = ()
    batch: int = 1
    length: int = 0
    changed: tuple[tuple[str, Any], ...] = ()
    label: str = ""
    timed: bool = False

    @property
    def during(self) -> str:
        """The restraint during the run, "" if there is none."""
        first = self.restraints[0]
        return first if "@" in first or is_mask(first) else ""

    @property
    def schedule(self) -> Schedule | None:
        """What `during` says of the accumulated update."""
        return parse_during(self.during).schedule

    @property
    def scored(self) -> tuple[str, ...]:
        """The restraints to score. A run restrained meanwhile is scored as it is; if it accumulates unrestrained, what
        it edits are the restrained weights."""
        if self.schedule is None:
            return ("none",) if self.during else self.restraints
        return (self.schedule.restraint.spec if self.schedule.raw else "none",)

    @property
    def folder(self) -> str:
        """How the names of the runs' folders begin."""
        during = re.sub(r"\W", "-", self.during.replace("@", "-every-"))
        pool = "" if self.pool == POOL else self.pool
        asked = "questions" if self.asked else ""
        own = "-".join(f"{name}-{value}" for name, value in self.changed)
        sizes = [f"{n}-{word}" for n, word in ((self.batch, "at-once"), (self.length, "edits")) if n > 1]
        return "-".join(filter(None, (self.model, pool, asked, self.editor, own, during, *sizes)))

    @property
    def source(self) -> str:
        """What the requests are called."""
        return f"world/{self.pool}{' as questions' if self.asked else ''}"
