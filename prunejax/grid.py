"""The grid behind the figures: which runs of which editors are made, and at which points they are measured."""

from typing import Any

from prunejax.errors import InputError
from prunejax.series import EDITS, SPECTRA_EDITS, Series
from prunejax.tournament import TOURNAMENT

PRESET = "world"
FEW_EDITS = (0, 100, 1000)
CHOSEN = {"rome": "log:1.35", "memit": "log:1.35", "mend": "log:20"}
"""The base of each editor that `tune.best_base` chose on the tune pool (tune-evaluation.csv). That of MEND is the
largest that was tried."""

PAIRS = {editor: ("log:e", chosen) for editor, chosen in CHOSEN.items()}
"""The paper's base, of its worked example, and the chosen one."""
CONTROLLED = {editor: (*pair, *(f"rescale:{spec}" for spec in pair)) for editor, pair in PAIRS.items()}
RESTRAINTS = ("none", *CONTROLLED["rome"], "log:1.2", "scaled-log:e", "rescale:scaled-log:e")

MAPS = ("linear", "rescale:linear", "clip", "rescale:clip")
"""Other maps above m, each with its control of equal Frobenius norm."""

BASES = tuple(f"log:{base}" for base in ("1.02", "1.05", "1.1", "1.35", "2", "4", "8", "20"))
"""Bases beside those of RESTRAINTS, from no restraint to nearly clip."""

EVERY_BASE = ("none", "log:e", "log:1.5", "log:1.2", *BASES)
TUNED = 400
"""How many edits a run on the tune pool has, which holds no more people."""

MISUSES = ("truncated:0.000122:log:e", "added:log:e", "random:0", "random:1", "random:2")
"""What the authors' code does to small singular values (at d_in = 1,024), what copies of it add, the spectrum alone."""

SINGLE = 200
"""How many requests are also edited each on its own."""

STORED = (100, 1000)
"""States of ROME's first run that are committed, so that a notebook can score them again."""


EDITOR_FILES = {"rome": "", "memit": "memit-", "mend": "mend-"}
"""How the names of each editor's own files of records begin."""

FOLLOWED = {editor: ("none", *pair, "rescale:log:e") for editor, pair in PAIRS.items()}
ORDERS = (0, 1, 2, 3, 4)
FEW_ORDERS = (0, 1, 2)
SCHEDULED = (0, 50, 100, 200, 500, 1000)


def own_runs(editor: str, restraints: tuple[str, ...], spectra_edits: tuple[int, ...], **more: Any) -> Series:
    """The main series of an editor: five orders on the committed model."""
    name = "world" if editor == "rome" else editor
    more |= {"files": EDITOR_FILES[editor], "followed": FOLLOWED[editor]}
    return Series(name, "world", editor, 0, ORDERS, EDITS, restraints, spectra_edits, **more)


def on_other_seeds(editor: str, *restraints: str) -> list[Series]:
    """The series of an editor on the worlds of pretraining seeds 1 and 2, at few points."""
    files, controlled = EDITOR_FILES[editor], ("none", *CONTROLLED[editor], *restraints)
    return [
        Series(f"{files}{model}", model, editor, seed, FEW_ORDERS, FEW_EDITS, controlled, FEW_EDITS, files)
        for seed, model in ((1, "world-seed-1"), (2, "world-seed-2"))
    ]


def during(base: str, end: str, stored: tuple[int, ...] = ()) -> Series:
    """ROME restrained every 50 edits; `end` is "" or ",raw"."""
    name, spec = f"during-{base.removeprefix('log:')}{end.replace(',', '-')}", f"{base}@50{end}"
    return Series(name, "world", "rome", 0, ORDERS, SCHEDULED, (spec,), SCHEDULED, "during-", stored=stored)


def tuning(editor: str) -> Series:
    """The runs on the tune pool from which the editor's base was chosen."""
    edits = (0, TUNED)
    return Series(f"tune-{editor}", "world", editor, 0, (0, 1), edits, EVERY_BASE, edits, "tune-", pool="tune")


REFEREES = ("none", "log:e", "log:1.5", "log:1.2", *MAPS, *BASES, *MISUSES)
ASKED = (0, 10, 100, 1000)
R_ROME = Series(
    *("r-rome", "world", "r-rome", 0, ORDERS, ASKED, ("none", *CONTROLLED["rome"]), ASKED, "r-rome-"),
)
"""ROME with one key throughout, proposed for sequences of edits, with the settings and bases chosen for ROME."""
QUESTIONS = Series(
    *("questions", "world", "rome", 0, ORDERS, ASKED, ("none", *CONTROLLED["rome"]), ASKED, "questions-"), asked=True
)
SERIES = (
    own_runs("rome", RESTRAINTS, SPECTRA_EDITS, stored=STORED),
    *on_other_seeds("rome", "scaled-log:e"),
    own_runs("memit", ("none", *CONTROLLED["memit"], "log:1.2"), SPECTRA_EDITS),
    own_runs("mend", ("none", *CONTROLLED["mend"], "log:1.2"), EDITS),
    *on_other_seeds("memit"),
    *on_other_seeds("mend"),
    Series("referees", "world", "rome", 0, ORDERS, FEW_EDITS, REFEREES, FEW_EDITS, "referees-"),
    QUESTIONS,
    R_ROME,
    during("log:e", "", stored=(1000,)),
    during("log:e", ",raw"),
    during(CHOSEN["rome"], ""),
    during(CHOSEN["rome"], ",raw"),
    *(tuning(editor) for editor in CHOSEN),
    *TOURNAMENT,
)


def series_named(name: str) -> Series:
    """One series of the grid."""
    found = [series for series in SERIES if series.name == name]
    if not found:
        raise InputError(f"series {name!r}: there are {', '.join(series.name for series in SERIES)}")
    return found[0]
