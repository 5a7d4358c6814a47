"""How likely a model finds given answers: teacher-forced negative log-likelihoods, prepared once, scored again and again.

Many answers share their beginning: both candidates of a comparison follow one prompt, and what predicts a one-token
answer is the prompt alone. A row that is the beginning of another row is therefore read off that row and never run.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from prunejax.errors import InputError
from prunejax.evaluate.forward import Forward
from prunejax.tokens import CompletionTokens, pad_right

STEP = 4
"""Rows are padded to a multiple of this many tokens: few shapes to compile, little padding to compute."""


class Batch(NamedTuple):
    """Rows to run, and what to read: `labels[b, c]` is predicted at `columns[b, c]` and belongs to `owner[b, c]`.

    tokens, positions: int32 [B, T]; columns, labels, owner: int32 [B, C], owner -1 where there is nothing to read.
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    columns: NDArray[np.int32]
    labels: NDArray[np.int32]
    owner: NDArray[np.int32]


class Completions(NamedTuple):
    """Answers to score, laid out in batches: n_tokens [n] of each answer, and the length of the longest row."""

    batches: tuple[Batch, ...]
    n_tokens: NDArray[np.int64]
    longest: int


class Likelihoods(NamedTuple):
    """nll [n]: each answer's mean -log p(token | all before it), in nats a token; NaN if any of its logits' rows is.

    top1 [n]: whether every token of the answer is the arg-max where it stands; meaningless where `nll` is NaN.
    """

    nll: NDArray[np.float64]
    top1: NDArray[np.bool_]


def lay_out(completions: Sequence[CompletionTokens], rows: int) -> Completions:
    """The completions in batches of `rows` rows of similar length, the last one of a length filled up with padding."""
    hosts = host_rows([completion.ids[:-1] for completion in completions])
    entries: dict[tuple[int, ...], list[tuple[int, int, int]]] = defaultdict(list)
    for owner, (ids, start) in enumerate(completions):
        entries[hosts[ids[:-1]]] += [(column - 1, ids[column], owner) for column in range(start, len(ids))]
    widths: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for ids in entries:
        widths[-(-len(ids) // STEP) * STEP].append(ids)
    batches = []
    for width, members in sorted(widths.items()):
        n_entries = max(len(entries[ids]) for ids in members)
        for first in range(0, len(members), rows):
            chunk = members[first : first + rows]
            chunk += [()] * (rows - len(chunk))
            read = np.full((rows, n_entries, 3), (0, 0, -1), np.int32)
            for b, ids in enumerate(chunk):
                if ids:
                    read[b, : len(entries[ids])] = entries[ids]
            batches.append(Batch(*pad_right(chunk, width), *np.moveaxis(read, -1, 0)))
    n_tokens = np.array([len(ids) - start for ids, start in completions], np.int64)
    return Completions(tuple(batches), n_tokens, max(map(len, entries), default=0))


def host_rows(rows: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """For every distinct row a row that begins with it and is itself the beginning of no other one."""
    hosts: dict[tuple[int, ...], tuple[int, ...]] = {}
    after: tuple[int, ...] = ()
    # Sorted, a row stands right before those that begin with it.
    for row in sorted(set(rows), reverse=True):
        hosts[row] = hosts[after] if after[: len(row)] == row else row
        after = row
    return hosts


def likelihoods(forward: Forward, completions: Completions) -> Likelihoods:
    """The likelihood of every completion under the model; InputError if a row is longer than the model's positions."""
    if completions.longest > forward.n_positions:
        raise InputError(
            f"a text of {completions.longest} tokens does not fit into the model's {forward.n_positions} positions; "
            "shorten it or remove it"
        )
    # All are dispatched before the first result is waited for.
    pending = [_read(forward, *batch[:-1]) for batch in completions.batches]
    n = len(completions.n_tokens)
    total, missed = np.zeros(n), np.zeros(n)
    for batch, (nll, hit) in zip(completions.batches, jax.device_get(pending), strict=True):
        real = batch.owner >= 0
        owner = batch.owner[real]
        total += np.bincount(owner, nll[real].astype(np.float64), n)
        missed += np.bincount(owner, ~hit[real], n)
    return Likelihoods(total / completions.n_tokens, missed == 0)


@jax.jit
def _read(forward: Forward, tokens: Array, positions: Array, columns: Array, labels: Array) -> tuple[Array, Array]:
    """-log p(label) in nats and whether the label is the arg-max, both [B, C]."""
    logits, _ = forward(tokens, positions, None, columns)
    at_label = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - at_label, jnp.argmax(logits, axis=-1) == labels
