"""Which shapes a sequence of edits is run in: each shape compiles a program of its own, and what pads is computed in
vain."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from prunejax.editors.facts import Fact
from prunejax.editors.value_settings import ValueSettings
from prunejax.models.config import DecoderConfig

COMPILING = 5e10
"""What another program costs to compile, in multiplications of matrices that could be done meanwhile: some 2 s of a
program that gets through 5e10 operations a second."""

PREFIX_STEP, COLUMN_STEP = 32, 4
"""Prefixes, of which a value step reads each token once, have their tokens and columns in multiples of these."""


class Shape(NamedTuple):
    """Sizes of the arrays of so many requests' rows: tokens before the subject's last, tokens from it on, tokens that
    are asked about, and the columns that each of the three has on the grid of `rows` rows."""

    rows: int
    prefix: int
    suffix: int
    reads: int
    prefix_columns: int
    suffix_columns: int
    read_columns: int


def shape_of(facts: Sequence[Fact]) -> Shape:
    """The least shape that takes the facts' rows together."""
    prefixes = [len(row) for fact in facts for row in fact.prefixes]
    suffixes = [len(row) for fact in facts for row in fact.suffixes]
    labels = [len(fact.labels) for fact in facts for _ in fact.offsets]
    return Shape(
        rows=len(prefixes),
        prefix=_up(max(sum(prefixes), 1), PREFIX_STEP),
        suffix=sum(suffixes),
        reads=sum(labels) + len(facts),
        prefix_columns=_up(max(*prefixes, 1), COLUMN_STEP),
        suffix_columns=max(suffixes),
        read_columns=max(labels),
    )


def cost_of(shape: Shape, config: DecoderConfig, settings: ValueSettings) -> float:
    """Multiplications of a value step on a shape, about: what tells shapes apart is all that it need be right in."""
    width, below = config.d_model, settings.layer + 1
    heads = config.n_heads * config.head_width
    layer = 2 * width * (heads + config.kv_heads * config.head_width) + (2 + config.gated) * width * config.d_ff
    above = config.n_layers - below
    once = shape.prefix * layer * config.n_layers + shape.suffix * layer * below
    seen = 2 * shape.rows * shape.suffix_columns * (shape.prefix_columns + shape.suffix_columns) * heads
    step = (shape.suffix * layer + seen) * above + shape.reads * width * config.vocab_size
    return once + 2 * settings.steps * step


def covering(shapes: Sequence[Shape]) -> Shape:
    """The least shape that takes what each of the shapes takes."""
    return Shape(*map(max, zip(*shapes, strict=True)))


def few_shapes(shapes: Sequence[Shape], config: DecoderConfig, settings: ValueSettings) -> list[Shape]:
    """For each shape that is wanted the one to run it in, of as many rows and at least as large in every other size: as
    many different ones as save more than COMPILING each.

    The wanted shapes of as many rows are ordered by their cost and cut into runs, each of which runs in its `covering`;
    of all ways to cut, the cheapest is taken.
    """
    chosen: dict[Shape, Shape] = {}
    counts = Counter(shapes)
    for rows in sorted({shape.rows for shape in counts}):
        alike = {shape: count for shape, count in counts.items() if shape.rows == rows}
        chosen |= _cheapest_cut(alike, partial(cost_of, config=config, settings=settings))
    return [chosen[shape] for shape in shapes]


def _cheapest_cut(counts: Mapping[Shape, int], cost: Callable[[Shape], float]) -> dict[Shape, Shape]:
    """Of each shape, wanted so many times, the covering of its run in the cheapest way to cut them."""
    wanted = sorted(counts, key=lambda shape: (cost(shape), shape))
    best: list[tuple[float, int]] = [
        (0.0, 0)
    ]  # of the first j wanted shapes: the least cost, where the last run starts
    for j in range(1, len(wanted) + 1):
        cover, times, ways = wanted[j - 1], 0, []
        for i in reversed(range(j)):
            cover, times = covering((cover, wanted[i])), times + counts[wanted[i]]
            ways.append((best[i][0] + times * cost(cover) + COMPILING, i))
        best.append(min(ways))
    chosen, j = {}, len(wanted)
    while j:
        i = best[j][1]
        chosen |= dict.fromkeys(wanted[i:j], covering(wanted[i:j]))
        j = i
    return chosen


def _up(n: int, step: int) -> int:
    return -(-n // step) * step
