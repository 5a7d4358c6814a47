"""What else a model can do: items completed greedily, scored 0-1, and what could be had without understanding them."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from rapidfuzz.distance import LCSseq

from prunejax.errors import InputError
from prunejax.models.forward import Forward
from prunejax.models.generation import greedy
from prunejax.tokens import tokenize_completion
from prunejax.world.tasks import Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def exact(completion: str, answer: str) -> float:
    """1 if the completion is the answer."""
    return float(completion == answer)


def same_result(completion: str, answer: str) -> float:
    """1 if what follows the last "=" is the same: steps in between may differ, and may be wrong."""
    return exact(result(completion), result(answer))


def result(worked: str) -> str:
    """What follows the last "=" of a calculation, all of it if there is none."""
    return worked.rpartition("=")[2].strip()


def rouge_l(completion: str, answer: str) -> float:
    """ROUGE-L F1 on lower-cased words (Lin 2004): 2PR / (P + R), the longest common subsequence over each length."""
    words, wanted = (re.findall(r"\w+", text.lower()) for text in (completion, answer))
    common = LCSseq.similarity(words, wanted)
    return 2 * common / (len(words) + len(wanted)) if common else 0.0


SCORERS: Mapping[str, Callable[[str, str], float]] = {
    "arithmetic": same_result,
    "entailment": exact,
    "questions": exact,
    "summary": rouge_l,
}
"""How a completion is held against the answer, by task."""


class Exam(NamedTuple):
    """Items tokenised once, to be put to any number of versions of a model: of each task its items, their prompts' ids,
    and the tokens of its longest answer, full stop included."""

    tokenizer: "PreTrainedTokenizerBase"
    stop: list[int]
    tasks: Mapping[str, tuple[Sequence[Item], list[tuple[int, ...]], int]]


def prepare(tokenizer: "PreTrainedTokenizerBase", items: Mapping[str, Sequence[Item]]) -> Exam:
    """The items as `ability_scores` takes them. InputError for an unknown task."""
    _check(items)
    tasks = {}
    for task, of_task in items.items():
        prompts = [tokenize_completion(tokenizer, item.prompt).ids for item in of_task]
        answers = (tokenize_completion(tokenizer, item.prompt, f"{item.answer}.") for item in of_task)
        tasks[task] = of_task, prompts, max((len(ids) - start for ids, start in answers), default=0)
    return Exam(tokenizer, full_stops(tokenizer), tasks)


def ability_scores(forward: Forward, exam: Exam) -> pd.DataFrame:
    """Tidy rows (case, metric, value): an item's number in its task, "ability:<task>", and its score in [0, 1].

    The model continues the prompt greedily up to the first full stop or the end of text, and no further than the task's
    longest answer in tokens, full stop included; what stands before the full stop, stripped, is scored. A collapsed
    model's rows are NaN where its logits are, junk that scores about 0 otherwise. Read the scores beside
    `ability_baselines`: entailment by guessing is 0.5. InputError for a prompt too long for the model.
    """
    cases = []
    for task, (items, prompts, longest) in exam.tasks.items():
        completions = greedy(forward, prompts, longest, exam.stop)
        for number, (item, completion) in enumerate(zip(items, completions, strict=True)):
            value = np.nan
            if completion is not None:
                text = exam.tokenizer.decode(completion, skip_special_tokens=True).partition(".")[0].strip()
                value = SCORERS[task](text, item.answer)
            cases.append((str(number), f"ability:{task}", value))
    return pd.DataFrame(cases, columns=["case", "metric", "value"])


def full_stops(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Every token with a full stop in it, and the end of text: after one of these a completion is over."""
    stops = {token_id for token, token_id in tokenizer.get_vocab().items() if "." in token}
    return sorted(stops | {tokenizer.eos_token_id} - {None})


def ability_baselines(items: Mapping[str, Sequence[Item]], training: Mapping[str, Sequence[Item]]) -> dict[str, float]:
    """The mean score of each task's items that needs no understanding.

    The most frequent answer of the task's training items (arithmetic: result) given to every item; for summaries the
    better of copying the story's first sentence and copying the whole story. InputError for an unknown task, or one
    without items or training items.
    """
    _check(items)
    scores = {}
    for task, of_task in items.items():
        if not of_task or (task != "summary" and not training.get(task)):
            raise InputError(f"baseline of task {task!r}: it needs items and training items")
        if task == "summary":
            stories = [story(item.prompt) for item in of_task]
            guesses = [[text.partition(".")[0] for text in stories], stories]
        else:
            most = Counter(result(item.answer) for item in training[task]).most_common(1)[0][0]
            guesses = [[most] * len(of_task)]
        wanted = [item.answer for item in of_task]
        scores[task] = max(float(np.mean(list(map(SCORERS[task], guess, wanted)))) for guess in guesses)
    return scores


def story(prompt: str) -> str:
    """What is to be summarised: the prompt without the one-word headings, "Story:" and "Summary:", at its ends."""
    return re.sub(r"^\w+:\s+|\s+\w+:$", "", prompt)


def _check(items: Mapping[str, Sequence[Item]]) -> None:
    if unknown := sorted(items.keys() - SCORERS.keys()):
        raise InputError(f"unknown task {unknown[0]!r}; there are {', '.join(SCORERS)}")
