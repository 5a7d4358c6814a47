"""A request in tokens, read back as text: what is before the subject's last token, what from it on, what follows."""

from dataclasses import replace

import pytest

from prunejax.editors.facts import Fact, facts_of
from prunejax.errors import InputError
from prunejax.requests import EditRequest
from tiny import EDITS, TEMPLATES


@pytest.fixture(scope="module")
def facts(tiny_model) -> list[Fact]:
    return facts_of(tiny_model.tokenizer, EDITS, TEMPLATES, 64)


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_every_context_with_the_prompt_and_the_target_but_its_last_token(tiny_model, facts, number):
    edit, fact, decode = EDITS[number], facts[number], tiny_model.tokenizer.decode
    assert decode(fact.labels) == f" {edit.target_new}"
    assert len(fact.prefixes) == len(fact.suffixes) == len(fact.offsets) + 1 == len(TEMPLATES) + 1
    for r, template in enumerate(TEMPLATES):
        before, after = fact.prefixes[r], fact.suffixes[r]
        text = template.replace("{}", edit.prompt.replace("{}", edit.subject))
        assert decode([*before, *after, fact.labels[-1]]) == f"{text} {edit.target_new}"
        subject_ends = text.index(edit.subject) + len(edit.subject)
        assert decode([*before, after[0]]) == text[:subject_ends]
        following = [*after, fact.labels[-1]][fact.offsets[r] + 1 :]
        assert following == list(fact.labels)


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_the_last_row_ends_at_the_subject_of_the_subject_is_a(tiny_model, facts, number):
    """What follows the subject is not read: the distribution that is kept stands at its last token."""
    before, after = facts[number].prefixes[-1], facts[number].suffixes[-1]
    assert len(after) == 1
    assert tiny_model.tokenizer.decode([*before, *after]) == EDITS[number].subject


def test_a_request_alone_is_the_same_fact(tiny_model, facts):
    for edit, fact in zip(EDITS, facts, strict=True):
        assert facts_of(tiny_model.tokenizer, [edit], TEMPLATES, 64) == [fact]


def test_one_token_after_a_subject_that_ends_the_prompt(tiny_model):
    """The smallest request: the label is predicted at the subject itself."""
    request = EditRequest("1", "This is {}", "Rome", "Rome")
    (fact,) = facts_of(tiny_model.tokenizer, [request], ["{}"], 64)
    assert fact.offsets == (0,)
    assert [len(suffix) for suffix in fact.suffixes] == [1, 1]


def test_a_subject_of_one_token_has_nothing_before_it(tiny_model):
    request = EditRequest("1", "{} is", "B", "Paris")
    (fact,) = facts_of(tiny_model.tokenizer, [request], ["{}"], 64)
    assert fact.prefixes == ((), ())
    assert [tiny_model.tokenizer.decode(suffix[0]) for suffix in fact.suffixes] == ["B", "B"]


@pytest.mark.parametrize("context", ["I think that. {}", "I think { that }. {}"])
def test_braces_of_a_prompt_and_of_a_context_stay(tiny_model, context):
    request = EditRequest("1", "A {{ set }} of {} is", "France", "Rome")
    (fact,) = facts_of(tiny_model.tokenizer, [request], ["{}", context], 64)
    text = tiny_model.tokenizer.decode([*fact.prefixes[1], *fact.suffixes[1]])
    assert text.startswith(f"{context[:-2]}A {{{{ set }}}} of France is")


@pytest.mark.parametrize("contexts", [[], ["I think that. {}"], ["I think that. {}", "{}"]])
def test_the_first_context_is_the_bare_prompt(tiny_model, contexts):
    with pytest.raises(InputError, match="the first template must be the bare prompt"):
        facts_of(tiny_model.tokenizer, EDITS, contexts, 64)


def test_a_row_longer_than_the_model_reads(tiny_model, facts):
    width = max(
        len(before) + len(after) for fact in facts for before, after in zip(fact.prefixes, fact.suffixes, strict=True)
    )
    assert facts_of(tiny_model.tokenizer, EDITS, TEMPLATES, width) == facts
    with pytest.raises(InputError, match=f"has {width} tokens, the model has {width - 1} positions"):
        facts_of(tiny_model.tokenizer, EDITS, TEMPLATES, width - 1)


def test_the_whole_of_the_kl_row_counts_as_its_length(tiny_model):
    """It is not read to its end, but a subject that it does not fit with is refused as before."""
    request = EditRequest("1", "{}", "Rome", "a")
    width = len(tiny_model.tokenizer("Rome is a")["input_ids"])
    assert len(tiny_model.tokenizer("Rome a")["input_ids"]) - 1 < width
    facts_of(tiny_model.tokenizer, [request], ["{}"], width)
    with pytest.raises(InputError, match=f"has {width} tokens"):
        facts_of(tiny_model.tokenizer, [request], ["{}"], width - 1)


def test_a_context_after_which_the_target_is_other_tokens(tiny_model):
    edit = replace(EDITS[0], case_id="the case")
    with pytest.raises(InputError, match="request the case: the target has other tokens after some contexts"):
        facts_of(tiny_model.tokenizer, [edit], ["{}", "{}\n"], 64)
