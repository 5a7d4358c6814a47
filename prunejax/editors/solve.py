"""The one linear solve of locate-then-edit methods: keys adjusted by what they must not disturb.

Every method here chooses S, what an update costs, and solves for the keys K of a batch and residuals R

    dW = X R^T,  (slack S + K K^T) X = K,  S = S_0 + K_p K_p^T,

as [d_in, d_out], with K_p the keys of earlier edits if they are remembered (`research` names it the key cache). S_0 is
factored once a layer and run (`metric`); the rest goes through Woodbury, so a step solves systems as large as the
number of edits, never d_in x d_in:

    B = S^-1 K = S_0^-1 K - B_p (I + K_p^T B_p)^-1 K_p^T S_0^-1 K,  B_p = S_0^-1 K_p,
    X = B (slack I + K^T B)^-1.

slack 1 is MEMIT's least squares, slack 0 stores the batch exactly, the limit that ROME takes for one key.

Dimensions: n edits of a batch, N that are remembered, of which there is room for so many.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_solve, solve_triangular

from prunejax.mesh import on_host

REFINEMENTS = 1
"""How often X is corrected by its residual where earlier keys are remembered: S^-1 K is then a difference of things
some hundred times as large. Beside float64, X was 2e-4 off after 1,000 keys in 1,024 dimensions without, 3e-5 with."""


class Metric(NamedTuple):
    """S_0 of one layer: S_0^-1 = inverse / weight with `inverse` [d_in, d_in], and S_0 = weight matrix where that is
    needed, None elsewhere."""

    inverse: Array
    weight: float | Array
    matrix: Array | None = None


class KeyCache(NamedTuple):
    """Earlier keys K_p^T [N, d_in], B_p^T [N, d_in], the lower Cholesky factor [N, N] of I + K_p^T B_p, and how many of
    the N rows are used; the others are 0, and those of the identity."""

    keys: Array
    turned: Array
    factor: Array
    used: Array


def no_keys(room: int, d_in: int) -> KeyCache:
    """A cache with room for so many keys."""
    return KeyCache(jnp.zeros((room, d_in)), jnp.zeros((room, d_in)), jnp.eye(room), jnp.int32(0))


def filled(cache: KeyCache) -> KeyCache:
    """The rows that are used, on this host: what is to be stored of a cache, whose room may be a thousand times as
    large. What was cut is still as in one of no keys."""
    n = int(np.clip(on_host(cache.used), 0, len(cache.keys)))
    keys, turned, factor = (on_host(whole) for whole in cache[:3])
    return KeyCache(keys[:n], turned[:n], factor[:n, :n], cache.used)


def solve(metric: Metric, keys: Array, slack: float = 1.0, cache: KeyCache | None = None) -> Array:
    """X [d_in, n] for keys K^T [n, d_in]; with a cache, S holds its keys and X is refined.

    X = B c + B_p c_p, and S_0 X = K c + K_p c_p without S_0 at hand, so what is left to solve is

        slack c + K^T X = I,  c_p + K_p^T X = 0.
    """
    with jax.default_matmul_precision("highest"):
        turned = keys @ metric.inverse / metric.weight
        if cache is None:
            return jnp.linalg.solve(slack * jnp.eye(len(keys)) + turned @ keys.T, turned).T
        cross = cache.keys @ turned.T
        earlier = cho_solve((cache.factor, True), cross)
        small = slack * jnp.eye(len(keys)) + turned @ keys.T - cross.T @ earlier
        c, c_p, left = jnp.zeros_like(small), jnp.zeros_like(cross), jnp.zeros_like(turned)
        for _ in range(1 + REFINEMENTS):
            rest, rest_p = jnp.eye(len(keys)) - slack * c - keys @ left.T, -c_p - cache.keys @ left.T
            back = cho_solve((cache.factor, True), rest_p)
            more = jnp.linalg.solve(small, rest - cross.T @ back)
            c, c_p = c + more, c_p + back - earlier @ more
            left = c.T @ turned + c_p.T @ cache.turned
        return left.T


def remember(metric: Metric, keys: Array, cache: KeyCache) -> KeyCache:
    """The cache with n more keys. Where it has no room for them it becomes NaN, and so do the edits after it."""
    with jax.default_matmul_precision("highest"):
        n, used = len(keys), cache.used
        turned = keys @ metric.inverse / metric.weight
        half = solve_triangular(cache.factor, cache.keys @ turned.T, lower=True)
        gram = turned @ keys.T
        corner = jnp.linalg.cholesky(jnp.eye(n) + (gram + gram.T) / 2 - half.T @ half)
        first, fits = jnp.int32(0), used + n <= len(cache.keys)
        rows = jax.lax.dynamic_update_slice(half.T, corner, (first, used))
        kept = [
            jax.lax.dynamic_update_slice(whole, jnp.where(fits, part, jnp.nan), (used, first))
            for whole, part in zip(cache[:3], (keys, turned, rows), strict=True)
        ]
        return KeyCache(*kept, used + n)
