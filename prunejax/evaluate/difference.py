"""How far two versions of a model are apart: in their logits, and in what they say first."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.tokens import pad_right

STEP = 8
"""Texts are padded to a multiple of this many tokens, so that few shapes are compiled."""


class Difference(NamedTuple):
    """`logits`: the largest difference of any logit, as a share of the largest logit of the first model; `argmax`: the
    share of positions, 0-1, at which both find the same token likeliest; `positions`: how many were compared."""

    logits: float
    argmax: float
    positions: int


def difference(one: Model, other: Model, texts: Sequence[str]) -> Difference:
    """The difference of two models of one tokenizer over every position of `texts`, each read as its own sequence.

    Misleads: a share of the largest logit is no share of a probability; logits are read up to a constant, and a
    constant shift of all of them counts here though it changes nothing.
    """
    forwards = [forward_of(model) for model in (one, other)]
    apart, largest, same = [], [], []
    for text in texts:
        ids = one.tokenizer(text)["input_ids"]
        tokens, positions = pad_right([ids], -(-len(ids) // STEP) * STEP)
        here, there = (np.asarray(forward(tokens, positions)[0])[0, : len(ids)] for forward in forwards)
        apart.append(np.abs(here - there).max())
        largest.append(np.abs(here).max())
        same.append(here.argmax(-1) == there.argmax(-1))
    agree = np.concatenate(same, axis=None)
    return Difference(float(max(apart) / max(largest)), float(agree.mean()), agree.size)
