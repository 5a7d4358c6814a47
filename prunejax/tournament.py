"""The runs that set all editors beside one another in sequence, and ask about batches and null spaces.

Which editors go on to 1,000 edits, the three orders, the bases and RECT's share were written down before any of these
runs was made. No base was searched for editors that had none: all get the paper's worked example and the one that the
tune pool chose for ROME and for MEMIT. RECT keeps 20% of an update's entries, as its code does by default.
"""

from typing import Any

from prunejax.series import Series

LONG = ("rome", "memit", "memit-seq", "alphaedit", "encore", "ultraedit")
"""Those that are followed to 1,000 edits."""

EDITORS = (*LONG, "ft-l", "ft-m", "r-rome", "emmet", "nse", "pmet", "mend")
RUN_ALREADY = ("rome", "r-rome", "memit", "mend")
"""Those of which the grid has runs of 1,000 edits: they are measured at more points, not made again."""

ORDERS = (0, 1, 2)
FEW, MANY = 300, 1000
PRUNED = ("none", "log:e", "log:1.35")
RECT = "rect:20"
FILES = "tournament-"


def series(kind: str, editor: str, restraints: tuple[str, ...], edits: tuple[int, ...], **more: Any) -> Series:
    """Runs on the committed model, measured at these numbers of edits."""
    length = 0 if max(edits) == MANY else max(edits)
    name = f"{kind}-{more.get('label') or editor}".replace(" ", "-")
    more = {"length": length, "timed": True} | more
    return Series(name, "world", editor, 0, ORDERS, edits, restraints, (0, max(edits)), **more)


def one_by_one(editor: str) -> Series:
    """An editor in sequence, by itself and with PRUNE at the end."""
    whole = {"length": 0} if editor in RUN_ALREADY else {}
    return series("tournament", editor, PRUNED, counts(editor), files=FILES, **whole)


def under_rect(editor: str) -> Series:
    """An editor in sequence, each of its updates under RECT."""
    return series("rect", editor, (RECT,), counts(editor), files=FILES)


def counts(editor: str) -> tuple[int, ...]:
    """After how many edits an editor is measured."""
    return (0, 10, 100, FEW, *([MANY] if editor in LONG else []))


def in_batches(editor: str) -> list[Series]:
    """FEW edits in batches of 10, of 100 and all at once; one by one they are the tournament's."""
    more = {"files": "batches-"}
    return [series(f"batches-{batch}", editor, ("none",), (0, FEW), batch=batch, **more) for batch in (10, 100, FEW)]


def null_space(label: str, **changed: Any) -> Series:
    """AlphaEdit with another null space."""
    more = {"changed": tuple(changed.items()), "label": label, "files": "null-", "timed": False}
    return series("null", "alphaedit", ("none",), (0, 10, 100, FEW, MANY), **more)


TOURNAMENT = (
    *(one_by_one(editor) for editor in EDITORS),
    *(under_rect(editor) for editor in EDITORS),
    *(one for editor in ("memit", "memit-seq", "emmet", "alphaedit") for one in in_batches(editor)),
    null_space("alphaedit P=I", cut="none"),
    null_space("alphaedit cut 0.001", threshold=0.001),
    *(
        series("often", editor, ("log:e@50",), (0, 100, FEW), files=FILES)
        for editor in ("alphaedit", "encore", "ultraedit")
    ),
)
