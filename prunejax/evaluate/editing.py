"""Editing scores: did the edit take, does it hold in other words, and did it leave the neighbours alone?

Each question is answered twice. The likelihood comparison (the paper's) asks which of two answers the model finds
likelier: a collapsed model stands near 0.5 there, not at 0. The arg-max form (`_top1`) asks whether the model says it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from prunejax.evaluate.likelihood import TOKENS, Completions, lay_out, likelihoods
from prunejax.models.forward import Forward
from prunejax.requests import SLOT, EditRequest
from prunejax.tokens import CompletionTokens, tokenize_completion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_RIVAL = -1


class Prepared(NamedTuple):
    """Requests tokenised and laid out once, to be scored under any number of edited versions of the model.

    `questions` has a row for each thing asked: case, metric, and the indices in `completions` of the wanted answer and
    of its rival; without a rival (NO_RIVAL) the wanted answer must be the arg-max.
    """

    completions: Completions
    questions: pd.DataFrame


def prepare(tokenizer: "PreTrainedTokenizerBase", requests: Sequence[EditRequest], tokens: int = TOKENS) -> Prepared:
    """The requests as `editing_scores` takes them, in batches of so many tokens.

    InputError if a prompt and an answer cannot be told apart in tokens (`tokens.tokenize_completion`).
    """
    completions: dict[tuple[str, str], int] = {}
    tokenized: list[CompletionTokens] = []
    questions: list[tuple[str, str, int, int]] = []

    def index(prompt: str, answer: str) -> int:
        if (prompt, answer) not in completions:
            completions[prompt, answer] = len(tokenized)
            tokenized.append(tokenize_completion(tokenizer, prompt, answer))
        return completions[prompt, answer]

    def ask(case: str, metric: str, wanted: int, rival: int | None) -> None:
        if rival is not None:
            questions.append((case, metric, wanted, rival))
        questions.append((case, f"{metric}_top1", wanted, NO_RIVAL))

    for request in requests:
        case, new, true = request.case_id, request.target_new, request.target_true
        asked = [("efficacy", request.prompt.replace(SLOT, request.subject))]
        for metric, prompt in asked + [("generalization", paraphrase) for paraphrase in request.paraphrases]:
            ask(case, metric, index(prompt, new), None if true is None else index(prompt, true))
        for near in request.neighbors:
            ask(case, "locality", index(near.prompt, near.answer), index(near.prompt, new))
        for probe in request.portability:
            questions.append((case, "portability", index(probe.prompt, probe.answer), NO_RIVAL))
    return Prepared(lay_out(tokenized, tokens), pd.DataFrame(questions, columns=["case", "metric", "wanted", "rival"]))


def editing_scores(forward: Forward, prepared: Prepared) -> pd.DataFrame:
    """Tidy rows (case, metric, value in [0, 1]), one a case and metric, averaged over the case's prompts.

    With NLL(y) the mean of -log p over y's tokens, teacher-forced:
    efficacy: NLL(target_new) < NLL(target_true) after the prompt; generalization: the same after the paraphrases;
    locality: NLL(answer) < NLL(target_new) after the neighbours' prompts (PRUNE's definitions, Ma et al. 2024, 5.1).
    efficacy_top1, generalization_top1: every token of target_new is the arg-max; locality_top1: every token of the
    neighbour's answer is; portability: every token of the probe's answer is. Ties are failures.

    A row whose NLLs include a NaN is NaN, never left out: `intervals.summarize` counts it as a failure. Cases without
    paraphrases, neighbours or probes have no row of that metric, cases without target_true none of efficacy and
    generalization by comparison. Locality asks whether the truth is still preferred, not whether nothing changed.
    """
    nll, top1 = likelihoods(forward, prepared.completions)
    wanted, rival = (prepared.questions[name].to_numpy(np.int64) for name in ("wanted", "rival"))
    compared = rival != NO_RIVAL
    value = np.where(compared, nll[wanted] < nll[rival], top1[wanted]).astype(np.float64)
    value[np.isnan(nll[wanted]) | (compared & np.isnan(nll[rival]))] = np.nan
    scored = prepared.questions[["case", "metric"]].assign(value=value)
    return scored.groupby(["case", "metric"], sort=False, as_index=False)["value"].mean(skipna=False)
