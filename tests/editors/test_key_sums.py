"""From texts to batches nothing is lost or read too early, and the device's sums are as exact as float64."""

import itertools
import math
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunejax.editors import key_sums
from prunejax.editors.key_sums import Pair, add_to, batches, mean_of, pieces_of, pools, portions, read_rows

lengths = st.lists(st.integers(0, 700), max_size=60)


def numbered(texts: list[str], verbose: bool) -> dict[str, list[list[int]]]:
    """A tokenizer whose texts are numbers with spaces between them."""
    assert not verbose, "a warning that a text is longer than the model would mislead: it is cut"
    return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


def rows_of(sizes: Iterable[int]) -> list[list[int]]:
    """Rows of these lengths in which every id is another."""
    ids = itertools.count()
    return [[next(ids) for _ in range(size)] for size in sizes]


@given(lengths, st.one_of(st.none(), st.integers(1, 2000)), st.integers(1, 500))
def test_rows_are_the_first_ids_in_order_whatever_is_tokenised_at_once(sizes, most, characters):
    texts = [" ".join(map(str, row)) for row in rows_of(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_sums, "CHARACTERS", characters)
        found = list(read_rows(numbered, texts, most))
        assert list(itertools.chain.from_iterable(portions(texts))) == texts
    kept = [number for _, row in found for number in row]
    assert kept == list(range(sum(sizes)))[:most]
    assert [text for text, _ in found] == texts[: len(found)]
    if most is not None and sum(sizes) >= most:
        assert sum(sizes[: len(found)]) >= most > sum(sizes[: len(found) - 1]), "it reads as far as it need"
    else:
        assert len(found) == len(sizes)


def test_texts_are_read_as_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(key_sums, "CHARACTERS", 10)
    read = []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            read.append(number)
            yield f"{number} 0 0"

    rows = read_rows(numbered, endless())
    assert next(rows) == ("0 0 0", [0, 0, 0])
    assert len(read) == 2
    assert len(list(read_rows(numbered, endless(), 7))) == 3


@given(lengths, st.integers(1, 200), st.integers(1, 1500))
def test_every_id_is_in_one_piece_and_one_batch(sizes, width, pool):
    rows = rows_of(sizes)
    pieces = list(pieces_of(rows, width))
    assert [i for piece in pieces for i in piece] == [i for row in rows for i in row]
    assert all(1 <= len(piece) <= width for piece in pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_sums, "POOL", pool)
        pooled = list(pools(iter(pieces)))
    assert all(sum(map(len, one)) >= pool for one in pooled[:-1])
    assert all(one == sorted(one, key=len) for one in pooled)
    made = [batch for one in pooled for batch in batches(one, width)]
    kept = [tokens[positions >= 0] for tokens, positions in made]
    assert sorted(i for ids in kept for i in ids.tolist()) == list(range(sum(sizes)))
    for tokens, positions in made:
        columns, lengths = np.arange(tokens.shape[1]), np.sum(positions >= 0, axis=1, keepdims=True)
        np.testing.assert_array_equal(positions, np.where(columns < lengths, columns, -1))
        assert np.all((np.diff(tokens) == 1) | (columns[1:] >= lengths))


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=300))
def test_shapes_are_few_and_bounded(sizes):
    pool = sorted(rows_of(sizes), key=len)
    shapes = {tokens.shape for tokens, _ in batches(pool, 3000)}
    assert len(shapes) == len({width for _, width in shapes}), "the width alone says how many rows"
    assert all(width <= 3000 and rows * width <= max(key_sums.TOKENS, width) for rows, width in shapes)
    widths = {part << doubling for part in (4, 5, 6, 7) for doubling in range(10)} | {3000}
    assert {width for _, width in shapes} <= {width for width in widths if width % 4 == 0}


def test_little_of_a_batch_is_padding():
    """Also of few texts, which do not fill a batch of the shortest; the last batch may be empty but for one."""
    for n in (50, 500, 5000):
        sizes = np.random.default_rng(n).lognormal(4.0, 1.0, n).astype(int).clip(1, 384)
        padded = sum(tokens.size for tokens, _ in batches(sorted(rows_of(sizes), key=len), 384))
        assert padded < 1.25 * sum(sizes) + key_sums.TOKENS


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200))
def test_a_pair_loses_nothing_of_a_sum(terms):
    pair = Pair(jnp.zeros(1), jnp.zeros(1))
    for term in terms:
        pair = jax.jit(add_to)(pair, jnp.full(1, term))
    whole = float(np.float64(pair.total[0]) + np.float64(pair.rest[0]))
    assert whole == pytest.approx(math.fsum(terms), rel=1e-12, abs=1e-12 * sum(map(abs, terms)) + 1e-37)


def test_a_pair_keeps_what_float32_drops():
    pair = Pair(jnp.full((1, 1), 2.0**24), jnp.zeros((1, 1)))
    for _ in range(1000):
        pair = jax.jit(add_to)(pair, jnp.ones((1, 1)))
    assert float(pair.total[0, 0]) + float(pair.rest[0, 0]) == 2**24 + 1000
    assert mean_of(pair, 4) == np.float32(2**22 + 250)
