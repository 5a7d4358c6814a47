"""Linear systems to hold the bounds of `theory` against: random ones of every shape, and ones made to reach them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.linalg import matrix_norm, vector_norm

from prunejax.theory import System, movement

KAPPA = (1.0, 1e4)
ETA = (1e-3, 0.999)
SIZES = {"tall": (9, 5), "square": (6, 6), "wide": (5, 14)}
ROUNDING = 1e-9
"""Relative rounding that is granted to a bound, in float64: well over eps * kappa / (1 - eta) of the systems here."""


class Family(NamedTuple):
    """Systems of one kind: what makes them so, and whether they fulfil the premises of the simplified bound."""

    draw: Callable[[np.random.Generator, int], System]
    simplified_applies: bool


def random_systems(
    rng: np.random.Generator, n: int, shape: str, consistent: bool = True, moved: bool = False
) -> System:
    """n systems of full rank: log-uniform singular values, kappa and eta, and a random x, E and, if `moved`, db.

    Inconsistent ones have a residual of 0.01 to 100 times ||A x||.
    """
    p, q = SIZES[shape]
    u, sigma, vt = spectra(rng, n, p, q)
    a = (u * sigma[:, None, :]) @ vt
    e = towards(rng.normal(size=(n, p, q)), sigma[:, -1] * log_uniform(rng, n, *ETA))
    b = np.matvec(a, rng.normal(size=(n, q)))
    if not consistent:
        across = rng.normal(size=(n, p))
        across -= np.matvec(u, np.matvec(u.mT, across))
        b = b + scaled(across, vector_norm(b, axis=-1) * log_uniform(rng, n, 1e-2, 1e2))
    db = (
        scaled(rng.normal(size=(n, p)), vector_norm(b, axis=-1) * log_uniform(rng, n, 1e-4, 1.0))
        if moved
        else np.zeros((n, p))
    )
    return System(a, e, b, db)


def attained(rng: np.random.Generator, n: int) -> System:
    """Tall and consistent, E = -eta sigma_n u_n v_n^T and x = v_n: both bounds are reached."""
    u, sigma, vt = spectra(rng, n, *SIZES["tall"])
    a, smallest = (u * sigma[:, None, :]) @ vt, sigma[:, -1]
    e = -(smallest * log_uniform(rng, n, *ETA))[:, None, None] * outer(u[:, :, -1], vt[:, -1])
    return unmoved(a, e, np.matvec(a, vt[:, -1]))


def two_smallest(rng: np.random.Generator, n: int) -> System:
    """Wide and consistent, two equal smallest singular values, E = eta sigma (u_1 w^T - u_2 v_1^T), w in the null space
    of A, x = v_1: the row space turns away from x while the rest of E is amplified."""
    p, q = SIZES["wide"]
    u, sigma, vt = spectra(rng, n, p, q)
    sigma[:, -2] = sigma[:, -1]
    a = (u * sigma[:, None, :]) @ vt
    null = rng.normal(size=(n, q))
    null -= np.matvec(vt.mT, np.matvec(vt, null))
    null = scaled(null, np.ones(n))
    first, second = u[:, :, -1], u[:, :, -2]
    e = (sigma[:, -1] * log_uniform(rng, n, *ETA))[:, None, None] * (outer(first, null) - outer(second, vt[:, -1]))
    return unmoved(a, e, np.matvec(a, vt[:, -1]))


def steered_residual(rng: np.random.Generator, n: int) -> System:
    """Tall and inconsistent, E = eta sigma_n r v_n^T / ||r||, ||r|| from 0.01 to 100 times ||A x||: E carries the
    residual into the direction that A^+ amplifies most."""
    p, q = SIZES["tall"]
    u, sigma, vt = spectra(rng, n, p, q)
    a = (u * sigma[:, None, :]) @ vt
    across = rng.normal(size=(n, p))
    across -= np.matvec(u, np.matvec(u.mT, across))
    across = scaled(across, np.ones(n))
    e = (sigma[:, -1] * log_uniform(rng, n, *ETA))[:, None, None] * outer(across, vt[:, -1])
    b = np.matvec(a, vt[:, 0])
    return unmoved(a, e, b + across * (vector_norm(b, axis=-1) * log_uniform(rng, n, 1e-2, 1e2))[:, None])


def rank_deficient(rng: np.random.Generator, n: int, shape: str = "tall") -> System:
    """A of rank 3 and an A + E of rank 3 with nearby singular vectors and values, b with a residual; some of these have
    eta >= 1 and are not valid."""
    p, q, rank = *SIZES[shape], 3
    u, sigma, vt = spectra(rng, n, p, q, rank)
    a = (u * sigma[:, None, :]) @ vt
    turn = log_uniform(rng, n, *ETA) * sigma[:, -1] / sigma[:, 0]
    near_u, near_vt = (near + turn[:, None, None] * rng.normal(size=near.shape) / 6 for near in (u, vt))
    e = (near_u * sigma[:, None, :]) @ near_vt - a
    b = np.matvec(a, rng.normal(size=(n, q))) + rng.normal(size=(n, p)) * log_uniform(rng, n, 1e-3, 1.0)[:, None]
    return unmoved(a, e, b)


def searched(rng: np.random.Generator, n: int, shape: str, rounds: int = 20) -> Iterator[System]:
    """Random consistent systems that climb towards the bound: in each round E and x move at random, their size kept,
    and stay where moved / wedin grew. Every round's proposal is yielded."""
    here = random_systems(rng, n, shape)
    reached = movement(here)
    for _ in range(rounds):
        step = rng.choice([0.03, 0.3, 1.0], size=n)
        x = np.matvec(np.linalg.pinv(here.a), here.b)
        x = scaled(x, np.ones(n)) + step[:, None] * rng.normal(size=x.shape) / np.sqrt(x.shape[1])
        size = matrix_norm(here.e, ord=2)
        noise = rng.normal(size=here.e.shape) / np.sqrt(max(here.e.shape[1:]))
        e = towards(here.e / size[:, None, None] + step[:, None, None] * noise, size)
        there = unmoved(here.a, e, np.matvec(here.a, x))
        yield there
        found = movement(there)
        better = found.moved / found.wedin > reached.moved / reached.wedin
        here = System(
            *(
                np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip(there, here, strict=True)
            )
        )
        reached = movement(here)


FAMILIES = {
    "tall, consistent": Family(lambda rng, n: random_systems(rng, n, "tall"), True),
    "tall, consistent, b moved": Family(lambda rng, n: random_systems(rng, n, "tall", moved=True), True),
    "square": Family(lambda rng, n: random_systems(rng, n, "square", moved=True), True),
    "tall, inconsistent": Family(lambda rng, n: random_systems(rng, n, "tall", consistent=False, moved=True), False),
    "wide": Family(lambda rng, n: random_systems(rng, n, "wide"), False),
    "wide, b moved": Family(lambda rng, n: random_systems(rng, n, "wide", moved=True), False),
    "attained": Family(attained, True),
    "wide, two smallest": Family(two_smallest, False),
    "tall, steered residual": Family(steered_residual, False),
    "tall, rank 3": Family(rank_deficient, False),
    "wide, rank 3": Family(lambda rng, n: rank_deficient(rng, n, "wide"), False),
}


def draw_systems(n: int, seed: int, batch: int = 2000) -> pd.DataFrame:
    """A row a system, at least n of each family: family, kappa, eta, valid, and as shares of ||x|| moved, wedin and
    simplified (`theory.movement`)."""
    frames = []
    for number, (name, family) in enumerate(FAMILIES.items()):
        rng = np.random.default_rng([seed, number])
        frames += [_frame(name, family.draw(rng, min(batch, n - start))) for start in range(0, n, batch)]
    for number, shape in enumerate(SIZES):
        rng = np.random.default_rng([seed, len(FAMILIES) + number])
        frames += [_frame(f"searched, {shape}", system) for system in searched(rng, -(-n // 20), shape)]
    return pd.concat(frames, ignore_index=True)


def exceeded(systems: pd.DataFrame) -> pd.DataFrame:
    """A row a family: how many systems were drawn and were valid; of the valid, the largest moved / wedin and moved /
    simplified, and how many exceed each bound by more than ROUNDING."""
    kept = systems[systems["valid"]]
    ratios = kept.assign(**{bound: kept["moved"] / kept[bound] for bound in ("wedin", "simplified")})
    families, held = systems.groupby("family", sort=False), ratios.groupby("family", sort=False)
    columns = {"systems": families.size(), "valid": families["valid"].sum()}
    for bound in ("wedin", "simplified"):
        columns[f"moved / {bound}"] = held[bound].max()
        columns[f"{bound} exceeded"] = held[bound].apply(lambda ratio: int((ratio > 1 + ROUNDING).sum()))
    return pd.DataFrame(columns)


def simplified_applies(family: str) -> bool:
    """Whether the systems of a family have full column rank and are consistent."""
    return FAMILIES[family].simplified_applies if family in FAMILIES else family != "searched, wide"


def _frame(family: str, system: System) -> pd.DataFrame:
    return pd.DataFrame({"family": family, **movement(system)._asdict()})


def spectra(
    rng: np.random.Generator, n: int, p: int, q: int, rank: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random U [n, p, k], singular values [n, k] and V^T [n, k, q], k = min(p, q) or `rank`; kappa log-uniform."""
    k = rank or min(p, q)
    u = np.linalg.qr(rng.normal(size=(n, p, k)))[0]
    vt = np.linalg.qr(rng.normal(size=(n, q, k)))[0].mT
    exponents = np.sort(rng.random((n, k)), axis=1)[:, ::-1]
    exponents = (exponents - exponents[:, -1:]) / (exponents[:, :1] - exponents[:, -1:])
    return u, log_uniform(rng, n, *KAPPA)[:, None] ** exponents, vt


def unmoved(a: np.ndarray, e: np.ndarray, b: np.ndarray) -> System:
    """A system whose right side stays."""
    return System(a, e, b, np.zeros_like(b))


def log_uniform(rng: np.random.Generator, n: int, least: float, most: float) -> np.ndarray:
    return np.exp(rng.uniform(np.log(least), np.log(most), n))


def towards(matrix: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """Each matrix at the spectral norm given."""
    return matrix * (norm / matrix_norm(matrix, ord=2))[:, None, None]


def scaled(vector: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Each vector at the length given."""
    return vector * (size / vector_norm(vector, axis=-1))[:, None]


def outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left[:, :, None] * right[:, None, :]
