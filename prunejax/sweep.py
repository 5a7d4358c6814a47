"""One accumulated update under many restraints: what they share is computed once."""

from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
from jax import Array
from scipy.linalg.blas import sgemm

from prunejax.mesh import on_host
from prunejax.spectra import Svd, svd
from prunejax.update import Update

ROWS = 1024
"""Rows of a weight that are copied and added to before they leave the processor's cache."""

ALIGNMENT = 64
"""Bytes; memory that begins at a multiple of it becomes an array of a CPU without being copied."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """A weight W_0 [d_in, d_out], the accumulated update D to it and m = sigma_max(W_0), to be restrained.

    What does not depend on the restraint is computed when it is first asked for and then kept: the factors of D, and
    W_0 with that part of D that maps leave alone.
    """

    weight: Array
    update: Update
    m: float

    @cached_property
    def factors(self) -> Svd:
        """svd(D), D = U diag(s) V^T."""
        return svd(self.update)

    @cached_property
    def sigma(self) -> np.ndarray:
        """s, descending, float64 [k] (the values of `factors`, so good to 1e-7 of the largest)."""
        return on_host(self.factors.sigma).astype(np.float64)

    @cached_property
    def touched(self) -> int:
        """How many s are at or above m: the first ones."""
        return int(np.sum(self.sigma >= self.m))

    @cached_property
    def below(self) -> np.ndarray:
        """W_0 + sum of s_i u_i v_i^T over s_i < m, float32 [d_in, d_out], on the host."""
        left, right = (on_host(part) for part in (self.factors.left, self.factors.right))
        scaled = left[:, self.touched :] * self.sigma[self.touched :].astype(left.dtype)
        return _plus(on_host(self.weight), scaled, right[self.touched :])

    def weight_with(self, sigma: np.ndarray) -> Array:
        """W_0 + U diag(sigma) V^T in the weight's dtype, laid out on devices as the weight is; `sigma` float64 [k].

        Where the s below m are left as they are, only the others' triplets are multiplied out and added to `below`: for
        each restraint O(d_in d_out) times the few that it touches. The sum is built up, s_i > m are never in it, so
        nothing cancels after a collapse.
        """
        alone = np.array_equal(sigma[self.touched :], self.sigma[self.touched :])
        k, start = (self.touched, self.below) if alone else (len(sigma), on_host(self.weight))
        left, right = (on_host(part) for part in (self.factors.left, self.factors.right))
        summed = _plus(start, left[:, :k] * sigma[:k].astype(left.dtype), right[:k])
        return jax.device_put(summed.astype(self.weight.dtype, copy=False), self.weight.sharding, may_alias=True)


def _plus(weight: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """weight + left @ right, float32, in memory that a CPU's arrays can take over."""
    memory = np.empty(4 * weight.size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    total = memory[start : start + 4 * weight.size].view(np.float32).reshape(weight.shape)
    for first in range(0, len(weight), ROWS):
        rows = slice(first, first + ROWS)
        total[rows] = weight[rows]
        # What C calls left @ right is right^T @ left^T to BLAS; it adds to what it finds, without an array between.
        sgemm(1.0, right.T, left[rows].T, beta=1.0, c=total[rows].T, overwrite_c=True)
    return total
