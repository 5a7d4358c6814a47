"""The cases of spectra: the restraint beside the authors' dense procedure, and kappa along a run beside a thin SVD at
each checkpoint; one core and one BLAS thread, in the shape of a GPT-2 XL down projection."""

import math
from functools import cache
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import ours
from benchmarks.clock import timed, times
from benchmarks.measurements import NAN, Measurement, distance, measurement
from benchmarks.original_restraint import restrain_dense
from benchmarks.sides import Call, peak_mb
from prunejax.conditioning import spectra_along
from prunejax.restraint import parse, update_under, weight_under
from prunejax.spectra import sigma_max
from prunejax.sweep import Sweep
from prunejax.update import LowRank, Update

GPT2_XL, LLAMA_3 = (6400, 1600), (14336, 4096)
"""(d_in, d_out) of down projections."""
BASES = ("log:e", "log:2", "log:1.5", "log:1.35", "log:1.2", "log:3", "log:5", "log:10")
EDITS, EVERY, KAPPA = 1000, 20, 1e4


class Edited(NamedTuple):
    """A weight [d_in, d_out] and n rank-one updates of it, left [d_in, n] and right [n, d_out], float32."""

    weight: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def after(self, n: int) -> np.ndarray:
        """The weight after n edits."""
        return self.weight + self.left[:, :n] @ self.right[:n]


@cache
def restraint_data(shape: tuple[int, int], n: int) -> Edited:
    """A random weight, and updates in random directions whose norms run from a tenth to ten times its sigma_max."""
    rng = np.random.default_rng(0)
    weight = 0.02 * rng.standard_normal(shape, np.float32)
    m = 0.02 * (math.sqrt(shape[0]) + math.sqrt(shape[1]))
    left, right = rng.standard_normal((shape[0], n), np.float32), rng.standard_normal((n, shape[1]), np.float32)
    left /= np.linalg.norm(left, axis=0)
    right *= (np.geomspace(0.1, 10.0, n) * m / np.linalg.norm(right, axis=1))[:, None]
    return Edited(weight, left, right.astype(np.float32))


@cache
def kappa_data(shape: tuple[int, int], n: int) -> Edited:
    """A weight whose singular values fall evenly on a logarithmic scale to 1 / KAPPA of the largest, and updates in
    random directions that are each a tenth as large as that one."""
    rng, k = np.random.default_rng(0), min(shape)
    left, right = (np.linalg.qr(rng.standard_normal((size, k), np.float32))[0] for size in shape)
    weight = (left * np.geomspace(1.0, 1 / KAPPA, k).astype(np.float32)) @ right.T
    u, v = rng.standard_normal((shape[0], n), np.float32), rng.standard_normal((n, shape[1]), np.float32)
    return Edited(weight, u / np.linalg.norm(u, axis=0), 0.1 * v / np.linalg.norm(v, axis=1)[:, None])


def restrain_seconds(
    shape: tuple[int, int], n: int, bases: tuple[str, ...], formed: bool
) -> tuple[float, np.ndarray | None]:
    """From the two factors of an update, sigma_max of the unedited weight found anew, to the restrained update a base,
    as factors, or to the weight with it if it is `formed`: seconds, and the first weight."""
    data = restraint_data(shape, n)
    weight, update = jax.device_put(data.weight), LowRank(*map(jax.device_put, data[1:]))
    under = weight_under if formed else update_under

    def restrained() -> list[jax.Array | Update]:
        sweep = Sweep(weight, update, sigma_max(weight))
        return jax.block_until_ready([under(parse(base), sweep) for base in bases])

    seconds, results = timed(restrained)
    return seconds, np.asarray(results[0]) if formed else None


def reference_seconds(shape: tuple[int, int], n: int) -> tuple[float, np.ndarray]:
    """The authors' procedure for the first base: seconds and the weight."""
    data = restraint_data(shape, n)
    edited = data.after(n)
    seconds, found = timed(lambda: restrain_dense(data.weight, edited, math.e))
    return seconds, found.weight


def kappas_seconds(shape: tuple[int, int], counts: tuple[int, ...]) -> tuple[float, list[float]]:
    """kappa of the weight after each number of edits: seconds of all, and the values."""
    data = kappa_data(shape, counts[-1])

    def kappas() -> list[float]:
        updates = (LowRank(data.left[:, :n], data.right[:n]) for n in counts)
        return [found.kappa for found in spectra_along(data.weight, updates)]

    return timed(kappas)


def thin_seconds(shape: tuple[int, int], n: int, edits: int) -> tuple[float, float]:
    """A thin SVD of the weight after n of so many edits in float32: seconds; and kappa in float64."""
    edited = kappa_data(shape, edits).after(n)
    seconds, _ = timed(lambda: np.linalg.svd(edited, full_matrices=False))
    sigma = np.linalg.svd(edited.astype(np.float64), compute_uv=False)
    return seconds, float(sigma[0] / sigma[-1])


def restraint_case(me: Call, other: Call, shape: tuple[int, int], n: int) -> list[Measurement]:
    """The sum of n rank-one updates restrained, by one base and by eight, as factors and to the dense weight; the
    reference, which gives a dense weight, is timed once."""
    kinds = {
        "prunejax": (BASES[:1], True),
        "eight weights": (BASES, True),
        "as factors": (BASES[:1], False),
        "eight bases": (BASES, False),
    }
    turns = [
        {name: me(restrain_seconds, shape, n, bases, formed) for name, (bases, formed) in kinds.items()}
        for _ in range(6)
    ]
    # The first turn compiles and touches memory.
    found = {name: times([turn[name][0] for turn in turns[1:]]) for name in kinds}
    reference, expected = other(reference_seconds, shape, n)
    unit, one = f"{shape[1]} x {shape[0]}, {n} updates", found["prunejax"]
    own = {"cores": 1, "versions": me(ours.stack), "peak_mb": me(peak_mb)}
    theirs = {"cores": 1, "versions": f"numpy {np.__version__}", "peak_mb": other(peak_mb)}
    theirs |= {"ratio": reference / one.median, "difference": distance(turns[0]["prunejax"][1], expected)}
    beside = {"eight weights": "prunejax", "eight bases": "as factors"}
    shares = {name: found[name].median / found[single].median for name, single in beside.items()}
    return [
        *(measurement("restraint", name, unit, found[name], ratio=shares.get(name, NAN), **own) for name in kinds),
        measurement("restraint", "reference", unit, times([reference]), **theirs),
    ]


def kappa_case(me: Call, other: Call, shape: tuple[int, int], checked: int = 3) -> list[Measurement]:
    """kappa at every checkpoint of a run; of the reference a few checkpoints spread over the run are timed."""
    counts = tuple(range(EVERY, EDITS + 1, EVERY))
    some = [counts[i] for i in np.linspace(0, len(counts) - 1, checked).astype(int)]
    seconds, kappas = me(kappas_seconds, shape, counts)
    thin = [other(thin_seconds, shape, n, EDITS) for n in some]
    known = dict(zip(counts, kappas, strict=True))
    difference = max(abs(known[n] / kappa - 1) for n, (_, kappa) in zip(some, thin, strict=True))
    found, ran = times([seconds]), times([len(counts) * each for each, _ in thin])
    unit = f"{len(counts)} checkpoints, {shape[1]} x {shape[0]}"
    own = {"cores": 1, "versions": me(ours.stack), "peak_mb": me(peak_mb)}
    reference = {"cores": 1, "versions": f"numpy {np.__version__}", "peak_mb": other(peak_mb)}
    return [
        measurement("kappa", "prunejax", unit, found, **own),
        measurement(
            "kappa",
            "thin SVD",
            f"{unit} ({checked} timed)",
            ran,
            ratio=ran.median / found.median,
            difference=difference,
            **reference,
        ),
    ]
