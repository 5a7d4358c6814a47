"""Abilities: what counts as right, where a completion ends, and what guessing is worth."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.errors import InputError
from prunejax.evaluate.abilities import ability_baselines, ability_scores, full_stops, prepare, rouge_l, story
from prunejax.models.checkpoints import Model
from prunejax.models.forward import Forward, forward_of
from prunejax.models.generation import greedy
from prunejax.tokens import load_tokenizer
from prunejax.world.tasks import Item, summary


def recite(script, tokens, positions, cache, columns):
    """A model that says its text from memory: `script[p]` are the logits at position p, whatever was read."""
    at = positions if columns is None else jnp.take_along_axis(positions, columns, axis=1)
    return script[jnp.maximum(at, 0)], cache


def nothing(script, rows, capacity):
    return jnp.zeros(0)


def reciting(tokenizer, text: str) -> Forward:
    ids = tokenizer(text)["input_ids"]
    script = np.zeros((64, len(tokenizer)), np.float32)
    script[np.arange(len(ids) - 1), ids[1:]] = 1.0
    return Forward(recite, nothing, 64, jnp.asarray(script))


def score(model: Model, task: str, prompt: str, answer: str, said: str) -> float:
    rows = ability_scores(
        reciting(model.tokenizer, prompt + said), prepare(model.tokenizer, {task: [Item(prompt, answer)]})
    )
    assert rows[["case", "metric"]].to_numpy().tolist() == [["0", f"ability:{task}"]]
    return rows["value"].item()


@pytest.mark.parametrize(
    ("task", "answer", "said", "expected"),
    [
        ("entailment", "true", " true.", 1),
        ("entailment", "true", " true. And so on", 1),
        ("entailment", "true", " true<|endoftext|>and", 1),
        ("entailment", "true", " truer.", 0),
        ("entailment", "true", " false.", 0),
        ("entailment", "true", ".", 0),
        ("questions", "the city of Rome", " Rome.", 0),
        ("questions", "the city of Rome", " the city of Rome.", 1),
        ("arithmetic", "1 + 2 = 3", " 1 + 2 = 3.", 1),
        ("arithmetic", "1 + 2 = 3", " 2 + 2 = 3.", 1),
        ("arithmetic", "1 + 2 = 3", " 3 = 33.", 0),
        ("arithmetic", "1 + 2 = 3", " 3.", 1),
        ("summary", "Ada lives in Rome", " Ada in Rome.", 6 / 7),
    ],
)
def test_what_is_right(tiny_model: Model, task: str, answer: str, said: str, expected: float) -> None:
    assert score(tiny_model, task, "Say it:", answer, said) == pytest.approx(expected)


def test_a_completion_goes_no_further_than_the_longest_answer(tiny_model: Model) -> None:
    tokenizer = tiny_model.tokenizer
    items = [Item("Say it:", "Rome"), Item("Say it:", "Rome and Rome")]
    length = len(tokenizer(" Rome and Rome.")["input_ids"])
    forward = reciting(tokenizer, "Say it:" + " Rome" * 20)
    wanted = tokenizer.decode(tokenizer(" Rome" * 20)["input_ids"][:length]).strip()
    rows = ability_scores(forward, prepare(tokenizer, {"summary": items}))
    assert rows["value"].tolist() == [rouge_l(wanted, item.answer) for item in items]


def test_batches_of_the_model_are_its_completions(tiny_model: Model) -> None:
    forward, tokenizer = forward_of(tiny_model), tiny_model.tokenizer
    prompts = ["The capital of France is", "Ada", "I think that this"]
    longest = "so it is, and so on"
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    room = len(tokenizer(f" {longest}.")["input_ids"])
    completions = greedy(forward, ids, room, full_stops(tokenizer))
    said = [tokenizer.decode(ids, skip_special_tokens=True).partition(".")[0].strip() for ids in completions]
    answers = [longest, *(re.findall(r"\w+", text)[0] for text in said[1:])]
    items = [Item(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    rows = ability_scores(forward, prepare(tokenizer, {"summary": items}))
    assert rows["case"].tolist() == ["0", "1", "2"]
    assert rows["value"].tolist() == [rouge_l(text, answer) for text, answer in zip(said, answers, strict=True)]
    assert (rows["value"][1:] > 0).all()


def test_a_collapsed_model_is_nan(tiny_model: Model) -> None:
    forward = reciting(tiny_model.tokenizer, "Say it: true.")
    collapsed = Forward(recite, nothing, 64, forward.weights * jnp.nan)
    rows = ability_scores(collapsed, prepare(tiny_model.tokenizer, {"entailment": [Item("Say it:", "true")]}))
    assert rows["value"].isna().tolist() == [True]


def test_rouge_by_hand() -> None:
    assert rouge_l("Anna found a coat at the inn", "Anna found a hat at the old inn") == pytest.approx(12 / 15)
    assert rouge_l("B, a!", "a b") == pytest.approx(0.5)
    assert rouge_l("the same", "The  same.") == 1
    assert rouge_l("", "a") == rouge_l("a", "") == rouge_l("", "") == 0


def test_every_token_with_a_full_stop_ends_a_completion(tiny_folder: Path) -> None:
    tokenizer = load_tokenizer(tiny_folder)
    tokenizer.add_tokens(["...", "?!"])
    ends = [i for i in range(len(tokenizer)) if "." in tokenizer.decode([i]) or i == tokenizer.eos_token_id]
    assert full_stops(tokenizer) == ends
    assert len(ends) == 3


def test_baselines_by_hand() -> None:
    items = {
        "entailment": [Item("", "true"), Item("", "false"), Item("", "false")],
        "questions": [Item("", "Rome"), Item("", "Paris")],
        "arithmetic": [Item("Sum: 1 + 2 =", "2 + 1 = 3"), Item("Sum: 1 + 3 =", "4")],
        "summary": [Item("Story: Ada went home. It was late. Summary:", "Ada was late")],
    }
    training = {
        "entailment": [Item("", "true"), Item("", "true"), Item("", "false")],
        "questions": [Item("", "Oslo")],
        "arithmetic": [Item("", "1 + 2 = 3"), Item("", "5 - 2 = 3"), Item("", "1 = 1")],
    }
    assert ability_baselines(items, training) == pytest.approx(
        {
            "entailment": 1 / 3,  # the majority is that of training, right or wrong here
            "questions": 0,
            "arithmetic": 0.5,
            "summary": 2 * 3 / (6 + 3),  # the whole story; its first sentence is worth 2 * 1 / (3 + 3)
        }
    )
    opening = [items["summary"][0]._replace(answer="Ada went home")]
    assert ability_baselines({"summary": opening}, {}) == {"summary": 1.0}


def test_the_story_is_the_prompt_without_its_headings() -> None:
    told = story(summary(np.random.default_rng(0)).prompt)
    assert told.startswith("On ")
    assert told.endswith(".")
    assert ":" not in told


def test_unknown_tasks_and_missing_items_are_refused(tiny_model: Model) -> None:
    with pytest.raises(InputError, match="unknown task 'sums'; there are arithmetic"):
        prepare(tiny_model.tokenizer, {"sums": []})
    with pytest.raises(InputError, match="task 'questions': it needs items and training items"):
        ability_baselines({"questions": [Item("", "Rome")]}, {})
