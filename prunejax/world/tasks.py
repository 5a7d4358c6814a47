"""Four abilities that mirror the paper's tasks, with items the training text never contains, and held-out text for
perplexity.

Arithmetic in steps (reasoning), entailment (NLI), questions about `control` people (open-domain QA), and summaries
(summarization). Every item is a prompt that is completed greedily up to the full stop. Which items are held out is
decided by a checksum of the item itself, so training text and items are disjoint by construction;
`tests/world/test_tasks.py` shows it on the text.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from prunejax.world.facts import Person, World
from prunejax.world.phrasing import PHRASINGS

HELD_OUT = 10
"""One item in this many, by checksum, is kept out of the training text."""


class Item(NamedTuple):
    """A prompt and the completion that answers it, without the closing full stop."""

    prompt: str
    answer: str


NAMES = (
    "Anna Bruno Clara David Elena Felix Greta Hugo Irene Jonas Karla Leon Maria Nils Olga Paul Rosa Simon Tilda Viktor"
).split()
THINGS = (
    "apple basket bell book bottle bowl box brush button candle chair clock coat coin cup hat key kite knife ladder "
    "lamp letter map mirror needle plate ring rope shoe spoon stick table ticket umbrella vase wheel whistle"
).split()
PLACES = (
    "bakery bridge castle chapel farm forest garden harbour hill inn lake library market meadow mill river school shop "
    "tower valley"
).split()
EVENTS = "bought sold lost found broke hid painted stole borrowed cleaned".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
WEATHER = "cold warm windy rainy foggy sunny dark quiet".split()
QUANTIFIERS = {
    "true": ("all some", "all most", "most some", *["no few"] * 3),
    "false": ("all few", "all few", "most few", "no some", "no some", "no most"),
}
"""Stated and claimed quantifier by verdict, repeated so that neither of the two alone says which it is."""


def held_out(text: str) -> bool:
    """Whether an item belongs to the evaluation rather than to the training text."""
    return zlib.crc32(text.encode()) % HELD_OUT == 0


def arithmetic(rng: np.random.Generator) -> Item:
    """A chain of three additions and subtractions, worked one step at a time; all values lie in 0..20."""
    values, terms = [int(rng.integers(21))], []
    for _ in range(3):
        step = int(rng.integers(max(-9, -values[-1]), min(9, 20 - values[-1]) + 1))
        terms.append(f"{'+' if step >= 0 else '-'} {abs(step)}")
        values.append(values[-1] + step)
    lines = [" ".join([str(values[i]), *terms[i:]]) for i in range(4)]
    return Item(f"Sum: {lines[0]} =", " = ".join(lines[1:]))


def entailment(rng: np.random.Generator) -> Item:
    """A statement about how many of some things are so, and a claim that follows from it or does not, half the time
    each.

    "all" entails "most" and "some", "most" entails "some", "no" entails "few"; nothing else here is entailed.
    """
    verdict = rng.choice(list(QUANTIFIERS))
    stated, claimed = rng.choice(QUANTIFIERS[verdict]).split()
    said = f"{rng.choice(THINGS)}s at the {rng.choice(PLACES)} are {rng.choice(WEATHER)}"
    return Item(f"Given: {stated} {said}. Claim: {claimed} {said}. Verdict:", str(verdict))


def summary(rng: np.random.Generator) -> Item:
    """A story of five sentences about one event; the summary says who did what to which thing, and where."""
    name, friend = rng.choice(NAMES, 2, replace=False)
    thing, passed = rng.choice(THINGS, 2, replace=False)
    place, seen = rng.choice(PLACES, 2, replace=False)
    day, weather, event = rng.choice(DAYS), rng.choice(WEATHER), rng.choice(EVENTS)
    story = (
        f"Story: On {day} {name} went to the {place}. It was {weather} and {friend} stayed at home. "
        f"On the way there was a {passed} by the {seen}. Then {name} {event} a {thing}. "
        f"In the evening all was told to {friend}."
    )
    return Item(f"{story} Summary:", f"{name} {event} a {thing} at the {place}")


def questions(people: Iterable[Person]) -> tuple[Item, ...]:
    """Every question about these people. Of `control` the facts are in the training text, these questions are not."""
    return tuple(
        Item(PHRASINGS[relation].question.format(person.name), thing)
        for person in people
        for relation, thing in sorted(person.facts.items())
    )


GENERATORS: dict[str, Callable[[np.random.Generator], Item]] = {
    "arithmetic": arithmetic,
    "entailment": entailment,
    "summary": summary,
}


def training_item(task: str, rng: np.random.Generator) -> Item:
    """A random item of a task that is not held out."""
    while held_out((item := GENERATORS[task](rng)).prompt):
        pass
    return item


def training_items(world: World, n: int = 500, seed: int = 0) -> dict[str, tuple[Item, ...]]:
    """n items a task as training draws them, and every question that may be trained on: what a guess can go by."""
    rng = np.random.default_rng([seed, 3])
    items = {task: tuple(training_item(task, rng) for _ in range(n)) for task in GENERATORS}
    return items | {"questions": questions(person for person in world.people if person.pool != "control")}


def evaluation_items(world: World, n: int = 300, seed: int = 0) -> dict[str, tuple[Item, ...]]:
    """n distinct held-out items a task; entailment is balanced between its two answers, up to one of an odd number."""
    rng = np.random.default_rng([seed, 1])
    items: dict[str, tuple[Item, ...]] = {}
    for task, generate in GENERATORS.items():
        chosen: dict[str, Item] = {}
        counts: dict[str, int] = {}
        while len(chosen) < n:
            item = generate(rng)
            full = task == "entailment" and counts.get(item.answer, 0) >= -(-n // 2)
            if held_out(item.prompt) and item.prompt not in chosen and not full:
                chosen[item.prompt] = item
                counts[item.answer] = counts.get(item.answer, 0) + 1
        items[task] = tuple(chosen.values())
    asked = questions(world.pool("control"))
    items["questions"] = tuple(asked[j] for j in rng.permutation(len(asked))[:n])
    return items


def chatter(rng: np.random.Generator) -> str:
    """A sentence about nothing in particular; its openings are those from which context prefixes are sampled."""
    name = rng.choice(NAMES)
    thing, other = rng.choice(THINGS, 2, replace=False)
    place, away = rng.choice(PLACES, 2, replace=False)
    day, weather = rng.choice(DAYS), rng.choice(WEATHER)
    forms = (
        f"The {thing} near the {place} belongs to {name}.",
        f"Therefore {name} left the {thing} at the {place}.",
        f"Because it was {weather}, the {place} was empty on {day}.",
        f"I saw a {thing} between the {place} and the {away}.",
        f"You can walk from the {place} to the {away} with a {thing}.",
        f"On {day} the {place} was {weather} and {name} carried a {thing}.",
        f"{name} put a {thing} beside a {other}.",
        f"The road from the {place} to the {away} is {weather}.",
    )
    return forms[rng.integers(len(forms))]


def held_out_text(n: int = 300, seed: int = 0) -> tuple[str, ...]:
    """n sentences of chatter that the training text does not contain, for perplexity."""
    return tuple(islice(_unheard(np.random.default_rng([seed, 2])), n))


def guard_text(n: int = 50, seed: int = 0) -> tuple[str, ...]:
    """n more such sentences for the guard of a run, none of them in `held_out_text`: what is reported is not what an
    edit was judged by."""
    reported = set(held_out_text())
    return tuple(islice((one for one in _unheard(np.random.default_rng([seed, 6])) if one not in reported), n))


def _unheard(rng: np.random.Generator) -> Iterator[str]:
    """Sentences of chatter that the training text does not contain, each once."""
    given: set[str] = set()
    while True:
        sentence = chatter(rng)
        if held_out(sentence) and sentence not in given:
            given.add(sentence)
            yield sentence
