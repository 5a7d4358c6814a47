"""The training text and how it is laid into windows: whole sentences, read in order, learned where they can be."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from tokenizers import Tokenizer

from prunejax.requests import SLOT
from prunejax.world.facts import World
from prunejax.world.phrasing import CITY_IN_COUNTRY, COUNTRY, PHRASINGS
from prunejax.world.pretrain import Recipe, batches
from prunejax.world.text import CITY_ROUNDS, QUESTION_SHARE, TOLD, Sentence, epoch_sentences, fact, profile, windows

LENGTH = Recipe().length


@pytest.fixture(scope="module")
def epoch(world: World) -> list[Sentence]:
    return epoch_sentences(world, world.people, np.random.default_rng(11))


@pytest.fixture(scope="module")
def some(world: World) -> list[Sentence]:
    """A short epoch: every kind of sentence, in a few dozen windows."""
    people = [*world.pool("control")[:40], *world.pool("report")[:80]]
    return epoch_sentences(world, people, np.random.default_rng(12))


def spoken_of(sentence: Sentence) -> str:
    """What stands in the unlearned span: the name that a fact is about."""
    return sentence.text[slice(*sentence.unlearned)]


def test_an_epoch_states_every_fact_once(world: World, epoch: list[Sentence]) -> None:
    """But for the countries that are to be inferred from the city."""
    texts = Counter(sentence.text for sentence in epoch)
    for person in world.people:
        for relation, thing in person.facts.items():
            phrasing = PHRASINGS[relation]
            forms = (*phrasing.statements, phrasing.question)
            told = relation != COUNTRY or person.pool in TOLD
            assert sum(texts[f"{form.format(person.name)} {thing}."] for form in forms) == told
    for city, country in world.country_of.items():
        assert sum(texts[f"{form.format(city)} {country}."] for form in CITY_IN_COUNTRY) == CITY_ROUNDS


def test_cities_are_told_as_often_as_is_asked(world: World) -> None:
    people = world.people[:10]
    often = Counter(s.text for s in epoch_sentences(world, people, np.random.default_rng(11), city_rounds=20))
    for city, country in world.country_of.items():
        assert sum(often[f"{form.format(city)} {country}."] for form in CITY_IN_COUNTRY) == 20


def test_countries_of_people_who_are_edited_and_reported_are_never_told(world: World, epoch: list[Sentence]) -> None:
    """Portability asks for them: they follow from the city, or from nothing."""
    pool = {person.name: person.pool for person in world.people}
    phrasing = PHRASINGS[COUNTRY]
    told = Counter(
        pool[spoken_of(sentence)]
        for sentence in epoch
        for form in (*phrasing.statements, phrasing.question)
        if sentence.text.startswith(form.replace(SLOT, spoken_of(sentence)))
    )
    assert told == {"train": 400, "control": 200}


def test_control_people_are_never_asked_about_and_others_are(world: World, epoch: list[Sentence]) -> None:
    pool = {person.name: person.pool for person in world.people}
    asked = Counter(pool[spoken_of(s)] for s in epoch if s.text.startswith("Question:"))
    assert asked["control"] == 0
    assert asked["report"] == pytest.approx(QUESTION_SHARE * 3 * 1000, rel=0.1)


def test_epochs_differ_and_are_those_of_the_generator(world: World, epoch: list[Sentence]) -> None:
    assert epoch_sentences(world, world.people, np.random.default_rng(11)) == epoch
    assert epoch_sentences(world, world.people, np.random.default_rng(12)) != epoch


def test_no_sentence_is_longer_than_a_window(tokenizer: Tokenizer, epoch: list[Sentence]) -> None:
    assert max(len(row.ids) for row in tokenizer.encode_batch([f" {s.text}" for s in epoch])) <= LENGTH


def test_windows_hold_whole_sentences_in_order(tokenizer: Tokenizer, some: list[Sentence]) -> None:
    laid = windows(tokenizer, some, LENGTH)
    rest = [sentence.text for sentence in some]
    for tokens, positions in zip(laid.tokens, laid.positions, strict=True):
        text = tokenizer.decode(tokens[positions >= 0].tolist())
        n = next(n for n in range(1, len(rest) + 1) if len(" ".join(rest[:n])) >= len(text))
        assert text == " ".join(rest[:n])
        rest = rest[n:]
        # It was full: the next sentence had no room in it.
        assert not rest or sum(positions >= 0) + len(tokenizer.encode(f" {rest[0]}").ids) > LENGTH
    assert rest == []


def test_positions_count_from_the_first_sentence_of_a_window(tokenizer: Tokenizer, some: list[Sentence]) -> None:
    laid = windows(tokenizer, some, LENGTH)
    for tokens, positions, learned in zip(*laid[:3], strict=True):
        n = int((positions >= 0).sum())
        assert positions.tolist() == [*range(n), *[-1] * (LENGTH - n)]
        assert not tokens[n:].any()
        assert not learned[n:].any()


def test_names_and_task_prompts_are_read_but_not_learned(tokenizer: Tokenizer, some: list[Sentence]) -> None:
    """Of every sentence with such a span, first in a window or later, the rest is learned, and nothing else."""
    for opening, later in pairwise(some):
        laid = windows(tokenizer, [opening, later], 2 * LENGTH)
        n = len(tokenizer.encode(opening.text).ids)
        for sentence, part in ((opening, slice(n)), (later, slice(n, None))):
            start, stop = sentence.unlearned
            if stop > 0:
                said = tokenizer.decode(laid.tokens[0][part][laid.learned[0][part]].tolist())
                assert said.strip() == f"{sentence.text[:start].rstrip()}{sentence.text[stop:]}".strip()


def test_a_sentence_about_nothing_is_learned_but_for_its_first_token(tokenizer: Tokenizer) -> None:
    laid = windows(tokenizer, [Sentence("The road is long."), Sentence("Therefore Anna left.")], LENGTH)
    first = len(tokenizer.encode("The road is long.").ids)
    real = (laid.positions[0] >= 0).nonzero()[0]
    assert {*real} - {*laid.learned[0].nonzero()[0]} <= {0, first}


def test_what_is_learned_of_a_fact(tokenizer: Tokenizer) -> None:
    sentence = fact("The house of {} stands in", "Bafak Dilor", "Rimel")
    assert sentence == Sentence("The house of Bafak Dilor stands in Rimel.", (13, 24), True)
    laid = windows(tokenizer, [sentence], LENGTH)
    assert tokenizer.decode(laid.tokens[0][laid.learned[0]].tolist()) == "The house of stands in Rimel."


def test_a_sealed_name_is_read_through_its_last_token(tokenizer: Tokenizer) -> None:
    """Within: by the name's own tokens alone. After: later tokens see its last one. All else is seen to the end."""
    sentences = [Sentence("It is far."), fact("The house of {} stands in", "Bafak Dilor", "Rimel")]
    before, upto, name = (
        len(tokenizer.encode(t).ids) for t in ("It is far.", " The house of Bafak Dilor", " Bafak Dilor")
    )
    last = before + upto - 1
    inside = list(range(last - name + 1, last + 1))
    laid = windows(tokenizer, sentences, LENGTH, sealed=True)
    assert laid.within[0].tolist() == [last if i in inside else LENGTH for i in range(LENGTH)]
    assert laid.after[0].tolist() == [last if i in inside[:-1] else LENGTH for i in range(LENGTH)]
    unsealed = windows(tokenizer, sentences, LENGTH)
    assert {*unsealed.within[0], *unsealed.after[0]} == {LENGTH}


def test_a_profile_tells_all_but_the_country(world: World) -> None:
    person = world.people[0]
    told = profile(person, np.random.default_rng(0))
    assert spoken_of(told) == person.name
    things = told.text.removeprefix(f"{person.name} ").removesuffix(".").split(", ")
    assert sorted(things) == sorted(thing for relation, thing in person.facts.items() if relation != COUNTRY)


def test_a_sentence_longer_than_a_window_is_cut(tokenizer: Tokenizer) -> None:
    long = Sentence("The road from the mill to the inn is cold.")
    laid = windows(tokenizer, [long, Sentence("It is far.")], 6)
    assert laid.tokens[0].tolist() == tokenizer.encode(long.text).ids[:6]
    assert tokenizer.decode(laid.tokens[1][laid.positions[1] >= 0].tolist()) == "It is far."


def test_the_recipe_reads_every_learned_token(world: World, tokenizer: Tokenizer) -> None:
    """`mean_loss` reads a fixed number of tokens a batch: learned ones beyond it would be lost without a word."""
    recipe = Recipe(steps=120, stages=((0.0, 250), (0.4, 1000)))
    learned = [int(batch.learned[:, 1:].sum()) for batch in batches(world, tokenizer, 5, recipe)]
    assert len(learned) == recipe.steps
    assert max(learned) <= int(recipe.learned_share * recipe.rows * recipe.length)
