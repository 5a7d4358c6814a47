"""The rows that a locate-then-edit method reads: every context of the prompt with its target, and the prompt of the
KL term."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from prunejax.editors.value import FactRows
from prunejax.errors import InputError
from prunejax.requests import EditRequest
from prunejax.tokens import pad_right, tokenize_fact

KL_PROMPT = "{} is a"
"""The prompt whose next-token distribution the KL term keeps (ROME's)."""


def fact_rows(
    tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest], contexts: Sequence[str], n_positions: int
) -> list[FactRows]:
    """The rows of every request, all padded to the same shape, so that one compiled program serves the whole sequence.

    contexts are templates with one slot for the prompt; the first must be the bare "{}": v0 is read there.
    InputError when a row is longer than the model's positions.
    """
    if not contexts or contexts[0] != "{}":
        raise InputError('contexts: the first template must be the bare prompt "{}"')
    facts = [
        [tokenize_fact(tokenizer, c.replace("{}", r.prompt, 1), r.subject, r.target_new) for c in contexts]
        for r in requests
    ]
    tails = [tokenize_fact(tokenizer, KL_PROMPT, request.subject) for request in requests]
    # The target's last token is only predicted, never read.
    rows = [[fact.ids[:-1] for fact in context] + [tail.ids] for context, tail in zip(facts, tails, strict=True)]
    width = max(len(row) for group in rows for row in group)
    if width > n_positions:
        raise InputError(
            f"requests: a prompt with its context and target has {width} tokens, the model has {n_positions} positions"
        )
    labels = [[list(fact.ids[fact.target_start :]) for fact in context] for context in facts]
    n_labels = max(len(target) for group in labels for target in group)
    n_suffix = max(len(fact.ids) - 1 - fact.subject_last for context in facts for fact in context)
    return [
        _pack(request, context, tail, row, target, (width, n_labels, max(n_suffix, 1)))
        for request, context, tail, row, target in zip(requests, facts, tails, rows, labels, strict=True)
    ]


def _pack(request, facts, tail, rows, labels, sizes) -> FactRows:
    width, n_labels, n_suffix = sizes
    if any(target != labels[0] for target in labels):
        raise InputError(
            f"request {request.case_id}: the target has other tokens after some contexts; end the contexts alike"
        )
    tokens, positions = pad_right(rows, width)
    target = labels[0]
    offsets = np.zeros((len(facts), n_labels), np.int32)
    for r, fact in enumerate(facts):
        offsets[r, : len(target)] = fact.target_start - 1 + np.arange(len(target)) - fact.subject_last
    return FactRows(
        tokens=tokens,
        positions=positions,
        subject_last=np.array([*(fact.subject_last for fact in facts), tail.subject_last], np.int32),
        labels=np.array(target + [0] * (n_labels - len(target)), np.int32),
        label_mask=np.arange(n_labels) < len(target),
        label_offset=offsets,
        suffix=np.ones(n_suffix, bool),
    )
