"""Sums of key key^T over a stream of texts, of which second moments are means: texts become pieces, pieces batches,
and a batch is added on the device."""

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from prunejax.errors import InputError
from prunejax.mesh import on_devices, on_host
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder, Overrides
from prunejax.progress import Progress, Saves, due
from prunejax.tokens import pad_right

CHARACTERS = 1 << 20
"""How much text is tokenised at once."""
POOL = 1 << 18
"""How many tokens wait to be sorted by length, so that pieces of a batch are alike."""
TOKENS = 4096
"""The most tokens of a batch, padding included (of a wide model, 4,096 keys are some hundreds of MB)."""
READ = {"down": "key", "up": "up_input"}
"""The tap that holds what each kernel of an MLP reads."""


class Pair(NamedTuple):
    """Two float32 arrays whose sum is one to some 48 bits: a sum, and what rounding took from it. Devices without
    float64 add millions of keys by it without loss."""

    total: Array
    rest: Array


def read_rows(tokenizer: Any, texts: Iterable[str], most: int | None = None) -> Iterator[tuple[str, list[int]]]:
    """Each text with its ids as the tokenizer gives them, special tokens included, in order and as they are asked for.

    With `most`, the ids of all rows are that many at most: the row that reaches it is cut, and no further is given.
    """
    left = most
    for some in portions(texts):
        for text, row in zip(some, tokenizer(some, verbose=False)["input_ids"], strict=True):
            yield text, row[:left]
            if left is not None and (left := left - len(row)) <= 0:
                return


def portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """Consecutive texts, each portion as many as reach CHARACTERS."""
    portion, size = [], 0
    for text in texts:
        portion.append(text)
        size += len(text) + 1
        if size >= CHARACTERS:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def pieces_of(rows: Iterable[list[int]], width: int) -> Iterator[list[int]]:
    """The rows' ids in order, in pieces of at most `width`; no id is lost, and a row without ids gives no piece."""
    return (row[start : start + width] for row in rows for start in range(0, len(row), width))


def pools(pieces: Iterable[list[int]]) -> Iterator[list[list[int]]]:
    """Consecutive pieces, each pool as many as reach POOL tokens, sorted by length."""
    pool, size = [], 0
    for piece in pieces:
        pool.append(piece)
        size += len(piece)
        if size >= POOL:
            yield sorted(pool, key=len)
            pool, size = [], 0
    if pool:
        yield sorted(pool, key=len)


def batches(pool: Sequence[list[int]], width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens and positions [B, T], padded right, of pieces of at most `width` ids that are sorted by length; shapes are
    few, as each compiles: T is one of `widths`, and T alone says B."""
    start = 0
    while start < len(pool):
        # The narrowest that takes as many of the rows as it has room for.
        padded, rows = next(
            (padded, rows)
            for padded in widths(width)
            for rows in [max(1, TOKENS // padded)]
            if len(pool[min(start + rows, len(pool)) - 1]) <= padded
        )
        batch = pool[start : start + rows]
        yield pad_right([*batch, *[[]] * (rows - len(batch))], padded)
        start += rows


def widths(most: int) -> Iterator[int]:
    """Ascending numbers of columns, from 4 on, some four to a doubling, up to `most`."""
    columns = 0
    while columns < most:
        columns = min(most, columns + (1 << max(2, (columns + 1).bit_length() - 3)))
        yield columns


def no_sums(model: Model, layers: Sequence[int], kernels: Sequence[str]) -> list[Pair]:
    """Zeros [d_in, d_in], a layer and kernel each."""
    sizes = {"down": model.config.d_ff, "up": model.config.d_model}
    squares = [(sizes[kernel], sizes[kernel]) for _ in layers for kernel in kernels]
    zeros = [np.zeros(square, np.float32) for square in squares]
    return [Pair(*(on_devices(zero, "model", None) for _ in Pair._fields)) for zero in zeros]


def add_keys(
    model: Model,
    sums: list[Pair],
    pieces: Iterable[list[int]],
    width: int,
    layers: Sequence[int],
    kernels: Sequence[str],
    bar: tqdm,
) -> tuple[list[Pair], int]:
    """The sums with key key^T of every token of the pieces added, and how many tokens there were; `bar` counts them.

    The sums that are handed in are used up. `layers` ascend.
    """
    count = 0
    for pool in pools(pieces):
        sums = add_pool(model, sums, pool, width, layers, kernels, bar)
        count += sum(map(len, pool))
    return sums, count


def add_pool(
    model: Model,
    sums: list[Pair],
    pool: Sequence[list[int]],
    width: int,
    layers: Sequence[int],
    kernels: Sequence[str],
    bar: tqdm,
) -> list[Pair]:
    """`add_keys` of one of `pools`."""
    for tokens, positions in batches(pool, width):
        sums = _add_batch(model.decoder, model.overrides, tokens, positions, sums, tuple(layers), tuple(kernels))
        jax.block_until_ready(sums)
        bar.update(int(np.sum(positions >= 0)))
    return sums


class Stream(NamedTuple):
    """The sums over a stream of texts, how many tokens they are of, and the SHA-256 of the texts, each in UTF-8 and
    ended by a newline."""

    sums: list[Pair]
    count: int
    texts: str


def add_texts(
    model: Model,
    texts: Iterable[str],
    width: int,
    layers: Sequence[int],
    kernels: Sequence[str],
    most: int | None = None,
    progress: Progress | None = None,
) -> Stream:
    """The sums over all tokens of `texts`, or over the first `most` of them.

    With `progress` sums are saved now and then, and what an interrupted call saved is not added again: its texts are
    read, and an InputError says if they are others. The sums are those of one go, to the bit.
    """
    digest, count, added, last = hashlib.sha256(), 0, 0, Saves(time.monotonic(), 0.0)

    def rows() -> Iterator[list[int]]:
        for text, row in read_rows(model.tokenizer, texts, most):
            digest.update(text.encode() + b"\n")
            yield row

    sums, pieces = no_sums(model, layers, kernels), pieces_of(rows(), width)
    if progress and (saved := progress.load(sums)):
        sums, count, added = saved.arrays, saved.place["tokens"], saved.place["pieces"]
        deque(islice(pieces, added), maxlen=0)
        if digest.hexdigest() != saved.place["texts"]:
            raise InputError(
                f"text: does not begin with what was read for {progress.path}; give the same text, remove that file, "
                "or choose another --out"
            )
    with tqdm(total=most, initial=count, desc="moments", unit="token", unit_scale=True) as bar:
        for pool in pools(pieces):
            sums, new = add_pool(model, sums, pool, width, layers, kernels, bar), sum(map(len, pool))
            count, added = count + new, added + len(pool)
            # After the last pool, which is not full, the text may have gone on without tokens.
            if progress and new >= POOL and due(last):
                last = progress.save(sums, {"tokens": count, "pieces": added, "texts": digest.hexdigest()})
    return Stream(sums, count, digest.hexdigest())


def mean_of(pair: Pair, count: int) -> np.ndarray:
    """The sum over `count`, divided in float64 on the host, rounded to float32; InputError where it is not finite."""
    whole = on_host(pair.total).astype(np.float64)
    whole += on_host(pair.rest)
    whole /= count
    if not np.isfinite(whole).all():
        raise InputError("model: its keys are not finite numbers, so its weights are not; get them again")
    return whole.astype(np.float32)


@partial(jax.jit, static_argnames=("layers", "kernels"), donate_argnames=("sums",))
def _add_batch(
    decoder: Decoder,
    overrides: Overrides,
    tokens: Array,
    positions: Array,
    sums: list[Pair],
    layers: tuple[int, ...],
    kernels: tuple[str, ...],
) -> list[Pair]:
    products = _key_products(decoder, overrides, tokens, positions, layers, kernels)
    return [add_to(pair, product) for pair, product in zip(sums, products, strict=True)]


def add_to(pair: Pair, term: Array) -> Pair:
    """The sum with a term added; what float32 cannot hold of it is found exactly (Knuth) and kept in `rest`."""
    total = pair.total + term
    held = total - pair.total
    return Pair(total, pair.rest + ((pair.total - (total - held)) + (term - held)))


def _key_products(
    decoder: Decoder,
    overrides: Overrides,
    tokens: Array,
    positions: Array,
    layers: tuple[int, ...],
    kernels: tuple[str, ...],
) -> Iterator[Array]:
    """The sum over tokens of key key^T [d_in, d_in], a layer and kernel each; padding does not count."""
    run = partial(decoder.run_layers, overrides=overrides)
    residual, at = decoder.embed(tokens, positions), 0
    for layer in layers:
        residual = run(residual, positions, at, layer).residual
        seen = run(residual, positions, layer, layer + 1, taps=tuple(READ[kernel] for kernel in kernels))
        for kernel in kernels:
            read = seen.taps[READ[kernel]][0].astype(jnp.float32)
            key = jnp.where(positions[..., None] >= 0, read, 0.0).reshape(-1, read.shape[-1])
            yield jnp.matmul(key.T, key, precision="highest")
        residual, at = seen.residual, layer + 1
