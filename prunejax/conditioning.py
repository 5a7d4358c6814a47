"""kappa(W_n) along a run of edits, without a decomposition of W_n for every n."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from jax.typing import ArrayLike

from prunejax.mesh import on_host
from prunejax.spectra import ROUNDING, Spectrum, gram, gram_spectrum, singular_values, spectrum_of
from prunejax.update import LowRank, Update

ROWS = 512
"""Rows of the weight that are read from memory once for both products of a step."""

FLOAT32_MAX = float(np.finfo(np.float32).max)
"""What a model's weight can hold at most."""


def spectra_along(weight: ArrayLike, updates: Iterable[Update]) -> Iterator[Spectrum]:
    """The `spectrum` of W_0 + D after each of the accumulated updates D, lazily, on the host in float64.

    An update that continues the one before it by some columns L and rows R, as the sums of more and more edits do,
    costs O(d_in d_out r) and the eigenvalues of a [k, k] matrix, k = min(d_in, d_out): the smaller Gram matrix G of
    W = W_0 + D is carried along,

        C = W^T L + R^T (L^T L) / 2,    W <- W + L R,    G <- G + C R + (C R)^T.

    How far rounding may have moved an eigenvalue is summed up over the steps. Where that leaves the smallest one in
    doubt (`gram_spectrum`), G is formed anew from W; where it still does, from kappa = 1e6 or a lost rank on, W is
    decomposed, at the price of an SVD. So sigma_min and kappa are right to 5e-4 at worst, and to 1e-8 where a thousand
    edits keep kappa at 1e4. A weight that float32 cannot hold has a NaN spectrum, as that of the model has.

    Misleads: W is not rounded to float32 here. A model's is, which moves singular values by some 1e-8 of the largest:
    kappa by 1e-8 kappa of itself, or less (measured at 6400 x 1600 and kappa = 1e4: 1e-6).
    """
    before, largest = None, 0.0
    for update in updates:
        added = _added(before, update)
        if added is None:
            matrix = _upright(on_host(weight).astype(np.float64) + _multiplied(update))
            carried, moved = gram(matrix), 0.0
        else:
            moved += _carry(matrix, carried, *added, largest)
        found = gram_spectrum(carried, moved)
        if found is None and moved:
            carried, moved = gram(matrix), 0.0
            found = gram_spectrum(carried)
        found = found or spectrum_of(singular_values(matrix))
        if found.sigma_max > FLOAT32_MAX:
            found = Spectrum(*[math.nan] * 5)
        before, largest = update, found.sigma_max
        yield found


def _added(before: Update | None, update: Update) -> tuple[np.ndarray, np.ndarray] | None:
    """The factors L and R by which an update continues the one before it, float64 [long side, r] and [r, k], as the
    matrix is held; None if it does not."""
    if not isinstance(before, LowRank) or not isinstance(update, LowRank):
        return None
    (left, right), (first, second) = (map(on_host, factors) for factors in (update, before))
    r = first.shape[1]
    if not np.array_equal(left[:, :r], first) or not np.array_equal(right[:r], second):
        return None
    left, right = left[:, r:].astype(np.float64), right[r:].astype(np.float64)
    return (left, right) if left.shape[0] >= right.shape[1] else (right.T, left.T)


def _carry(matrix: np.ndarray, carried: np.ndarray, left: np.ndarray, right: np.ndarray, largest: float) -> float:
    """Add left @ right to the matrix and what this changes to its Gram matrix, both in place; returns how far rounding
    may have moved an eigenvalue of the latter. `largest` is sigma_max of the matrix before."""
    with np.errstate(invalid="ignore"):  # a collapsed update: the caller looks at the result
        cross = right.T @ (left.T @ left) / 2
        for start in range(0, len(matrix), ROWS):
            rows = slice(start, start + ROWS)
            cross += matrix[rows].T @ left[rows]
            matrix[rows] += left[rows] @ right
        change = cross @ right
        carried += change
        carried += change.T
    length = np.linalg.norm(left, axis=0) @ np.linalg.norm(right, axis=1)
    return ROUNDING * (largest + length) ** 2


def _multiplied(update: Update) -> np.ndarray:
    """The matrix that an update stands for, float64 [d_in, d_out]."""
    left, *right = (on_host(part).astype(np.float64) for part in update)
    with np.errstate(invalid="ignore"):
        return left @ right[0] if right else left


def _upright(matrix: np.ndarray) -> np.ndarray:
    """The matrix, or its transpose if that is the taller one."""
    return matrix if matrix.shape[0] >= matrix.shape[1] else np.ascontiguousarray(matrix.T)
