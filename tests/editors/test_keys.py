"""The rows of an edit, read back as text: what stands in each, where the key lies, which column predicts what."""

from dataclasses import replace

import numpy as np
import pytest

from prunejax.editors.keys import fact_rows
from prunejax.editors.value import FactRows
from prunejax.errors import InputError
from prunejax.requests import EditRequest
from tiny import EDITS, TEMPLATES


@pytest.fixture(scope="module")
def rows(tiny_model) -> list[FactRows]:
    return fact_rows(tiny_model.tokenizer, EDITS, TEMPLATES, 64)


def read(tokens: np.ndarray, positions: np.ndarray) -> list[int]:
    """A row's ids without its padding, which stands on the right."""
    length = int((positions >= 0).sum())
    np.testing.assert_array_equal(positions, [*range(length), *[-1] * (len(positions) - length)])
    return tokens[:length].tolist()


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_every_context_with_the_prompt_and_the_target_but_its_last_token(tiny_model, rows, number):
    edit, packed = EDITS[number], rows[number]
    target = packed.labels[packed.label_mask].tolist()
    assert tiny_model.tokenizer.decode(target) == f" {edit.target_new}"
    for r, template in enumerate(TEMPLATES):
        ids = read(packed.tokens[r], packed.positions[r])
        text = template.replace("{}", edit.prompt.replace("{}", edit.subject))
        assert tiny_model.tokenizer.decode([*ids, target[-1]]) == f"{text} {edit.target_new}"
        subject_ends = text.index(edit.subject) + len(edit.subject)
        assert tiny_model.tokenizer.decode(ids[: packed.subject_last[r] + 1]) == text[:subject_ends]
        following = [*ids, target[-1]]
        read_at = packed.subject_last[r] + packed.label_offset[r][packed.label_mask]
        assert [following[column + 1] for column in read_at] == target


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_the_last_row_is_the_subject_is_a(tiny_model, rows, number):
    packed, subject = rows[number], EDITS[number].subject
    ids = read(packed.tokens[-1], packed.positions[-1])
    assert tiny_model.tokenizer.decode(ids) == f"{subject} is a"
    assert tiny_model.tokenizer.decode(ids[: packed.subject_last[-1] + 1]) == subject


def test_all_requests_have_one_shape(rows):
    """Or each would compile its own program."""
    shapes = [[(array.shape, array.dtype) for array in packed] for packed in rows]
    assert shapes[0] == shapes[1] == shapes[2]
    assert rows[0].tokens.shape[0] == len(TEMPLATES) + 1


def test_the_suffix_holds_every_label_and_no_more(rows):
    farthest = max(int(packed.label_offset.max()) for packed in rows)
    assert len(rows[0].suffix) == farthest + 1


def test_a_request_alone_has_its_own_rows(tiny_model, rows):
    """The other requests of a sequence change the room, never the content."""
    (alone,) = fact_rows(tiny_model.tokenizer, EDITS[:1], TEMPLATES, 64)
    assert alone.tokens.shape[1] < rows[0].tokens.shape[1]
    for r in range(len(TEMPLATES) + 1):
        assert read(alone.tokens[r], alone.positions[r]) == read(rows[0].tokens[r], rows[0].positions[r])
    np.testing.assert_array_equal(alone.subject_last, rows[0].subject_last)


def test_one_token_after_a_subject_that_ends_the_prompt(tiny_model):
    """The smallest request: the label is predicted at the subject itself."""
    request = EditRequest("1", "This is {}", "Rome", "Rome")
    (packed,) = fact_rows(tiny_model.tokenizer, [request], ["{}"], 64)
    np.testing.assert_array_equal(packed.label_offset, [[0]])
    assert packed.suffix.shape == (1,)


def test_braces_of_a_prompt_stay(tiny_model):
    request = EditRequest("1", "A {{ set }} of {} is", "France", "Rome")
    packed = fact_rows(tiny_model.tokenizer, [request], TEMPLATES, 64)[0]
    text = tiny_model.tokenizer.decode(read(packed.tokens[1], packed.positions[1]))
    assert text.startswith("I think that. A {{ set }} of France is")


@pytest.mark.parametrize("contexts", [[], ["I think that. {}"], ["I think that. {}", "{}"]])
def test_the_first_context_is_the_bare_prompt(tiny_model, contexts):
    with pytest.raises(InputError, match="the first template must be the bare prompt"):
        fact_rows(tiny_model.tokenizer, EDITS, contexts, 64)


def test_a_row_longer_than_the_model_reads(tiny_model, rows):
    width = rows[0].tokens.shape[1]
    fact_rows(tiny_model.tokenizer, EDITS, TEMPLATES, width)
    with pytest.raises(InputError, match=f"has {width} tokens, the model has {width - 1} positions"):
        fact_rows(tiny_model.tokenizer, EDITS, TEMPLATES, width - 1)


def test_a_context_after_which_the_target_is_other_tokens(tiny_model):
    edit = replace(EDITS[0], case_id="the case")
    with pytest.raises(InputError, match="request the case: the target has other tokens after some contexts"):
        fact_rows(tiny_model.tokenizer, [edit], ["{}", "{}\n"], 64)
