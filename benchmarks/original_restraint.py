"""PRUNE's restraint as the authors' program does it, with NumPy on dense matrices: four full decompositions of every
edited matrix, singular vectors and all, though three of them are only looked at."""

import math
from typing import NamedTuple

import numpy as np


class Restrained(NamedTuple):
    """The restrained weight, and the singular values of the update, of the three weights: unedited, edited,
    restrained."""

    weight: np.ndarray
    update: np.ndarray
    unedited: np.ndarray
    edited: np.ndarray
    restrained: np.ndarray


def restrain_dense(unedited: np.ndarray, edited: np.ndarray, base: float) -> Restrained:
    """W_0 + U diag(F(s)) V^T of two float32 matrices, F(s) = m + log_base(s / m) where s >= m = sigma_max(W_0).

    Directions beyond the rank that NumPy finds (singular values under max(d_in, d_out) 1.2e-7 of the largest) are
    dropped, which the paper does not say.
    """
    update = edited - unedited
    left, sigma, right = np.linalg.svd(update, full_matrices=True)
    _, sigma_unedited, _ = np.linalg.svd(unedited, full_matrices=True)
    _, sigma_edited, _ = np.linalg.svd(edited, full_matrices=True)
    rank = np.linalg.matrix_rank(update)
    m = sigma_unedited.max()
    mapped = sigma.copy()
    for i, s in enumerate(sigma):
        if s >= m:
            mapped[i] = math.log(s, base) - math.log(m, base) + m
    restrained = unedited + (left[:, :rank] * mapped[:rank]) @ right[:rank]
    _, sigma_restrained, _ = np.linalg.svd(restrained, full_matrices=True)
    return Restrained(restrained, sigma, sigma_unedited, sigma_edited, sigma_restrained)
