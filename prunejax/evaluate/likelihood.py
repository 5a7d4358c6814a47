"""How likely a model finds given answers: teacher-forced negative log-likelihoods, prepared once, scored many times.

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
from prunejax.mesh import on_host
from prunejax.models.forward import Forward
from prunejax.tokens import CompletionTokens, pad_right

STEP = 8
"""Rows are padded to a multiple of this many tokens: few shapes to compile, little padding to compute."""


class Batch(NamedTuple):
    """Rows to run, and what to read: `labels[b, e]`, predicted at `columns[b, slots[b, e]]`, belongs to `owner[b, e]`.

    tokens, positions: int32 [B, T]; columns: int32 [B, C]; slots, labels, owner: int32 [B, E], owner -1 on padding.
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    columns: NDArray[np.int32]
    slots: NDArray[np.int32]
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


class Label(NamedTuple):
    """One token to read off a row: the logits at `column` predict `token` of completion number `owner`."""

    column: int
    token: int
    owner: int


def lay_out(completions: Sequence[CompletionTokens], rows: int) -> Completions:
    """The completions in batches of `rows` rows of similar length, the last one of a length filled up with padding."""
    hosts = host_rows([completion.ids[:-1] for completion in completions])
    labels: dict[tuple[int, ...], list[Label]] = defaultdict(list)
    for owner, (ids, start) in enumerate(completions):
        labels[hosts[ids[:-1]]] += [Label(column - 1, ids[column], owner) for column in range(start, len(ids))]
    widths: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for row in labels:
        widths[-(-len(row) // STEP) * STEP].append(row)
    batches = []
    for width, members in sorted(widths.items()):
        # Per width and not per batch, and rounded: other requests shall find their shapes compiled.
        n_columns = _power_of_two(max(len({label.column for label in labels[row]}) for row in members))
        n_labels = _power_of_two(max(len(labels[row]) for row in members))
        for first in range(0, len(members), rows):
            chunk = members[first : first + rows]
            chunk += [()] * (rows - len(chunk))
            read = (_read_off(labels.get(row, []), n_columns, n_labels) for row in chunk)
            batches.append(Batch(*pad_right(chunk, width), *map(np.stack, zip(*read, strict=True))))
    n_tokens = np.array([len(ids) - start for ids, start in completions], np.int64)
    return Completions(tuple(batches), n_tokens, max(map(len, labels), default=0))


def _read_off(labels: Sequence[Label], n_columns: int, n_labels: int) -> tuple[NDArray[np.int32], ...]:
    """One row's columns [C], and slots, tokens, owners [E] of its labels."""
    distinct = sorted({label.column for label in labels})
    columns = np.zeros(n_columns, np.int32)
    columns[: len(distinct)] = distinct
    entries = np.full((3, n_labels), [[0], [0], [-1]], np.int32)
    for e, label in enumerate(labels):
        entries[:, e] = distinct.index(label.column), label.token, label.owner
    return columns, *entries


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
    pending = [
        _read(forward(batch.tokens, batch.positions, None, batch.columns)[0], batch.slots, batch.labels)
        for batch in completions.batches
    ]
    n = len(completions.n_tokens)
    total, missed = np.zeros(n), np.zeros(n)
    for batch, (nll, hit) in zip(completions.batches, jax.tree.map(on_host, pending), strict=True):
        real = batch.owner >= 0
        owner = batch.owner[real]
        total += np.bincount(owner, nll[real].astype(np.float64), n)
        missed += np.bincount(owner, ~hit[real], n)
    return Likelihoods(total / completions.n_tokens, missed == 0)


# Apart from the forward pass, so that other numbers of labels do not compile the model again.
@jax.jit
def _read(logits: Array, slots: Array, labels: Array) -> tuple[Array, Array]:
    """-log p(label) in nats and whether the label is the arg-max, both [B, E], from logits [B, C, V]."""
    row = jnp.arange(len(logits))[:, None]
    # Shifted first: the log of the sum of near-certain answers would drown in their logits' size.
    shifted = logits - logits.max(axis=-1, keepdims=True)
    nll = jnp.log(jnp.exp(shifted).sum(axis=-1))[row, slots] - shifted[row, slots, labels]
    return nll, jnp.argmax(logits, axis=-1)[row, slots] == labels


def _power_of_two(n: int) -> int:
    """The smallest power of two of at least n."""
    return 1 << (n - 1).bit_length()
