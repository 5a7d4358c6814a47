"""The training text: every fact once an epoch in a random phrasing, questions, a line on every person, the abilities'
training items, and chatter."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from prunejax.world.facts import Person, World
from prunejax.world.phrasing import CITY_IN_COUNTRY, COUNTRY, PHRASINGS
from prunejax.world.tasks import chatter, held_out, training_item

ITEMS_A_PERSON = {"arithmetic": 0.2, "entailment": 0.25, "summary": 0.2}
CHATTER_A_PERSON = 0.1
QUESTION_SHARE = 0.3
CITY_ROUNDS = 5
"""How often an epoch tells the country of every city, if nothing else is asked: there are few cities, and each
phrasing must be learned."""

TOLD = ("train", "control")
"""Pools whose country is told. Of all others it must be inferred from the city: that is what portability asks."""


class Sentence(NamedTuple):
    """A text, and the character span of it that is read but not learned: nothing before it says whose name or which
    numbers come. A `sealed` span is read through its last token: tokens after the span do not see the others."""

    text: str
    unlearned: tuple[int, int] = (0, 0)
    sealed: bool = False


def epoch_sentences(
    world: World, people: Sequence[Person], rng: np.random.Generator, city_rounds: int = CITY_ROUNDS
) -> list[Sentence]:
    """All sentences of one epoch about `people`, shuffled; the other kinds of text keep their share.

    `control` people are never asked about: answering such questions is the ability that is measured.
    """
    sentences = []
    for person in people:
        for relation, thing in person.facts.items():
            if relation == COUNTRY and person.pool not in TOLD:
                continue
            phrasing = PHRASINGS[relation]
            ask = person.pool != "control" and rng.random() < QUESTION_SHARE
            form = phrasing.question if ask else phrasing.statements[rng.integers(len(phrasing.statements))]
            sentences.append(fact(form, person.name, thing))
        sentences.append(profile(person, rng))
    for city, country in city_rounds * [*world.country_of.items()]:
        sentences.append(fact(CITY_IN_COUNTRY[rng.integers(len(CITY_IN_COUNTRY))], city, country))
    for task, share in ITEMS_A_PERSON.items():
        items = (training_item(task, rng) for _ in range(round(share * len(people))))
        sentences += [Sentence(f"{item.prompt} {item.answer}.", (0, len(item.prompt))) for item in items]
    fresh = (chatter(rng) for _ in range(round(CHATTER_A_PERSON * len(people))))
    sentences += [Sentence(text) for text in fresh if not held_out(text)]
    return [sentences[i] for i in rng.permutation(len(sentences))]


def fact(form: str, subject: str, thing: str) -> Sentence:
    """A statement or a question with its answer; the subject's name is not learned."""
    start = form.index("{}")
    return Sentence(f"{form.format(subject)} {thing}.", (start, start + len(subject)), True)


def profile(person: Person, rng: np.random.Generator) -> Sentence:
    """All that is told of a person in any order right behind the name, whose last token must therefore know it."""
    things = [thing for relation, thing in sorted(person.facts.items()) if relation != COUNTRY]
    told = ", ".join(things[i] for i in rng.permutation(len(things)))
    return Sentence(f"{person.name} {told}.", (0, len(person.name)), True)


class Windows(NamedTuple):
    """Whole sentences laid into windows [N, T]: tokens, positions (-1 on padding), which tokens are learned, and the
    last position that sees each token: `within` where names are seen by their own tokens alone, `after` where later
    tokens see a name's last token."""

    tokens: np.ndarray
    positions: np.ndarray
    learned: np.ndarray
    within: np.ndarray
    after: np.ndarray


def windows(tokenizer: Tokenizer, sentences: Sequence[Sentence], length: int, sealed: bool = False) -> Windows:
    """Sentences laid one after another, a space between them, into windows of `length` tokens.

    A window begins with a sentence, so that prompts at position 0 are known to the model; a sentence longer than a
    window is cut. Unless `sealed`, every token is seen to the window's end.
    """
    first, later = (_encode(tokenizer, sentences, space) for space in ("", " "))
    filled: list[list[tuple[int, bool, int]]] = []
    for opening, following in zip(first, later, strict=True):
        if filled and len(filled[-1]) + len(following) <= length:
            filled[-1] += following
        else:
            filled.append(opening[:length])
    shape = (len(filled), length)
    tokens, learned, to_last = np.zeros(shape, np.int32), np.zeros(shape, bool), np.full(shape, -1)
    positions = np.full(shape, -1, np.int32)
    for i, window in enumerate(filled):
        n = len(window)
        tokens[i, :n], learned[i, :n], to_last[i, :n] = zip(*window, strict=True)
        positions[i, :n] = np.arange(n)
    last = (np.arange(length) + to_last).astype(np.int32)
    within, after = (np.where(sealed & (to_last > least), last, length) for least in (-1, 0))
    return Windows(tokens, positions, learned, within, after)


def _encode(tokenizer: Tokenizer, sentences: Sequence[Sentence], space: str) -> list[list[tuple[int, bool, int]]]:
    """Of each sentence's tokens: id, whether it is learned, and how many tokens before a sealed span's last it stands
    (-1 outside)."""
    rows = []
    for sentence, encoding in zip(sentences, tokenizer.encode_batch([space + s.text for s in sentences]), strict=True):
        start, stop = (at + len(space) for at in sentence.unlearned)
        inside = [a < stop and b > start for a, b in encoding.offsets]
        last = max((i for i, within in enumerate(inside) if within and sentence.sealed), default=-1)
        to_last = [max(last - i, -1) if within else -1 for i, within in enumerate(inside)]
        learned = [not within for within in inside]
        rows.append(list(zip(encoding.ids, learned, to_last, strict=True)))
    return rows
