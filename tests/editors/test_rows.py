"""Facts as packed rows, read back as text; facts in groups of equal size."""

import jax
import numpy as np
import pytest

from packed import packed, unpacked
from prunejax.editors.facts import Fact, facts_of
from prunejax.editors.rows import fact_rows, grouped, stacked_rows
from prunejax.editors.shapes import covering, shape_of
from prunejax.editors.value import FactRows
from tiny import EDITS, TEMPLATES

R = len(TEMPLATES)


@pytest.fixture(scope="module")
def facts(tiny_model) -> list[Fact]:
    return facts_of(tiny_model.tokenizer, EDITS, TEMPLATES, 64)


@pytest.fixture(scope="module")
def rows(facts) -> FactRows:
    """All three requests together, with room to spare on every axis."""
    return fact_rows(facts, type(shape_of(facts))(*(size + 3 for size in shape_of(facts))))


def ids_of(rows: FactRows) -> list[list[int]]:
    read = unpacked(rows)
    return [ids[at >= 0].tolist() for ids, at in zip(read.tokens, read.positions, strict=True)]


def test_each_requests_contexts_and_then_its_kl_row(tiny_model, rows, facts):
    found, decode = ids_of(rows), tiny_model.tokenizer.decode
    assert len(found) == len(EDITS) * (R + 1)
    for number, (edit, fact) in enumerate(zip(EDITS, facts, strict=True)):
        *contexts, tail = found[number * (R + 1) : (number + 1) * (R + 1)]
        prompt = edit.prompt.format(edit.subject)
        for template, ids in zip(TEMPLATES, contexts, strict=True):
            assert decode([*ids, fact.labels[-1]]) == f"{template.format(prompt)} {edit.target_new}"
        assert decode(tail) == edit.subject


def test_positions_count_every_row_from_0_and_are_minus_1_in_none(rows):
    for places in unpacked(rows).positions:
        length = int((places >= 0).sum())
        assert length
        np.testing.assert_array_equal(places[:length], range(length))
    for tokens in (rows.prefix, rows.suffix):
        in_a_row = np.isin(np.arange(len(tokens.ids)), tokens.packing.slot)
        assert (tokens.positions[~in_a_row] == -1).all()
        assert (tokens.ids[~in_a_row] == 0).all()
        assert not in_a_row.all()


def test_first_is_where_the_subjects_last_tokens_stand(rows, facts):
    np.testing.assert_array_equal(rows.first, rows.suffix.packing.slot[:, 0])
    expected = [suffix[0] for fact in facts for suffix in fact.suffixes]
    np.testing.assert_array_equal(rows.suffix.ids[rows.first], expected)


def test_each_label_follows_the_token_that_is_read_for_it(rows, facts):
    read = unpacked(rows)
    for number, fact in enumerate(facts):
        mine = np.flatnonzero(rows.share[number])
        np.testing.assert_array_equal(rows.labels[mine], fact.labels * R)
        np.testing.assert_array_equal(read.row[mine], np.repeat(number * (R + 1) + np.arange(R), len(fact.labels)))
        for row, column, label in zip(read.row[mine], read.column[mine], rows.labels[mine], strict=True):
            following = np.append(read.tokens[row][read.positions[row] >= 0], fact.labels[-1])
            assert following[column + 1] == label


def test_shares_of_a_request_are_equal_and_sum_to_1(rows, facts):
    """Each is 1 / (contexts x labels): the mean over contexts of the mean over tokens."""
    np.testing.assert_allclose(rows.share.sum(axis=1), 1, rtol=1e-6)
    for number, fact in enumerate(facts):
        shares = rows.share[number][rows.share[number] > 0]
        np.testing.assert_allclose(shares, 1 / (R * len(fact.labels)), rtol=1e-6)
    assert ((rows.share > 0).sum(axis=0) <= 1).all(), "a label is one request's"


def test_the_kl_rows_are_read_at_their_only_token(rows):
    read = unpacked(rows)
    np.testing.assert_array_equal(read.row[rows.tail], np.arange(1, len(EDITS) + 1) * (R + 1) - 1)
    np.testing.assert_array_equal(read.column[rows.tail], read.subject_last[read.row[rows.tail]])
    assert (rows.share[:, rows.tail] == 0).all()


def test_what_is_read_has_a_grid_of_the_same_rows(rows):
    """A row of the reads' grid is the row of the prefixes' and the suffixes': attention is taken within it."""
    slot, read = rows.reads.packing.slot, unpacked(rows)
    assert slot.shape[0] == rows.prefix.packing.slot.shape[0] == rows.suffix.packing.slot.shape[0]
    for row, slots in enumerate(slot):
        asked = slots[slots < len(rows.labels)]
        assert len(asked)
        assert (read.row[asked] == row).all()
    taken = np.sort(slot[slot < len(rows.labels)])
    np.testing.assert_array_equal(
        taken, np.flatnonzero(rows.share.any(axis=0) | np.isin(np.arange(len(rows.labels)), rows.tail))
    )


def test_a_request_alone_has_the_same_rows(tiny_model, rows):
    """The other requests of a group change the room, never the content."""
    for number, alone in enumerate(packed(tiny_model, EDITS, TEMPLATES, 64)):
        assert ids_of(alone) == ids_of(rows)[number * (R + 1) : (number + 1) * (R + 1)]
        np.testing.assert_array_equal(alone.labels[alone.share[0] > 0], rows.labels[rows.share[number] > 0])


def test_a_shape_that_is_too_small_is_no_shape(facts):
    shape = shape_of(facts)
    for name in ("prefix", "suffix", "reads", "prefix_columns", "suffix_columns", "read_columns"):
        small = shape._replace(**{name: getattr(shape, name) // 2})
        with pytest.raises(ValueError, match=r"broadcast|do not fit into"):
            fact_rows(facts, small)


def test_stacked_rows_are_the_groups_in_one_shape(facts):
    groups = [facts[:2], facts[1:]]
    shape = covering([shape_of(group) for group in groups])
    stacked = stacked_rows(groups, shape)
    for number, group in enumerate(groups):
        for part, expected in zip(jax.tree.leaves(stacked), jax.tree.leaves(fact_rows(group, shape)), strict=True):
            np.testing.assert_array_equal(part[number], expected)


def of_length(length: int, number: int = 0) -> Fact:
    """A fact of so many suffix tokens in one context and the KL row's one."""
    return Fact(((), ()), ((number,) * (length - 1), (0,)), (1,), (0,))


LENGTHS = [3, 9, 4, 4, 12, 7, 5, 3, 8, 2, 6]


@pytest.mark.parametrize("tokens", [1, 5, 10, 16, 25, 40, 63, 1000])
@pytest.mark.parametrize("n", [1, 2, 5, len(LENGTHS)])
def test_groups_hold_every_fact_where_place_says(n, tokens):
    facts = [of_length(length, number) for number, length in enumerate(LENGTHS[:n])]
    groups, place = grouped(facts, tokens)
    flat = [fact for group in groups for fact in group]
    assert [flat[at] for at in place] == facts
    assert len(set(place.tolist())) == n
    assert len({len(group) for group in groups}) == 1
    extra = [fact for at, fact in enumerate(flat) if at not in place]
    shortest = min(sum(map(len, fact.suffixes)) for fact in facts)
    assert {sum(map(len, fact.suffixes)) for fact in extra} <= {shortest}
    assert len(extra) < len(groups)


def test_groups_are_about_as_many_as_the_tokens_ask_for_and_about_equally_long():
    facts = [of_length(length, number) for number, length in enumerate(LENGTHS)]
    total = sum(LENGTHS)
    assert len(grouped(facts, 1000)[0]) == 1
    assert len(grouped(facts, 1)[0]) == len(facts)
    for tokens in (11, 16, 21, 31):
        groups, _ = grouped(facts, tokens)
        assert len(groups) == round(total / tokens)
        sizes = [sum(len(suffix) for fact in group for suffix in fact.suffixes) for group in groups]
        assert max(sizes) - min(sizes) <= max(LENGTHS)
    groups, _ = grouped([of_length(length) for length in (9, 8, 7, 6, 5, 4, 3, 2)], 22)
    assert [sorted(sum(map(len, fact.suffixes)) for fact in group) for group in groups] == [[2, 5, 6, 9], [3, 4, 7, 8]]


def test_equal_facts_are_each_found():
    facts = [of_length(4)] * 3
    groups, place = grouped(facts, 6)
    assert [len(group) for group in groups] == [2, 2]
    assert len(set(place.tolist())) == 3
