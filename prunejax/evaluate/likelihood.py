"""How likely a model finds given answers: teacher-forced negative log-likelihoods, prepared once, scored many times.

Many answers share their beginning: both candidates of a comparison follow one prompt, what predicts a one-token answer
is the prompt alone, and prompts begin alike. Every beginning is run once: rows are packed (`models.packing`), and a
token that several rows of a batch begin with stands on the flat axis once.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from prunejax.errors import InputError
from prunejax.mesh import on_host
from prunejax.models.forward import Forward
from prunejax.models.packing import Packing, Reads, fill
from prunejax.tokens import CompletionTokens

TOKENS, READS = 1536, 512
"""The most tokens of a batch, and the most of which the logits are held at once, unless a single row has more."""

STEP = 8
"""Rows have room for a multiple of this many tokens."""

LEAST = 64, 16, 16, 32
"""The least sizes of a batch in tokens, rows, tokens that are read, and labels: few requests share their shapes too."""


class Batch(NamedTuple):
    """Packed rows to run, and what to read: `labels[e]` is predicted by logits number `slots[e]` of those asked for,
    and belongs to completion `owner[e]`, -1 on padding.

    ids, positions: int32 [N], position -1 on padding; packing and reads as the decoder takes them; slots, labels,
    owner: int32 [E].
    """

    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    packing: Packing
    reads: Reads
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


class Flat(NamedTuple):
    """Sorted rows on a flat axis where each distinct beginning stands once: its ids, the (row, column) at which each of
    them stands first, and of each row where its tokens are on the axis; the tokens that are read, in order, and the
    (number among these, token, owner) of every label."""

    ids: list[int]
    places: list[tuple[int, int]]
    slots: list[list[int]]
    asked: list[int]
    labels: list[tuple[int, int, int]]


def lay_out(completions: Sequence[CompletionTokens], tokens: int = TOKENS, reads: int = READS) -> Completions:
    """The completions in batches of at most so many tokens, of which at most so many are read, all of one shape."""
    hosts = host_rows([completion.ids[:-1] for completion in completions])
    labels: dict[tuple[int, ...], list[Label]] = defaultdict(list)
    for owner, (ids, start) in enumerate(completions):
        labels[hosts[ids[:-1]]] += [Label(column - 1, ids[column], owner) for column in range(start, len(ids))]
    longest = max(map(len, labels), default=0)
    flat = [flatten(rows, labels) for rows in _cut(labels, tokens, reads)]
    n_tokens = np.array([len(ids) - start for ids, start in completions], np.int64)
    return Completions(tuple(_arrays(flat, longest)) if flat else (), n_tokens, longest)


def _cut(labels: Mapping[tuple[int, ...], Sequence[Label]], tokens: int, reads: int) -> Iterator[list[tuple[int, ...]]]:
    """The rows, sorted, in batches of so many tokens and reads at most; a row that has more is a batch of its own."""
    batch, n_tokens, n_reads = [], 0, 0
    for row in sorted(labels):
        columns = {label.column for label in labels[row]}
        shared = _common(row, batch[-1]) if batch else 0
        read_before = {label.column for label in labels[batch[-1]] if label.column < shared} if batch else set()
        n_tokens, n_reads = n_tokens + len(row) - shared, n_reads + len(columns - read_before)
        if batch and (n_tokens > tokens or n_reads > reads):
            yield batch
            batch, n_tokens, n_reads = [], len(row), len(columns)
        batch = [*batch, row]
    if batch:
        yield batch


def flatten(rows: Sequence[tuple[int, ...]], labels: Mapping[tuple[int, ...], Sequence[Label]]) -> Flat:
    """Sorted rows with their labels on one axis."""
    flat, numbers = Flat([], [], [], [], []), {}
    for number, row in enumerate(rows):
        shared = _common(row, rows[number - 1]) if number else 0
        first = len(flat.ids)
        flat.ids.extend(row[shared:])
        flat.places.extend((number, column) for column in range(shared, len(row)))
        flat.slots.append([*(flat.slots[-1][:shared] if number else ()), *range(first, len(flat.ids))])
        for label in labels[row]:
            at = flat.slots[-1][label.column]
            flat.labels.append((numbers.setdefault(at, len(numbers)), label.token, label.owner))
    flat.asked.extend(numbers)
    return flat


def _arrays(batches: Sequence[Flat], longest: int) -> Iterator[Batch]:
    """The batches as arrays of one shape, which is rounded up: other requests shall find it compiled."""
    n, b, asked, entries = (
        _rounded(max(map(len, parts)), least)
        for parts, least in zip(
            zip(*((f.ids, f.slots, f.asked, f.labels) for f in batches), strict=True), LEAST, strict=True
        )
    )
    width = -(-longest // STEP) * STEP
    per_row = [np.bincount([flat.places[token][0] for token in flat.asked]) for flat in batches]
    columns = _rounded(max(counts.max() for counts in per_row), 2)
    for flat in batches:
        row, column = np.array(flat.places, np.int32).T
        slot, place = np.full((b, width), n, np.int32), np.full(n, b * width, np.int32)
        for number, slots in enumerate(flat.slots):
            slot[number, : len(slots)] = slots
        place[: len(row)] = row * width + column
        ids, positions = fill([flat.ids], n, 0), fill([column], n, -1)
        reads = Reads(fill([flat.asked], asked, 0), _by_row(row[flat.asked], asked, b, columns))
        read = np.full((3, entries), [[0], [0], [-1]], np.int32)
        read[:, : len(flat.labels)] = np.array(flat.labels, np.int32).T
        yield Batch(ids, positions, Packing(slot, place), reads, *read)


def _by_row(rows: NDArray[np.int32], size: int, n_rows: int, width: int) -> Packing:
    """The packing of tokens that stand in these rows, each row's in order, on a flat axis of `size`."""
    slot, place = np.full((n_rows, width), size, np.int32), np.full(size, n_rows * width, np.int32)
    taken = np.zeros(n_rows, np.int32)
    for number, row in enumerate(rows):
        slot[row, taken[row]], place[number] = number, row * width + taken[row]
        taken[row] += 1
    return Packing(slot, place)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with alike."""
    for n, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return n
    return min(len(one), len(other))


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
        _read(forward.packed(batch.ids, batch.positions, batch.packing, batch.reads), batch.slots, batch.labels)
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
    """-log p(label) in nats and whether the label is the arg-max, both [E], from logits [C, V]."""
    # Shifted first: the log of the sum of near-certain answers would drown in their logits' size.
    shifted = logits - logits.max(axis=-1, keepdims=True)
    nll = jnp.log(jnp.exp(shifted).sum(axis=-1))[slots] - shifted[slots, labels]
    return nll, jnp.argmax(logits, axis=-1)[slots] == labels


def _rounded(n: int, least: int) -> int:
    """The least power of two, or three quarters of one, of at least n and `least`."""
    n = max(int(n), least)
    power = 1 << (n - 1).bit_length()
    return 3 * power // 4 if n <= 3 * power // 4 and power > 2 else power
