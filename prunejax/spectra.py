"""Singular values of weights and updates: what PRUNE watches, and the factors that a restraint works on.

Two precisions, on purpose. Numbers that are reported (`sigma_max`, `spectrum`) are computed on the host in float64, so
they do not depend on the device. Factors that are worked on (`svd`) are float32 arrays; the long sides of a low-rank
update stay on the device. A matrix with a NaN or an infinity in it has NaN singular values: a collapsed weight is a
result that must stay visible, not an exception.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from prunejax.lanczos import largest_singular_value
from prunejax.mesh import on_devices, on_host
from prunejax.update import Dense, LowRank, Update, product, shape

RANK_TOLERANCE = 1e-6
"""A singular value counts if it is above this share of the largest.

Storing a matrix in float32 moves its singular values by at most about one epsilon (1.2e-7) of the largest, whatever its
size; 1e-6 leaves room for sums of some tens of rounded terms.
"""

ROUNDING = 4 * float(np.finfo(np.float64).eps)
"""How far rounding in float64 moves the smallest eigenvalue of a Gram matrix, as a share of the largest: measured up to
6400 x 1600 at most half an epsilon, taken to be four."""

DOUBT = 1e-3
"""An eigenvalue of a Gram matrix counts as known if rounding may have moved it by at most this share of itself, and so
a singular value by half of that."""

SMALL = 256
"""Up to this smaller side all eigenvalues of the Gram matrix are found sooner than the largest one alone."""


class Svd(NamedTuple):
    """left @ diag(sigma) @ right: U is `left` [d_in, k], V^T is `right` [k, d_out], sigma [k] descends; float32."""

    left: Array
    sigma: Array
    right: Array


class Spectrum(NamedTuple):
    """What records keep of a matrix's singular values: five floats, see `spectrum`."""

    sigma_max: float
    sigma_min: float
    kappa: float
    frobenius: float
    rank: float


def svd(update: Update) -> Svd:
    """The thin singular value decomposition of an update, by the cheaper route.

    A LowRank whose rank r is below min(d_in, d_out) is never formed: with left = Q_1 R_1 and right^T = Q_2 R_2,

        left right = Q_1 (R_1 R_2^T) Q_2^T,

    the device does the long sides (`thin_qr`) and only the r x r core in brackets is decomposed: O((d_in + d_out) r^2 +
    r^3), k = r. Anything else is decomposed as a matrix, k = min(d_in, d_out).

    What is decomposed is so on the host in float64, and then rounded: a restraint keeps triplets hundreds of times
    smaller than a collapsed update's largest, and float32 blurs them by an epsilon of that largest one. On a CPU
    float64 hardly takes longer (some 25 s for a dense 6400 x 1600 on two cores). A non-finite update gives NaN.

    Misleads: signs of the vectors, and any basis within equal singular values, are arbitrary; compare projectors.
    """
    if rank_bound(update) == min(shape(update)):
        return Svd(*_svd_on_host(*update))
    (q_left, r_left), (q_right, r_right) = thin_qr(*update)
    u, sigma, vt = _svd_on_host(r_left, r_right.T)
    return Svd(product(q_left, u), sigma, product(vt, q_right.T))


@jax.jit
def thin_qr(left: Array, right: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(Q_1, R_1) of left [d_in, r] and (Q_2, R_2) of right^T [d_out, r]. Columns may differ in length by far."""
    return jnp.linalg.qr(left), jnp.linalg.qr(right.T)


def sigma_max(weight: ArrayLike) -> float:
    """The largest singular value of a matrix: PRUNE's m when the weight is the unedited one.

    It is the root of the largest eigenvalue of the smaller Gram matrix, in float64; where that would be large, it is
    ||A v|| with v by Lanczos (`lanczos`), 2e-8 of it below at most. Squaring loses half the digits of the *small*
    singular values and none of this one's. A non-finite matrix gives NaN.
    """
    matrix = on_host(weight)
    if not np.isfinite(matrix).all():
        return math.nan
    if min(matrix.shape) > SMALL and matrix.any():
        return largest_singular_value(matrix.astype(np.result_type(matrix, np.float32), copy=False))
    return math.sqrt(max(np.linalg.eigvalsh(gram(matrix.astype(np.float64)))[-1], 0.0))


def singular_values(matrix: ArrayLike | Update) -> np.ndarray:
    """The singular values of a matrix or an update, descending, float64 [k], computed on the host.

    k = min(d_in, d_out), but for a LowRank of smaller rank r it is r: the others are exactly zero.
    """
    core = _core(matrix)
    return np.linalg.svd(core, compute_uv=False) if np.isfinite(core).all() else np.full(min(core.shape), np.nan)


def spectrum(matrix: ArrayLike | Update) -> Spectrum:
    """The spectrum of a matrix or an update, computed on the host in float64.

    sigma_max    largest singular value
    rank         numerical rank: how many singular values exceed RANK_TOLERANCE * sigma_max
    sigma_min    the smallest of those, so the smallest *non-zero* singular value
    kappa        sigma_max / sigma_min = ||A|| ||A^+||, the paper's condition number
    frobenius    root of the sum of squares of all singular values

    By the eigenvalues of the smaller Gram matrix where these say enough (`gram_spectrum`: sigma_min to 5e-4 at worst,
    to 1e-8 up to kappa = 1e4), else by an SVD. Non-finite matrix: every number is NaN. Zero matrix: all are 0 and
    kappa, undefined, is NaN.

    Misleads: a direction that falls under the tolerance leaves rank, sigma_min and kappa together, so a matrix that
    becomes singular can show a *falling* kappa: read it beside rank. A restraint limits sigma_max and promises nothing
    about sigma_min, so nothing about kappa either. kappa of an update of low rank says nothing about the edited weight.
    """
    core = _core(matrix)
    return gram_spectrum(gram(core)) or spectrum_of(singular_values(core))


def spectrum_of(sigma: np.ndarray) -> Spectrum:
    """The spectrum of a matrix that has these singular values, in any order."""
    if not np.isfinite(sigma).all():
        return Spectrum(*[math.nan] * 5)
    largest = sigma.max(initial=0.0)
    counted = sigma[sigma > RANK_TOLERANCE * largest]
    smallest = counted.min(initial=largest)
    return Spectrum(
        sigma_max=float(largest),
        sigma_min=float(smallest),
        kappa=float(largest / smallest) if smallest > 0 else math.nan,
        frobenius=float(np.linalg.norm(sigma)),
        rank=float(counted.size),
    )


def gram(matrix: np.ndarray) -> np.ndarray:
    """The smaller of A A^T and A^T A, float64 [k, k], k = min(d_in, d_out)."""
    with np.errstate(invalid="ignore", over="ignore"):
        return matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix


def gram_spectrum(matrix: np.ndarray, moved: float = 0.0) -> Spectrum | None:
    """The spectrum of A by its smaller Gram matrix, None where the smallest eigenvalue is not known to DOUBT of itself.

    Rounding moves an eigenvalue by up to ROUNDING of the largest, so kappa can be told up to 1 / sqrt(ROUNDING /
    DOUBT), some 1e6. `moved` is what else may have moved them, in their own units. A matrix with a rank below k or
    with a NaN is None.
    """
    if not matrix.size or not np.isfinite(matrix).all():
        return None
    found = np.linalg.eigvalsh(matrix)
    if not ROUNDING * found[-1] + moved < DOUBT * found[0]:
        return None
    return spectrum_of(np.sqrt(found))


def mean_squares(columns: ArrayLike, second_moment: ArrayLike) -> np.ndarray:
    """d_j^T C d_j of every column of D [d_in, k]: the mean of (d_j . k)^2 over the keys k of a text whose second moment
    C [d_in, d_in] is the mean of k k^T, float64 [k]. No key is needed. NaN for what is not finite.

    Their sum is the mean of ||D^T k||^2; its root, of an update over that of the weight, is how much of what the weight
    says to the text has changed.

    Misleads: biases, which no edit changes, are not part of it; a text that never visits a direction cannot see it.
    """
    d = on_host(columns).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.sum(d * (np.asarray(second_moment, np.float64) @ d), axis=0)


def rank_bound(update: Update) -> int:
    """How many singular values of `update` can differ from zero: min(d_in, d_out), or a LowRank's rank if smaller."""
    held = (update.left.shape[1],) if isinstance(update, LowRank) else ()
    return min(*shape(update), *held)


def _svd_on_host(*factors: ArrayLike) -> list[Array]:
    """U, sigma, V^T of the product of the factors, decomposed in float64, handed back in float32; NaN if not finite."""
    matrix = _product_on_host(*factors)
    if np.isfinite(matrix).all():
        return [on_devices(part.astype(np.float32)) for part in np.linalg.svd(matrix, full_matrices=False)]
    d_in, d_out = matrix.shape
    k = min(d_in, d_out)
    return [jnp.full((d_in, k), jnp.nan), jnp.full(k, jnp.nan), jnp.full((k, d_out), jnp.nan)]


def _core(matrix: ArrayLike | Update) -> np.ndarray:
    """A float64 matrix with the singular values of a matrix or an update: itself, or R_1 R_2^T of a LowRank."""
    update = matrix if isinstance(matrix, LowRank | Dense) else Dense(on_host(matrix))
    parts = [on_host(part).astype(np.float64, copy=False) for part in update]
    if rank_bound(update) < min(shape(update)):
        left, right = parts
        parts = [np.linalg.qr(left, mode="r"), np.linalg.qr(right.T, mode="r").T]
    return _product_on_host(*parts)


def _product_on_host(*factors: ArrayLike) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a collapsed update: the callers look at the result
        return functools.reduce(np.matmul, (on_host(factor).astype(np.float64) for factor in factors))
