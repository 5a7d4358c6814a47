"""Slow, obvious versions that the tests hold the package against: numpy, float64, one number at a time."""

import math

import numpy as np


def restrained_value(spec: str, s: float, m: float) -> float:
    """F(s) for one singular value, written out case by case (rescale needs all of them: see `restrained_delta`)."""
    if s < m or spec == "none":
        return s
    if spec == "linear":
        return (s + m) / 2
    if spec == "clip":
        return m
    name, base = spec.split(":")
    base = math.e if base == "e" else float(base)
    if name == "log":
        return math.log(s, base) - math.log(m, base) + m
    assert name == "scaled-log"
    return m + m * math.log(s / m, base)


def restrained_delta(spec: str, delta: np.ndarray, m: float) -> np.ndarray:
    """The restrained update: a full SVD, then one rank-one matrix a singular value, added up."""
    delta = np.asarray(delta, np.float64)
    if spec.startswith("rescale:"):
        inner = restrained_delta(spec.removeprefix("rescale:"), delta, m)
        return delta * (np.linalg.norm(inner) / np.linalg.norm(delta))
    left, sigma, right = np.linalg.svd(delta)
    total = np.zeros_like(delta)
    for i, s in enumerate(sigma):
        total += restrained_value(spec, float(s), m) * np.outer(left[:, i], right[i])
    return total


def restrained_weight(spec: str, original: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """From the two weights, as somebody would who kept nothing else: W_0 + F(W_n - W_0), threshold sigma_max(W_0)."""
    original, edited = np.asarray(original, np.float64), np.asarray(edited, np.float64)
    m = float(np.linalg.svd(original, compute_uv=False)[0])
    return original + restrained_delta(spec, edited - original, m)


def projector(vectors: np.ndarray) -> np.ndarray:
    """The orthogonal projector onto the span of the columns of `vectors` (linearly independent)."""
    vectors = np.asarray(vectors, np.float64)
    return vectors @ np.linalg.inv(vectors.T @ vectors) @ vectors.T


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    """||actual - expected|| / ||expected|| in the Frobenius norm, NaN where anything is NaN."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def with_spectrum(rng: np.random.Generator, d_in: int, d_out: int, sigma: list[float]) -> np.ndarray:
    """A random [d_in, d_out] matrix, float64, with the given non-zero singular values."""
    left = np.linalg.qr(rng.normal(size=(d_in, len(sigma))))[0]
    right = np.linalg.qr(rng.normal(size=(d_out, len(sigma))))[0]
    return left @ np.diag(sigma) @ right.T


def rotation(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random orthogonal matrix [size, size], float64."""
    return np.linalg.qr(rng.normal(size=(size, size)))[0]
