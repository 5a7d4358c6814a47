"""Facts as the arrays of the value step: all rows of some requests packed into one shape."""

from collections.abc import Sequence

import jax
import numpy as np

from prunejax.editors.facts import Fact
from prunejax.editors.shapes import Shape
from prunejax.editors.value import FactRows, Tokens
from prunejax.models.packing import Reads, fill, pack


def fact_rows(facts: Sequence[Fact], shape: Shape) -> FactRows:
    """The rows of n facts in order, each its contexts and then its KL row, in a shape that takes them."""
    prefixes = [row for fact in facts for row in fact.prefixes]
    suffixes = [row for fact in facts for row in fact.suffixes]
    starts = np.cumsum([0, *map(len, suffixes)])[:-1]
    lengths = [len(row) for row in prefixes]
    index, labels, share, read_lengths = [], [], np.zeros((len(facts), shape.reads), np.float32), []
    tail, row = [], 0
    for number, fact in enumerate(facts):
        for offset in fact.offsets:
            at = len(index)
            index += range(starts[row] + offset, starts[row] + offset + len(fact.labels))
            labels += fact.labels
            share[number, at : len(index)] = 1 / (len(fact.offsets) * len(fact.labels))
            read_lengths.append(len(fact.labels))
            row += 1
        tail.append(len(index))
        index.append(starts[row])
        labels.append(0)
        read_lengths.append(1)
        row += 1
    return FactRows(
        prefix=_tokens(prefixes, [0] * len(prefixes), shape.prefix, shape.prefix_columns),
        suffix=_tokens(suffixes, lengths, shape.suffix, shape.suffix_columns),
        first=starts.astype(np.int32),
        reads=Reads(fill([index], shape.reads, 0), pack(read_lengths, shape.reads, shape.read_columns)),
        labels=fill([labels], shape.reads, 0),
        share=share,
        tail=np.array(tail, np.int32),
    )


def stacked_rows(groups: Sequence[Sequence[Fact]], shape: Shape) -> FactRows:
    """The rows of groups of as many facts each, in a shape that takes each of them, a leading [groups] on each part."""
    return jax.tree.map(lambda *parts: np.stack(parts), *(fact_rows(group, shape) for group in groups))


def grouped(facts: Sequence[Fact], tokens: int) -> tuple[list[list[Fact]], np.ndarray]:
    """The facts in groups of equal size and about equal length, of about so many suffix tokens each, and where each
    fact is found in them, int32 [n]; the shortest fact is repeated where a group lacks one."""
    lengths = [sum(map(len, fact.suffixes)) for fact in facts]
    n_groups = min(len(facts), max(1, round(sum(lengths) / tokens)))
    order = sorted(range(len(facts)), key=lambda number: -lengths[number])
    order += order[-1:] * (-len(order) % n_groups)
    # Dealt to and fro, so that no group gets the longest of every round.
    rounds = [order[start : start + n_groups] for start in range(0, len(order), n_groups)]
    dealt = [members[:: (-1) ** number] for number, members in enumerate(rounds)]
    groups = list(zip(*dealt, strict=True))
    found = {number: at for at, number in enumerate(number for group in groups for number in group)}
    place = np.array([found[number] for number in range(len(facts))], np.int32)
    return [[facts[number] for number in group] for group in groups], place


def _tokens(rows: Sequence[Sequence[int]], starts: Sequence[int], size: int, width: int) -> Tokens:
    """Rows whose first tokens have these positions."""
    positions = [range(start, start + len(row)) for start, row in zip(starts, rows, strict=True)]
    packing = pack([len(row) for row in rows], size, width)
    return Tokens(fill(rows, size, 0), fill(positions, size, -1), packing)
