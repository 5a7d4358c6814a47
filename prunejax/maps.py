"""The maps F(s) of singular values by which restraints differ; `restraint` says what each is and what it is for."""

import math
from collections.abc import Callable
from functools import wraps

import numpy as np

Map = Callable[[np.ndarray, float], np.ndarray]
"""(sigma [k], m) -> F(sigma) [k], float64."""


def from_m_up(formula: Map) -> Map:
    """The map that is `formula` where s >= m and changes nothing below; NaN stays NaN."""

    @wraps(formula)
    def function(sigma: np.ndarray, m: float, **parameters: float) -> np.ndarray:
        return np.where(sigma < m, sigma, formula(np.maximum(sigma, m), m, **parameters))

    return function


def identity(sigma: np.ndarray, m: float) -> np.ndarray:
    """No restraint."""
    return sigma


@from_m_up
def log(sigma: np.ndarray, m: float, base: float) -> np.ndarray:
    """PRUNE. Not scale-free: m and the logarithm are added in absolute units, so see `margin`."""
    return m + np.log(sigma / m) / math.log(base)


@from_m_up
def scaled_log(sigma: np.ndarray, m: float, base: float) -> np.ndarray:
    """PRUNE in units of m: F(c s, c m) = c F(s, m). It is log with the base BASE^(1/m)."""
    return m * (1 + np.log(sigma / m) / math.log(base))


@from_m_up
def linear(sigma: np.ndarray, m: float) -> np.ndarray:
    """Halve what exceeds m."""
    return (sigma + m) / 2


@from_m_up
def clip(sigma: np.ndarray, m: float) -> np.ndarray:
    """Remove what exceeds m."""
    return np.minimum(sigma, m)


def rescale(sigma: np.ndarray, m: float, like: Map) -> np.ndarray:
    """Shrink every direction alike, to the Frobenius norm that the map `like` would give."""
    norm = np.linalg.norm(sigma)
    return sigma * (np.linalg.norm(like(sigma, m)) / norm) if norm > 0 else sigma


def truncated(sigma: np.ndarray, m: float, tolerance: float, like: Map) -> np.ndarray:
    """The map `like`, and nothing in the directions below `tolerance` of the largest singular value."""
    return np.where(sigma > tolerance * sigma.max(initial=0.0), like(sigma, m), 0.0)


def added(sigma: np.ndarray, m: float, like: Map) -> np.ndarray:
    """The restrained update on top of the unrestrained one, never meant by PRUNE."""
    return sigma + like(sigma, m)
