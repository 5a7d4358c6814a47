"""The abilities: items with exact answers, none of which the training text contains, and what guessing is worth."""

import re

import numpy as np
import pytest
from tokenizers import Tokenizer

from prunejax.evaluate.abilities import ability_baselines
from prunejax.sources import WORLD_FOLDER
from prunejax.world.facts import World, load_world, make_world
from prunejax.world.phrasing import PHRASINGS
from prunejax.world.pretrain import Recipe
from prunejax.world.tasks import (
    GENERATORS,
    QUANTIFIERS,
    Item,
    chatter,
    evaluation_items,
    held_out,
    held_out_text,
    questions,
    training_item,
    training_items,
)
from prunejax.world.text import Sentence, epoch_sentences

TASKS = ("arithmetic", "entailment", "questions", "summary")
SEEDS = ([0, 3], [0, 4], 0)
"""Of the epochs that are searched; the last is what the tokenizer is trained on."""


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(0)


@pytest.fixture(scope="module")
def items(world: World) -> dict[str, tuple[Item, ...]]:
    return evaluation_items(world)


@pytest.fixture(scope="module")
def training(world: World) -> list[Sentence]:
    return [s for seed in SEEDS for s in epoch_sentences(world, world.people, np.random.default_rng(seed))]


@pytest.fixture(scope="module")
def training_text(training: list[Sentence]) -> str:
    """As a window joins it, so that nothing hides across two sentences."""
    return " ".join(sentence.text for sentence in training)


def test_every_task_has_300_distinct_items(items: dict[str, tuple[Item, ...]]) -> None:
    assert sorted(items) == sorted(TASKS)
    for of_task in items.values():
        assert len({item.prompt for item in of_task}) == len(of_task) == 300
        assert all("." not in item.answer and item.answer == item.answer.strip() for item in of_task)


def test_items_are_the_same_every_time(world: World, items: dict[str, tuple[Item, ...]]) -> None:
    assert evaluation_items(load_world(WORLD_FOLDER / "world.json")) == items
    assert evaluation_items(world, seed=1)["arithmetic"] != items["arithmetic"]


def test_entailment_is_balanced(items: dict[str, tuple[Item, ...]]) -> None:
    answers = [item.answer for item in items["entailment"]]
    assert sorted(set(answers)) == ["false", "true"]
    assert answers.count("true") == 150


def test_an_odd_number_of_items_is_nearly_balanced(world: World) -> None:
    answers = [item.answer for item in evaluation_items(world, 25)["entailment"]]
    assert len(answers) == 25
    assert abs(answers.count("true") - answers.count("false")) == 1


def test_neither_quantifier_alone_tells_the_verdict() -> None:
    pairs = {verdict: [pair.split() for pair in pairs] for verdict, pairs in QUANTIFIERS.items()}
    for side in (0, 1):
        counts = [sorted(pair[side] for pair in of_verdict) for of_verdict in pairs.values()]
        assert counts[0] == counts[1]


def worked(prompt: str) -> str:
    """The steps of "Sum: a + b - c ... =", each with its first sum done."""
    terms, lines = prompt.removeprefix("Sum: ").removesuffix(" =").split(), []
    while len(terms) > 1:
        first, sign, second, *rest = terms
        terms = [str(int(first) + (int(second) if sign == "+" else -int(second))), *rest]
        lines.append(" ".join(terms))
    return " = ".join(lines)


def test_arithmetic_answers_are_exact(items: dict[str, tuple[Item, ...]]) -> None:
    for item in items["arithmetic"]:
        assert item.answer == worked(item.prompt)
        assert item.answer.count("=") == 2
        assert all(0 <= int(number) <= 20 for number in re.findall(r"\d+", item.prompt + item.answer))


FOLLOWS = {"all": ("most", "some"), "most": ("some",), "no": ("few",)}
"""What follows from how many of some things are so; there is at least one of everything."""


def test_entailment_answers_are_exact(items: dict[str, tuple[Item, ...]]) -> None:
    for item in items["entailment"]:
        stated, said, claimed, again = re.fullmatch(
            r"Given: (\w+) (.+)\. Claim: (\w+) (.+)\. Verdict:", item.prompt
        ).groups()
        assert again == said
        assert item.answer == ("true" if claimed in FOLLOWS.get(stated, ()) else "false")
        assert claimed != stated


def test_summaries_say_what_the_story_says(items: dict[str, tuple[Item, ...]]) -> None:
    for item in items["summary"]:
        (name, place) = re.search(r"On \w+ (\w+) went to the (\w+)\.", item.prompt).groups()
        event = re.search(rf"Then {name} (\w+ a \w+)\.", item.prompt)[1]
        assert item.answer == f"{name} {event} at the {place}"


def test_questions_ask_about_control_people(world: World, items: dict[str, tuple[Item, ...]]) -> None:
    known = {
        PHRASINGS[relation].question.format(person.name): thing
        for person in world.people
        if person.pool == "control"
        for relation, thing in person.facts.items()
    }
    assert dict(questions(world.pool("control"))) == known
    assert dict(items["questions"]).items() <= known.items()


def test_no_item_and_no_control_question_is_in_the_training_text(
    world: World, items: dict[str, tuple[Item, ...]], training_text: str
) -> None:
    prompts = {item.prompt for of_task in items.values() for item in of_task} | dict(
        questions(world.pool("control"))
    ).keys()
    assert [prompt for prompt in prompts if prompt in training_text] == []


def test_the_search_would_find_a_training_item(training: list[Sentence], training_text: str) -> None:
    prompts = [s.text[: s.unlearned[1]] for s in training if s.text.startswith(("Sum:", "Story:"))]
    assert len(prompts) > 1000
    assert all(prompt in training_text for prompt in prompts[:100])


def test_items_are_held_out_by_construction(items: dict[str, tuple[Item, ...]], training: list[Sentence]) -> None:
    for task in GENERATORS:
        assert all(held_out(item.prompt) for item in items[task])
        drawn = np.random.default_rng(7)
        assert not any(held_out(training_item(task, drawn).prompt) for _ in range(100))
    read = [s.text[: s.unlearned[1]] for s in training]
    tasks = [prompt for prompt in read if prompt.endswith((" =", " Verdict:", " Summary:"))]
    assert len(tasks) > 1000
    assert not any(map(held_out, tasks))


def test_held_out_text_is_not_in_the_training_text(training_text: str) -> None:
    texts = held_out_text()
    assert len(set(texts)) == len(texts) == 300
    assert all(held_out(text) for text in texts)
    assert [text for text in texts if text in training_text] == []
    assert held_out_text() == texts


def test_chatter_is_in_the_training_text(training_text: str) -> None:
    """Perplexity asks for sentences of a kind that was learned."""
    rng = np.random.default_rng(7)
    assert all(chatter(rng).split()[0] in training_text for _ in range(50))
    assert sum(held_out(chatter(rng)) for _ in range(2000)) == pytest.approx(200, abs=50)


def test_no_task_can_be_had_without_understanding(world: World, items: dict[str, tuple[Item, ...]]) -> None:
    baselines = ability_baselines(items, training_items(world))
    assert sorted(baselines) == sorted(TASKS)
    assert baselines["entailment"] == 0.5
    assert all(0 < score <= 0.5 for score in baselines.values())


def test_items_fit_into_the_model_and_into_a_window(items: dict[str, tuple[Item, ...]]) -> None:
    tokenizer = Tokenizer.from_file(str(WORLD_FOLDER / "tokenizer.json"))
    lengths = [
        len(tokenizer.encode(f"{item.prompt} {item.answer}.").ids) for of_task in items.values() for item in of_task
    ]
    assert max(lengths) <= Recipe().length <= Recipe().n_positions
