"""How many keys are enough: second moments of ever longer prefixes of a text, and what their inverses do to keys beside
that of the longest."""

import math
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import ArrayLike
from tqdm import tqdm

from prunejax.editors.condition import cholesky, condition_number, ridged
from prunejax.editors.key_sums import Pair, add_keys, mean_of, no_sums, pieces_of, read_rows
from prunejax.editors.moments import MAX_LENGTH, SecondMoment, check_layers
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model


def nested_moments(
    model: Model, texts: Sequence[str], layer: int, counts: Sequence[int], seed: int = 0, max_length: int = MAX_LENGTH
) -> Iterator[SecondMoment]:
    """C_n of the layer's down projection over the first n tokens of `texts`, shuffled by the seed, for every n of
    `counts` in ascending order; the text is read once, and each C_n is made when it is asked for.

    Each is what `second_moments` makes of so many tokens: the sequence that goes beyond n is cut there, and enters the
    next C_n from its start. InputError where the text is too short.
    """
    if not counts or min(counts) < 1:
        raise InputError(f"counts {list(counts)}: at least one number of tokens, each above 0")
    layers, width = check_layers(model, [layer]), min(max_length, model.config.n_positions)
    shuffled = (texts[number] for number in np.random.default_rng(seed).permutation(len(texts)))
    pieces = pieces_of((row for _, row in read_rows(model.tokenizer, shuffled)), width)
    sums, total, ahead = no_sums(model, layers, ["down"]), 0, []
    with tqdm(total=max(counts), desc="nested moments", unit="token", unit_scale=True) as bar:
        for count in sorted(counts):
            sums, new = add_keys(model, sums, _whole(pieces, ahead, count - total), width, layers, ["down"], bar)
            total += new
            beginning = [piece[: count - total] for piece in ahead if total < count]
            if total + sum(map(len, beginning)) < count:
                raise InputError(f"text: {total} tokens in it, {count} were asked for")
            copies = [Pair(*map(jnp.copy, pair)) for pair in sums]
            ((all_of_them,), _) = add_keys(model, copies, beginning, width, layers, ["down"], tqdm(disable=True))
            yield SecondMoment(mean_of(all_of_them, count), count)


def compare_inverses(moments: Sequence[SecondMoment], keys: ArrayLike, ridge: float = 0.0) -> pd.DataFrame:
    """How C_n^-1 k compares with C_N^-1 k, N the largest count, for each second moment and each of `keys` [m, d_in], in
    float64; C stands for C + ridge mean(diag C) I throughout.

    Columns: count n, per_dimension = n / d_in, kappa(C_n) and scaled_kappa (`condition_number`), key (its number),
    cosine of the two directions, and cost, how many times as much as need be an update along u = C_n^-1 k disturbs what
    a weight says to the keys of the longest text: (u^T C_N u) (k^T C_N^-1 k) / (k^T u)^2, at least 1 and 1 at N.
    Where C_n cannot be inverted (fewer keys than dimensions and no ridge) both kappas are inf, cosine and cost NaN;
    InputError where C_N cannot.

    Misleads: C_N holds the keys of C_n, so both flatter an n near N; a cosine is small long before the cost is large,
    as directions in which keys hardly lie weigh most in it.
    """
    keys = np.asarray(keys, np.float64)
    longest = max(moments, key=lambda moment: moment.count)
    whole, (kappas, best) = ridged(longest.matrix, ridge), _solved(longest, keys, ridge)
    if kappas[0] == math.inf:
        raise InputError(
            f"moments: the longest text has {longest.count} keys of {len(whole)} dimensions, and no inverse to compare "
            "with; take more text, or a ridge"
        )
    rows = []
    for moment in moments:
        kappas, u = _solved(moment, keys, ridge)
        along = np.sum(u * best, axis=1) / np.linalg.norm(u, axis=1) / np.linalg.norm(best, axis=1)
        cost = np.sum(u * (u @ whole), axis=1) * np.sum(keys * best, axis=1) / np.sum(keys * u, axis=1) ** 2
        size = (moment.count, moment.count / len(whole), *kappas)
        rows += [(*size, number, *pair) for number, pair in enumerate(zip(along, cost, strict=True))]
    return pd.DataFrame(rows, columns=["count", "per_dimension", "kappa", "scaled_kappa", "key", "cosine", "cost"])


def expected_cost(count: ArrayLike, d_in: int) -> np.ndarray:
    """The expected cost of `compare_inverses` for C_n of n = `count` independent normal keys beside their true C:
    (n - 1) / (n - d_in), whatever C and the key are; inf up to d_in.

    That is the loss of an adaptive filter that is computed from samples (Reed, Mallett and Brennan 1974, for complex
    ones): 1 / cost is Beta((n - d_in + 2) / 2, (d_in - 1) / 2). Keys of a text are neither normal nor independent.
    """
    n = np.asarray(count, np.float64)
    return np.where(n > d_in, (n - 1) / np.where(n > d_in, n - d_in, 1), np.inf)


def _whole(pieces: Iterator[list[int]], ahead: list[list[int]], tokens: int) -> Iterator[list[int]]:
    """The next pieces as far as so many tokens hold them whole; the first that they do not is left in `ahead`, which
    the next call begins with."""
    while piece := ahead.pop() if ahead else next(pieces, None):
        if len(piece) > tokens:
            ahead.append(piece)
            return
        tokens -= len(piece)
        yield piece


def _solved(moment: SecondMoment, keys: np.ndarray, ridge: float) -> tuple[tuple[float, float], np.ndarray]:
    """kappa and its scaled form, and C^-1 k of every key [m, d_in]."""
    c = ridged(moment.matrix, ridge)
    factor = cholesky(c) if ridge or moment.count >= len(c) else None
    kappas = condition_number(c, factor), condition_number(c, factor, scaled=True)
    return kappas, np.full_like(keys, np.nan) if factor is None else scipy.linalg.cho_solve(factor, keys.T).T
