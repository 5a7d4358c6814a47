"""The solve on a few neurons alone: of each key only the loudest entries are written (NSE, Jiang et al. 2024)."""

import jax
import jax.numpy as jnp
from jax import Array

from prunejax.editors.solve import KeyCache, Metric


def loudest(keys: Array, keep: float) -> Array:
    """Which neurons [d_in] are the fewest that hold the share `keep` of sum |k| over all keys K^T [n, d_in]."""
    loud = jnp.sum(jnp.abs(keys), axis=0)
    order = jnp.argsort(-loud)
    before = jnp.cumsum(loud[order]) - loud[order]
    return jnp.zeros(len(loud), bool).at[order].set(before < keep * jnp.sum(loud))


def solve_within(metric: Metric, keys: Array, keep: float, cache: KeyCache) -> Array:
    """X [d_in, n] with the rows of quiet neurons 0 and, on the others I, (S_II + K_I K_I^T) X_I = K_I.

    I changes with every batch and no factor of S gives that of S_II, so what is solved is d_in x d_in, in float32.
    """
    with jax.default_matmul_precision("highest"):
        within = loudest(keys, keep)
        k = jnp.where(within, keys, 0.0)
        i = jnp.eye(len(within))
        s = metric.weight * metric.matrix + cache.keys.T @ cache.keys
        s = jnp.where(within[:, None] & within[None, :], s, i)
        return jnp.linalg.solve(s + k.T @ k, k.T)
