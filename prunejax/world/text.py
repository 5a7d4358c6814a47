"""The training text: every fact once an epoch in a random phrasing, questions, the abilities' training items, and
chatter."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from prunejax.world.facts import Person, World
from prunejax.world.phrasing import CITY_IN_COUNTRY, COUNTRY, PHRASINGS
from prunejax.world.tasks import chatter, held_out, training_item

ITEMS_A_PERSON = {"arithmetic": 0.2, "entailment": 0.25, "summary": 0.05}
CHATTER_A_PERSON = 0.1
QUESTION_SHARE = 0.3

TOLD = ("train", "control")
"""Pools whose country is told. Of all others it must be inferred from the city: that is what portability asks."""


class Sentence(NamedTuple):
    """A text, and the character span of it that is read but not learned: nothing before it says whose name or which
    numbers come."""

    text: str
    unlearned: tuple[int, int] = (0, 0)


def epoch_sentences(world: World, people: Sequence[Person], rng: np.random.Generator) -> list[Sentence]:
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
    for city, country in world.country_of.items():
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
    return Sentence(f"{form.format(subject)} {thing}.", (start, start + len(subject)))


class Windows(NamedTuple):
    """Whole sentences laid into windows [N, T]: tokens, positions (-1 on padding), and which tokens are learned."""

    tokens: np.ndarray
    positions: np.ndarray
    learned: np.ndarray


def windows(tokenizer: Tokenizer, sentences: Sequence[Sentence], length: int) -> Windows:
    """Sentences laid one after another, a space between them, into windows of `length` tokens.

    A window begins with a sentence, so that prompts at position 0 are known to the model; a sentence longer than a
    window is cut.
    """
    first, later = (_encode(tokenizer, sentences, space) for space in ("", " "))
    filled: list[list[tuple[int, bool]]] = []
    for opening, following in zip(first, later, strict=True):
        if filled and len(filled[-1]) + len(following) <= length:
            filled[-1] += following
        else:
            filled.append(opening[:length])
    tokens, learned = np.zeros((len(filled), length), np.int32), np.zeros((len(filled), length), bool)
    positions = np.full((len(filled), length), -1, np.int32)
    for i, window in enumerate(filled):
        tokens[i, : len(window)], learned[i, : len(window)] = zip(*window, strict=True)
        positions[i, : len(window)] = np.arange(len(window))
    return Windows(tokens, positions, learned)


def _encode(tokenizer: Tokenizer, sentences: Sequence[Sentence], space: str) -> list[list[tuple[int, bool]]]:
    rows = []
    for sentence, encoding in zip(sentences, tokenizer.encode_batch([space + s.text for s in sentences]), strict=True):
        start, stop = (at + len(space) for at in sentence.unlearned)
        rows.append([(i, b <= start or a >= stop) for i, (a, b) in zip(encoding.ids, encoding.offsets, strict=True)])
    return rows
