"""Perplexity on held-out text: how surprised the model is by language that no edit speaks of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prunejax.errors import InputError
from prunejax.evaluate.likelihood import READS, Completions, lay_out, likelihoods
from prunejax.models.forward import Forward
from prunejax.tokens import CompletionTokens, tokenize_completion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prepare(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], reads: int = READS) -> Completions:
    """The texts as `perplexity` takes them, so that the logits of `reads` tokens are held at once. InputError if no
    text has two tokens."""
    tokenized = [tokenize_completion(tokenizer, text).ids for text in texts]
    completions = lay_out([CompletionTokens(ids, 1) for ids in tokenized if len(ids) > 1], reads=reads)
    if not completions.batches:
        raise InputError("perplexity: no text of two tokens or more; give it some")
    return completions


def perplexity(forward: Forward, texts: Completions) -> float:
    """exp of the mean of -log p(token | all before it in its text), over all tokens but the first of each text.

    Tokens weigh equally, so long texts weigh more. At least 1; V for a model that knows nothing; NaN for a collapsed
    one, and inf where the mean is above 709 nats. It depends on the tokenizer: compare versions of one model only.
    InputError if a text is too long for the model.
    """
    nll = likelihoods(forward, texts).nll
    with np.errstate(over="ignore"):
        return float(np.exp(np.average(nll, weights=texts.n_tokens)))
