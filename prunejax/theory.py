"""How far a perturbed linear system can move its solution: the bounds behind PRUNE's argument, and what it promises.

A weight is read as the system A x = b with the minimum-norm least-squares solution x = A^+ b. An edit perturbs it to
(A + E) x~ = b + db. With

    kappa = ||A|| ||A^+||,   eps_A = ||E|| / ||A||,   eta = kappa eps_A = ||A^+|| ||E||,   r = b - A x,

spectral norms for matrices and Euclidean ones for vectors, and where rank(A + E) = rank(A) and eta < 1, Wedin's theorem
(1973; the textbook form is Bjorck 1996, theorem 1.4.6) says

    ||x~ - x|| <= kappa / (1 - eta) (eps_A ||x|| + ||db|| / ||A|| + eps_A kappa ||r|| / ||A||) + eta ||x||,

the last term only if rank(A) is less than the number of columns. The simplified bound that the argument quotes,

    ||x~ - x|| / ||x|| <= kappa / (1 - eta) (eps_A + eps_b),   eps_b = ||db|| / ||b||,

is this one for full column rank *and* a consistent system (r = 0); without either it does not hold.

All is float64 on the host, for one system or a stack of them: A and E are [..., p, q], b and db [..., p], x [..., q].
"""

from typing import NamedTuple

import numpy as np
from numpy.linalg import matrix_norm, vector_norm
from scipy.special import lambertw

from prunejax.restraint import Restraint

RANK_TOLERANCE = 1e-10
"""A singular value counts as zero below this share of the largest: float64 rounding is four orders under it, and no
system that is held against a bound here has a condition number near 1e10."""


class System(NamedTuple):
    """A [..., p, q], its perturbation E [..., p, q], the right side b [..., p] and its change db [..., p]; float64."""

    a: np.ndarray
    e: np.ndarray
    b: np.ndarray
    db: np.ndarray


class Movement(NamedTuple):
    """How far the solution moved, and how far it might have, all as shares of ||x||, [...]; see `movement`."""

    moved: np.ndarray
    wedin: np.ndarray
    simplified: np.ndarray
    kappa: np.ndarray
    eta: np.ndarray
    valid: np.ndarray


def movement(system: System) -> Movement:
    """What a perturbation does to the solution, and what the bounds say.

    moved        ||x~ - x|| / ||x||
    wedin        the right side of Wedin's theorem over ||x||
    simplified   kappa / (1 - eta) (eps_A + eps_b), whether or not its premises hold
    kappa, eta   of the unperturbed system
    valid        whether rank(A + E) = rank(A) and eta < 1, the conditions of both; where not, the bounds are infinite

    Misleads: a bound far above `moved` says nothing of what typically happens, and an infinite one nothing at all.
    """
    a, e, b, db = (np.asarray(part, np.float64) for part in system)
    (x, norm_a, norm_inverse, rank), (moved_x, _, _, moved_rank) = solve(a, b), solve(a + e, b + db)
    size, kappa, norm_e = vector_norm(x, axis=-1), norm_a * norm_inverse, matrix_norm(e, ord=2)
    residual, eps_a, eta = vector_norm(b - np.matvec(a, x), axis=-1), norm_e / norm_a, norm_inverse * norm_e
    valid = (moved_rank == rank) & (eta < 1)
    steep = np.divide(kappa, 1 - eta, out=np.full_like(eta, np.inf), where=valid)
    wedin = steep * (eps_a * size + vector_norm(db, axis=-1) / norm_a + eps_a * kappa * residual / norm_a)
    wedin = wedin + np.where(rank < a.shape[-1], eta, 0.0) * size
    simplified = steep * (eps_a + vector_norm(db, axis=-1) / vector_norm(b, axis=-1))
    return Movement(vector_norm(moved_x - x, axis=-1) / size, wedin / size, simplified, kappa, eta, valid)


def solve(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The minimum-norm least-squares solution A^+ b [..., q], and ||A||, ||A^+|| and the rank of A [...]."""
    u, sigma, vt = np.linalg.svd(a, full_matrices=False)
    counted = sigma > RANK_TOLERANCE * sigma[..., :1]
    inverse = np.divide(1.0, sigma, out=np.zeros_like(sigma), where=counted)
    x = np.matvec(vt.mT, inverse * np.matvec(u.mT, b))
    return x, sigma[..., 0], inverse.max(axis=-1), counted.sum(axis=-1)


def wide_bound(eta: np.ndarray | float) -> np.ndarray | float:
    """sqrt(eta^2 + (eta / (1 - eta))^2), which bounds ||x~ - x|| / ||x|| for full row rank, r = 0 and db = 0.

    Of x~ - x = -(I - A~^+ A~) x - A~^+ E x, with A~ = A + E, the first part lies in the null space of A~ and the second
    in its row space; they are orthogonal, at most eta and eta / (1 - eta). The edited matrices are of this wide kind,
    as maps from key to value. The simplified bound eta / (1 - eta) misses the first part: a factor of up to sqrt(2).
    """
    return np.hypot(eta, eta / (1 - eta))


def vanishing_update(weight: np.ndarray) -> np.ndarray:
    """-sigma_n u_n v_n^T [p, q], float64: the smallest update that makes a matrix of full rank lose a rank.

    Its norm is sigma_min(W), so no map that leaves singular values under sigma_max(W_0) alone touches it, and the
    condition number ||W|| ||W^-1|| of W plus it is infinite.
    """
    u, sigma, vt = np.linalg.svd(np.asarray(weight, np.float64), full_matrices=False)
    return -sigma[-1] * np.outer(u[:, -1], vt[-1])


def sigma_max_guarantee(restraint: Restraint, s_max: float, m: float) -> float:
    """m + max F(s) over s <= s_max: what sigma_max(W_0 + U diag(F(s)) V^T) can be at most, m = sigma_max(W_0).

    For log:BASE and s_max >= m it is 2m + ln(s_max / m) / ln(BASE). It holds for maps that grow with s. Nothing of the
    kind holds for sigma_min, so nothing for kappa.
    """
    return float(m + restraint.function(np.array([s_max]), m)[0])


def amplified_until(m: float, ln_base: float) -> float:
    """Where log:BASE stops to amplify: the s* > m with F(s*) = s*, or m itself if m ln(BASE) >= 1; units of s.

    With c = m ln(BASE) and t = s* / m, F(s) > s wherever c (t - 1) < ln(t): between 1 and t = -W_{-1}(-c e^{-c}) / c,
    W_{-1} the lower branch of Lambert's function.
    """
    c = m * ln_base
    if c >= 1:
        return m
    return float(m * -lambertw(-c * np.exp(-c), -1).real / c)
