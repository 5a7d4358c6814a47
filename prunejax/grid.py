"""The grid behind the figures: which runs of which editors are made, and at which points they are measured."""

from dataclasses import dataclass

PRESET = "world"
POOL = "report"
EDITS = (0, 1, 10, 50, 100, 200, 500, 1000)
SPECTRA_EDITS = (0, 1, *range(10, 100, 10), *range(100, 1001, 50))
FEW_EDITS = (0, 100, 1000)
RESTRAINTS = ("none", "log:e", "log:1.5", "log:1.2", "scaled-log:e", "rescale:log:e", "rescale:scaled-log:e")
HEADLINE = ("none", "log:e", "scaled-log:e", "rescale:log:e")
"""Restraints that are also looked at on other pretraining seeds: the paper's, its scale-free form, the control."""

MAPS = ("linear", "rescale:linear", "clip", "rescale:clip")
"""Other maps above m, each with its control of equal Frobenius norm."""

BASES = tuple(f"log:{base}" for base in ("1.02", "1.05", "1.1", "1.35", "2", "4", "8", "20"))
"""Bases beside those of RESTRAINTS, from no restraint to nearly clip."""

MISUSES = ("truncated:0.000122:log:e", "added:log:e", "random:0", "random:1", "random:2")
"""What the authors' code does to small singular values (at d_in = 1,024), what copies of it add, the spectrum alone."""

SINGLE = 200
"""How many requests are also edited each on its own."""

STORED = (100, 1000)
"""States of the first run that are committed, so that a notebook can score them again."""


@dataclass(frozen=True)
class Series:
    """Runs of one editor on one pretraining seed: the request orders, and the points to score.

    `model` labels the rows and begins the names of the runs' folders, which series that differ in their points alone
    share; `files` begins the names of the files that the rows go to.
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


SERIES = (
    Series("world", "world", "rome", 0, (0, 1, 2, 3, 4), EDITS, RESTRAINTS),
    Series("world-seed-1", "world-seed-1", "rome", 1, (0, 1, 2), FEW_EDITS, HEADLINE),
    Series("world-seed-2", "world-seed-2", "rome", 2, (0, 1, 2), FEW_EDITS, HEADLINE),
    Series(
        *("memit", "world", "memit", 0, (0, 1, 2, 3, 4), EDITS, ("none", "log:e", "log:1.2", "rescale:log:e")),
        files="memit-",
    ),
    Series(
        *("referees", "world", "rome", 0, (0, 1, 2, 3, 4), FEW_EDITS),
        ("none", "log:e", "log:1.5", "log:1.2", *MAPS, *BASES, *MISUSES),
        FEW_EDITS,
        "referees-",
    ),
)
