"""Restraints on the weight itself: what bounds W_n however much was added to it.

    cap:C      no singular value above C sigma_max(W_0): the others stay, with their directions
    spectral   W_n min(1, sigma_max(W_0) / sigma_max(W_n)): spectral normalisation
    frobenius  W_n ||W_0||_F / ||W_n||_F

All three stand commented out in ENCORE's repository. They read W_n alone, so they also bound what was not edited: an
unedited direction just below C sigma_max(W_0) is safe, but scaling shrinks it with everything else.
"""

import re
from collections.abc import Callable

import numpy as np

from prunejax.errors import InputError

SPECS = "cap:C, spectral, frobenius"
Cap = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""(W_n, W_0, sigma_max(W_0)) -> the capped W_n, float64 [d_in, d_out]."""


def is_cap(spec: str) -> bool:
    """Whether a text names one of these."""
    return spec.partition(":")[0] in ("cap", "spectral", "frobenius")


def parse_cap(spec: str) -> Cap:
    """The cap that `spec` names; InputError, one line, if it names none."""
    name, _, number = spec.partition(":")
    if name == "cap" and re.fullmatch(r"[0-9]+(\.[0-9]+)?", number) and float(number) >= 1:
        return lambda weight, original, m: cap(weight, float(number) * m)
    if spec == "spectral":
        return lambda weight, original, m: weight * min(1.0, m / _largest(weight))
    if spec == "frobenius":
        return lambda weight, original, m: weight * (np.linalg.norm(original) / np.linalg.norm(weight))
    raise InputError(f"restraint {spec!r}: not one of {SPECS}, C at least 1 (for example cap:1.5)")


def cap(weight: np.ndarray, most: float) -> np.ndarray:
    """The nearest matrix, in either norm, with no singular value above `most`; the weight itself, to the bit, if it has
    none. NaN for a weight that is not finite."""
    if not np.isfinite(weight).all():
        return np.full_like(weight, np.nan)
    left, sigma, right = np.linalg.svd(weight, full_matrices=False)
    above = int(np.sum(sigma > most))
    if not above:
        return weight
    return weight - (left[:, :above] * (sigma[:above] - most)) @ right[:above]


def _largest(weight: np.ndarray) -> float:
    if not np.isfinite(weight).all():
        return np.nan
    return float(np.linalg.norm(weight, 2))
