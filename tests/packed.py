"""Requests as packed rows, and packed rows as the padded ones that slow versions read."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prunejax.editors.facts import facts_of
from prunejax.editors.rows import fact_rows
from prunejax.editors.shapes import covering, shape_of
from prunejax.editors.value import FactRows, Tokens
from prunejax.models.checkpoints import Model
from prunejax.requests import EditRequest


class Unpacked(NamedTuple):
    """Rows padded on the right: tokens and positions int32 [B, T], -1 on padding; subject_last int32 [B]; row and
    column int32 [C] of what is asked about, which is row 0 at its subject's last token where `share` says nothing."""

    tokens: np.ndarray
    positions: np.ndarray
    subject_last: np.ndarray
    row: np.ndarray
    column: np.ndarray


def packed(model: Model, requests: Sequence[EditRequest], contexts: Sequence[str], n_positions: int) -> list[FactRows]:
    """The rows of each request alone, in the least shape that takes every one: programs are compiled for one."""
    facts = facts_of(model.tokenizer, requests, contexts, n_positions)
    shape = covering([shape_of([fact]) for fact in facts])
    return [fact_rows([fact], shape) for fact in facts]


def unpacked(rows: FactRows) -> Unpacked:
    """Every row's prefix and then its suffix, as the packings and the stored positions have them."""
    ids, positions = (
        [before + after for before, after in zip(*(_rows_of(part, name) for part in rows[:2]), strict=True)]
        for name in ("ids", "positions")
    )
    before = np.array([len(row) for row in _rows_of(rows.prefix, "ids")], np.int32)
    row, column = np.divmod(rows.suffix.packing.place[rows.reads.index], rows.suffix.packing.slot.shape[1])
    return Unpacked(_padded(ids, 0), _padded(positions, -1), before, row, before[row] + column)


def _rows_of(tokens: Tokens, name: str) -> list[list[int]]:
    flat = getattr(tokens, name)
    return [flat[slots[slots < len(flat)]].tolist() for slots in tokens.packing.slot]


def _padded(rows: list[list[int]], empty: int) -> np.ndarray:
    padded = np.full((len(rows), max(map(len, rows))), empty, np.int32)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded
