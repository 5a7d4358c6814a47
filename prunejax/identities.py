"""Which methods are the same: identities between editors, each side computed on the keys of real requests.

One side is the solve that the package edits with; the other is the form in which the method was published or released,
dense, so that a reader recognises it. Both see the same keys K, second moment C and earlier keys K_p.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from prunejax.contexts import Contexts
from prunejax.editors.memit import MemitSettings, memit
from prunejax.editors.metric import inverse_second_moment
from prunejax.editors.null_space import null_basis
from prunejax.editors.solve import Metric, no_keys, remember, solve
from prunejax.editors.spread import in_order, over_groups
from prunejax.editors.streams import read_facts, run_below
from prunejax.editors.ultraedit import Normal, UltraEditSettings, ridge_update
from prunejax.models.checkpoints import Model
from prunejax.requests import EditRequest

BOUNDS = {"float32": 1e-4, "float64": 1e-9}
"""The relative Euclidean distance up to which two sides are the same."""


class Material(NamedTuple):
    """Float64 on the host: C [d_in, d_in] with its ridge, keys K^T [n, d_in] and earlier ones K_p^T [N, d_in]."""

    c: np.ndarray
    keys: np.ndarray
    earlier: np.ndarray


def material_of(
    model: Model, requests: Sequence[EditRequest], contexts: Contexts, c: np.ndarray, layer: int, n: int
) -> Material:
    """The averaged keys of requests at a layer of the unedited model, the first n of them as the batch."""
    settings = MemitSettings(layers=(layer,), second_moment="identity")
    (batch,) = memit(settings).prepare(model, requests, contexts, len(requests))

    def read(rows):
        below = run_below(model.decoder, {}, rows, layer)
        return read_facts(model.decoder, {}, rows, below, weights=batch.weights, layer=layer, last=layer)[0]

    keys = np.asarray(in_order(over_groups(read, batch.rows), batch), np.float64)
    return Material(c.astype(np.float64), keys[:n], keys[n:])


def emmet_is_memit(given: Material) -> tuple[np.ndarray, np.ndarray]:
    """EMMET with weight w and slack epsilon, as published, and MEMIT's solve with lambda = w epsilon."""
    w, epsilon = 1000.0, 0.1
    turned = np.linalg.solve(w * given.c, given.keys.T)
    published = turned @ np.linalg.inv(given.keys @ turned + epsilon * np.eye(len(given.keys)))
    return published, solve(_metric(given, w * epsilon), jnp.asarray(given.keys))


def memit_becomes_r_rome(given: Material) -> tuple[np.ndarray, np.ndarray]:
    """r-ROME's u / (k . u), u = C^-1 k, and MEMIT's solve for one key with lambda near 0."""
    key = given.keys[:1]
    u = np.linalg.solve(given.c, key[0])
    near_zero = 1e-6 if jnp.zeros(()).dtype == jnp.float32 else 1e-12
    return (u / (key[0] @ u))[:, None], solve(_metric(given, near_zero), jnp.asarray(key))


def alphaedit_is_reduced(given: Material) -> tuple[np.ndarray, np.ndarray]:
    """AlphaEdit as released, d_in x d_in and not symmetric, and the solve on its null space."""
    basis = null_basis(given.c, "relative", 0.01)
    p, l2 = basis @ basis.T, 10.0
    gram = given.keys.T @ given.keys + given.earlier.T @ given.earlier
    released = np.linalg.solve(p @ gram + l2 * np.eye(len(p)), p @ given.keys.T)
    metric = Metric(jnp.asarray(p), l2)
    cache = remember(metric, jnp.asarray(given.earlier), no_keys(len(given.earlier), len(p)))
    return released, solve(metric, jnp.asarray(given.keys), 1.0, cache)


def sequential_memit_is_dense(given: Material) -> tuple[np.ndarray, np.ndarray]:
    """(lambda C + K_p K_p^T + K K^T)^-1 K solved whole, and through the remembered keys."""
    s = 100.0 * given.c + given.earlier.T @ given.earlier
    metric = _metric(given, 100.0)
    cache = remember(metric, jnp.asarray(given.earlier), no_keys(len(given.earlier), len(s)))
    whole = np.linalg.solve(s + given.keys.T @ given.keys, given.keys.T)
    return whole, solve(metric, jnp.asarray(given.keys), 1.0, cache)


def ultraedit_is_dual(given: Material) -> tuple[np.ndarray, np.ndarray]:
    """UltraEdit as published, (H^T H + a I)^-1 H^T V with d_in unknowns, and its dual with as many as tokens."""
    n, d_in = given.keys.shape
    gradients = np.random.default_rng(0).normal(size=(n, 8))
    normal = Normal(jnp.asarray(n + 1.0), jnp.zeros(d_in + 8), jnp.full(d_in + 8, float(n)))
    settings = UltraEditSettings((0,), lr=1.0, key_ridge=1.0)
    update = ridge_update(jnp.asarray(given.keys), jnp.asarray(gradients), normal, jnp.ones(n, bool), settings)
    primal = np.linalg.solve(given.keys.T @ given.keys + np.eye(d_in), given.keys.T @ np.asarray(update.right))
    return primal, update.left @ update.right


IDENTITIES: Mapping[str, Callable[[Material], tuple[np.ndarray, np.ndarray]]] = {
    "EMMET(w, epsilon) = MEMIT(w epsilon)": emmet_is_memit,
    "MEMIT(lambda -> 0, one key) = r-ROME": memit_becomes_r_rome,
    "sequential MEMIT through Woodbury = dense": sequential_memit_is_dense,
    "AlphaEdit reduced = released": alphaedit_is_reduced,
    "UltraEdit dual = primal": ultraedit_is_dual,
}


def check_identities(given: Material) -> pd.DataFrame:
    """A row an identity and precision: the relative distance of its two sides, the bound, and whether it holds."""
    rows = []
    for precision, bound in BOUNDS.items():
        with jax.enable_x64(True) if precision == "float64" else nullcontext():
            for name, sides in IDENTITIES.items():
                published, ours = (np.asarray(side, np.float64) for side in sides(given))
                distance = float(np.linalg.norm(ours - published) / np.linalg.norm(published))
                rows.append((name, precision, distance, bound, distance < bound))
    return pd.DataFrame(rows, columns=["identity", "precision", "distance", "bound", "holds"])


def _metric(given: Material, weight: float) -> Metric:
    """C^-1 as an edit has it; in float64 to all its digits."""
    if jnp.zeros(()).dtype == jnp.float32:
        return Metric(jnp.asarray(inverse_second_moment(given.c.astype(np.float32), 0.0, len(given.c))), weight)
    return Metric(jnp.asarray(np.linalg.inv(given.c)), weight)
