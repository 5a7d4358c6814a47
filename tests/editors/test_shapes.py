"""The shapes of a sequence: that each takes what it must, and that no other choice of runs is cheaper."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from operator import mul

import numpy as np
import pytest

from prunejax.editors.facts import Fact, facts_of
from prunejax.editors.shapes import COMPILING, Shape, cost_of, covering, few_shapes, shape_of
from prunejax.editors.value_settings import ValueSettings
from prunejax.models.config import DecoderConfig
from tiny import EDITS, TEMPLATES

SMALL = DecoderConfig(12, 12, 768, 3072, 50257, 1024)
"""GPT-2's: a step costs about as much as compiling."""
SETTINGS = ValueSettings(layer=5)
SIZES = Shape(rows=11, prefix=96, suffix=90, reads=31, prefix_columns=20, suffix_columns=12, read_columns=3)


def takes(shape: Shape, other: Shape) -> bool:
    return all(size >= needed for size, needed in zip(shape, other, strict=True))


def drawn(seed: int, n: int) -> list[Shape]:
    """Shapes of longer and shorter requests, some of them equal."""
    rng = np.random.default_rng(seed)
    return [Shape(SIZES.rows, *(int(size * rng.choice([1, 1.5, 2, 4])) for size in SIZES[1:])) for _ in range(n)]


def test_the_least_shape_of_facts():
    one = Fact(((1,) * 5, (1,) * 2), ((1,) * 4, (1,)), (7, 8), (2,))
    two = Fact(((1,) * 40, ()), ((1,) * 3, (1,)), (7,), (2,))
    assert shape_of([one]) == Shape(2, 32, 5, 3, 8, 4, 2)
    assert shape_of([one, two]) == Shape(4, 64, 9, 5, 40, 4, 2)


def test_facts_without_anything_before_the_subject_have_a_prefix_of_padding():
    """No array is empty."""
    assert shape_of([Fact(((), ()), ((1,), (1,)), (7,), (0,))]) == Shape(2, 32, 2, 2, 4, 1, 1)


def test_the_shape_of_a_group_takes_each_of_its_facts(tiny_model):
    facts = facts_of(tiny_model.tokenizer, EDITS, TEMPLATES, 64)
    assert all(takes(shape_of(facts), shape_of([fact])) for fact in facts)


def test_covering_takes_all_and_is_the_least_that_does():
    shapes = drawn(0, 6)
    cover = covering(shapes)
    assert all(takes(cover, shape) for shape in shapes)
    for name, size in cover._asdict().items():
        assert not all(takes(cover._replace(**{name: size - 1}), shape) for shape in shapes)
    assert covering([SIZES]) == SIZES


@pytest.mark.parametrize("name", Shape._fields)
def test_a_larger_shape_costs_no_less(name):
    larger = SIZES._replace(**{name: 2 * getattr(SIZES, name)})
    assert cost_of(larger, SMALL, SETTINGS) >= cost_of(SIZES, SMALL, SETTINGS)


def test_cost_follows_steps_and_the_layers_above():
    twice, above = ValueSettings(layer=5, steps=40), ValueSettings(layer=8)
    assert cost_of(SIZES, SMALL, twice) > 1.9 * cost_of(SIZES, SMALL, SETTINGS)
    assert cost_of(SIZES, SMALL, above) < cost_of(SIZES, SMALL, SETTINGS)


@pytest.mark.parametrize("seed", range(6))
def test_each_shape_is_run_in_one_that_takes_it(seed):
    shapes = drawn(seed, 12)
    assert all(map(takes, few_shapes(shapes, SMALL, SETTINGS), shapes))


def test_one_shape_where_compiling_costs_more_than_padding():
    tiny = DecoderConfig(n_layers=3, n_heads=2, d_model=16, d_ff=64, vocab_size=300, n_positions=64)
    shapes = drawn(1, 12)
    assert set(few_shapes(shapes, tiny, SETTINGS)) == {covering(shapes)}


def test_several_shapes_where_padding_costs_more_than_compiling():
    short, long = SIZES, Shape(SIZES.rows, *(8 * size for size in SIZES[1:]))
    assert cost_of(long, SMALL, SETTINGS) - cost_of(short, SMALL, SETTINGS) > COMPILING
    assert few_shapes([short, long, short], SMALL, SETTINGS) == [short, long, short]


def test_many_alike_are_worth_a_program_that_one_is_not():
    short, long = SIZES, SIZES._replace(suffix=SIZES.suffix + 4)
    padding = cost_of(long, SMALL, SETTINGS) - cost_of(short, SMALL, SETTINGS)
    few = int(COMPILING // padding)
    assert few >= 1
    assert few_shapes([short] * few + [long], SMALL, SETTINGS) == [long] * (few + 1)
    assert few_shapes([short] * (few + 1) + [long], SMALL, SETTINGS) == [short] * (few + 1) + [long]


def test_requests_of_other_numbers_of_rows_do_not_share_a_shape():
    """However little it would save: a batch is never filled up with rows."""
    tiny = DecoderConfig(n_layers=3, n_heads=2, d_model=16, d_ff=64, vocab_size=300, n_positions=64)
    half = SIZES._replace(rows=SIZES.rows // 2)
    assert few_shapes([SIZES, half], tiny, SETTINGS) == [SIZES, half]


def cost_in_all(shapes: Sequence[Shape], chosen: Sequence[Shape]) -> float:
    return sum(cost_of(shape, SMALL, SETTINGS) for shape in chosen) + COMPILING * len(set(chosen))


def cheapest(shapes: Sequence[Shape]) -> float:
    """Every way to cut the ordered list into runs, each in its covering."""
    wanted = sorted(set(shapes), key=lambda shape: (cost_of(shape, SMALL, SETTINGS), shape))
    counts, costs = Counter(shapes), []
    for n_cuts in range(len(wanted)):
        for cuts in combinations(range(1, len(wanted)), n_cuts):
            runs = [wanted[start:stop] for start, stop in zip((0, *cuts), (*cuts, len(wanted)), strict=True)]
            times = [sum(counts[shape] for shape in run) for run in runs]
            each = [cost_of(covering(run), SMALL, SETTINGS) for run in runs]
            costs.append(sum(map(mul, each, times)) + COMPILING * len(runs))
    return min(costs)


@pytest.mark.parametrize("seed", range(12))
def test_no_other_cut_is_cheaper(seed):
    shapes = drawn(seed, 8)
    found = cost_in_all(shapes, few_shapes(shapes, SMALL, SETTINGS))
    assert found == pytest.approx(cheapest(shapes), rel=1e-12)


def test_some_of_the_drawn_lists_are_cut_and_some_are_joined():
    """Else the test before would prove nothing."""
    kept = [len(set(few_shapes(drawn(seed, 8), SMALL, SETTINGS))) for seed in range(12)]
    wanted = [len(set(drawn(seed, 8))) for seed in range(12)]
    assert max(kept) > 1
    assert any(few < many for few, many in zip(kept, wanted, strict=True))


def test_the_order_of_the_requests_does_not_matter():
    shapes = drawn(3, 10)
    chosen = dict(zip(shapes, few_shapes(shapes, SMALL, SETTINGS), strict=True))
    for order in (shapes[::-1], shapes[5:] + shapes[:5]):
        assert few_shapes(order, SMALL, SETTINGS) == [chosen[shape] for shape in order]


def test_no_requests_need_no_shape():
    assert few_shapes([], SMALL, SETTINGS) == []
