"""Verdicts: what a notebook answers to a claim, printed so that people can read it and `index.md` can be made of it."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from prunejax.errors import InputError
from prunejax.files import read_text
from prunejax.intervals import text

ANSWERS = ("holds", "does not hold", "holds when", "undecided", "not asked")
UNKNOWN = "unknown"
MARGIN = 0.02
"""A score that differs by less than this is the same for all that notebooks say."""


class Verdict(NamedTuple):
    """One claim and what was found of it.

    about      where it was raised: "Fig. 2", "Table 4", "referee 3", "AlphaEdit", several joined by "; "
    claim      the claim, in our words
    answer     begins with one of ANSWERS; "holds when ..." says when
    number     the number that decided, with its interval and unit
    n          what it stands on: runs, cases, systems
    seeds      pretraining seeds; 0 where no model is involved
    published  the number that the paper, or whoever is quoted, gives; "unknown" where it could not be read
    """

    about: str
    claim: str
    answer: str
    number: str
    n: str
    seeds: int = 1
    published: str = UNKNOWN

    def __str__(self) -> str:
        lines = [
            f"{self.answer}: {self.claim}",
            f"  number: {self.number}",
            f"  n: {self.n}; pretraining seeds: {self.seeds}",
            f"  about: {self.about}; published number: {self.published}",
        ]
        return "\n".join(lines)


PRINTED = re.compile(
    r"^(?P<answer>[^\n:]+): (?P<claim>[^\n]+)\n  number: (?P<number>[^\n]+)\n"
    r"  n: (?P<n>[^\n]+); pretraining seeds: (?P<seeds>\d+)\n"
    r"  about: (?P<about>[^\n]+); published number: (?P<published>[^\n]+)$",
    re.MULTILINE,
)


def told(*verdicts: Verdict) -> str:
    """Verdicts as a notebook prints them, its main one first. InputError for a field that is empty or has a line break,
    and for an answer that is none."""
    for verdict in verdicts:
        if not all(str(part).strip() and "\n" not in str(part) for part in verdict):
            raise InputError(f"verdict {verdict.claim!r}: every field is one line that says something")
        if not verdict.answer.startswith(ANSWERS) or ":" in verdict.answer:
            raise InputError(f"verdict {verdict.claim!r}: {verdict.answer!r} is none of {', '.join(ANSWERS)}")
    return "\n".join(map(str, verdicts))


def together(words: Iterable[str]) -> str:
    """One answer of several, all of which the claim needs: "holds" if all hold, "does not hold" if one does not."""
    found = set(words)
    return "does not hold" if "does not hold" in found else "holds" if found == {"holds"} else "undecided"


def alike(ends: Iterable[Sequence[float]], margin: float = MARGIN) -> str:
    """Whether differences are nothing to speak of, from their intervals (lo, hi): "holds" if each lies within `margin`
    of 0, "does not hold" if one lies apart from 0, else "undecided": an interval that is merely wide shows nothing."""
    found = [tuple(pair) for pair in ends]
    if all(-margin < lo and hi < margin for lo, hi in found):
        return "holds"
    return "does not hold" if any(lo > 0 or hi < 0 for lo, hi in found) else "undecided"


def kept(ends: Iterable[Sequence[float]], margin: float = MARGIN) -> str:
    """Whether a score is kept, from intervals of the change: "holds" if each lies above -`margin`, "does not hold" if
    one lies below 0, else "undecided"."""
    found = [tuple(pair) for pair in ends]
    if all(lo > -margin for lo, _ in found):
        return "holds"
    return "does not hold" if any(hi < 0 for _, hi in found) else "undecided"


def every(*answers: str) -> str:
    """What is to be said of "this and that" where each has its answer: "holds" if all hold, "does not hold" if one does
    not, else "undecided"."""
    if set(answers) <= {"holds"}:
        return "holds"
    return "does not hold" if "does not hold" in answers else "undecided"


def by_seed(rows: pd.DataFrame) -> str:
    """The intervals (mean, lo, hi) of rows that differ in their model alone, as people read them, in order of the
    model's name: of the pretraining seed."""
    if rows["model"].duplicated().any():
        raise InputError("verdict: more than one row of a model; choose first")
    return "; ".join(text(*row) for row in rows.sort_values("model")[["mean", "lo", "hi"]].to_numpy())


def orders_of(rows: pd.DataFrame) -> str:
    """How many request orders stand behind rows, by model: "5, 3 and 3 request orders"."""
    numbers = [str(n) for n in rows.groupby("model")["seed"].nunique().sort_index()]
    return f"{' and '.join(filter(None, (', '.join(numbers[:-1]), numbers[-1])))} request orders"


def verdicts_of(path: Path) -> list[Verdict]:
    """The verdicts that the cell tagged `verdict` of a notebook printed; InputError if there is none."""
    cells = json.loads(read_text(path, "notebook"))["cells"]
    outputs = [o for c in cells if "verdict" in c["metadata"].get("tags", ()) for o in c.get("outputs", ())]
    text = "".join("".join(output.get("text", ())) for output in outputs)
    found = [Verdict(**m.groupdict() | {"seeds": int(m["seeds"])}) for m in PRINTED.finditer(text)]
    if not found or "\n".join(map(str, found)) != text.rstrip("\n"):
        raise InputError(f"notebook {path}: its verdict cell prints other things than verdicts")
    return found


def index(folder: Path) -> str:
    """The page of verdicts, Markdown, of all notebooks in `folder`: a table a notebook, in order."""
    parts = [HEAD]
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        rows = [row_of(verdict) for verdict in verdicts_of(path)]
        question = heading(json.loads(read_text(path, "notebook"))["cells"])
        parts.append(f"## [{path.stem[:2]}]({path.name}) {question}\n\n{COLUMNS}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def heading(cells: Iterable[Mapping[str, Any]]) -> str:
    """The first heading among a notebook's cells: its question; "" if there is none."""
    texts = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    lines = (line for text in texts for line in text.splitlines())
    return next((line.lstrip("#").strip() for line in lines if line.startswith("#")), "")


def row_of(verdict: Verdict) -> str:
    """A verdict as a row of the page's tables."""
    seeds = str(verdict.seeds) if verdict.seeds else "none"
    cells: Sequence[str] = (
        *(verdict.about, verdict.claim, f"**{verdict.answer}**", verdict.number, verdict.n, seeds, verdict.published),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


HEAD = """# Verdicts

Written by `make notebooks` from what the notebooks print; do not edit. Every number is computed in its notebook, from
the committed records or on the spot, and every interval is 95%. *About* says where a claim was raised: a figure or
table of the paper (arXiv 2405.16821, numbered as submitted), a point of its referees, or a later paper. *Published* is
the number given there; unknown for nearly all, since only the abstract, captions and reviews could be read.
"""
NAMES = ("about", "claim", "verdict", "number", "n", "pretraining seeds", "published")
COLUMNS = f"| {' | '.join(NAMES)} |\n{'| --- ' * len(NAMES)}|"
