"""A request as the tokens that a locate-then-edit method reads: every context of the prompt with its target, and the
prompt of the KL term, each parted at the subject's last token."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from prunejax.errors import InputError
from prunejax.requests import EditRequest
from prunejax.tokens import FactTokens, tokenize_fact

KL_PROMPT = "{} is a"
"""The prompt whose next-token distribution the KL term keeps (ROME's)."""


class Fact(NamedTuple):
    """One request: R contexts, then the row of the KL term.

    prefixes: of each of the R + 1 rows the tokens before the subject's last. suffixes: those from it on that are read,
    of a context up to the target's last token, which is only predicted; of the KL row the subject's last token alone,
    where its distribution stands. labels: the target. offsets [R]: how many tokens after the subject's last the first
    of them is predicted.
    """

    prefixes: tuple[tuple[int, ...], ...]
    suffixes: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]
    offsets: tuple[int, ...]


def facts_of(
    tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest], contexts: Sequence[str], n_positions: int
) -> list[Fact]:
    """The requests in tokens. `contexts` are templates with one slot for the prompt; the first must be the bare "{}":
    v0 is read there. InputError when a row is longer than the model's positions."""
    if not contexts or contexts[0] != "{}":
        raise InputError('contexts: the first template must be the bare prompt "{}"')
    return [_fact(tokenizer, request, contexts, n_positions) for request in requests]


def _fact(tokenizer: PreTrainedTokenizerBase, request: EditRequest, contexts: Sequence[str], n_positions: int) -> Fact:
    rows = [
        tokenize_fact(tokenizer, context.replace("{}", request.prompt, 1), request.subject, request.target_new)
        for context in contexts
    ]
    tail = tokenize_fact(tokenizer, KL_PROMPT, request.subject)
    width = max(*(len(row.ids) - 1 for row in rows), len(tail.ids))
    if width > n_positions:
        raise InputError(
            f"requests: a prompt with its context and target has {width} tokens, the model has {n_positions} positions"
        )
    targets = {row.ids[row.target_start :] for row in rows}
    if len(targets) > 1:
        raise InputError(
            f"request {request.case_id}: the target has other tokens after some contexts; end the contexts alike"
        )
    return Fact(
        prefixes=tuple(row.ids[: row.subject_last] for row in (*rows, tail)),
        suffixes=(*(row.ids[row.subject_last : -1] for row in rows), (_key_token(tail),)),
        labels=targets.pop(),
        offsets=tuple(row.target_start - 1 - row.subject_last for row in rows),
    )


def _key_token(row: FactTokens) -> int:
    return row.ids[row.subject_last]
