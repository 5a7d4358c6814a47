"""Restraints: what PRUNE does to an accumulated update, and what that should be compared with.

After n edits a weight is W_n = W_0 + sum_j dW_j. Write the accumulated update as

    sum_j dW_j = U diag(s) V^T,    m = sigma_max(W_0).

A restraint replaces every singular value s by F(s), keeps the directions U and V, and adds the result to the *unedited*
weight (Ma et al., "Perturbation-Restrained Sequential Model Editing", arXiv 2405.16821):

    W_restrained = W_0 + U diag(F(s)) V^T,

never W_n + U diag(F(s)) V^T, which counts the edits twice. The maps, by the text that names them:

    none             F(s) = s
    log:BASE         F(s) = m + ln(s/m) / ln(BASE)        where s >= m    the paper's; BASE: "e" or a number above 1
    scaled-log:BASE  F(s) = m (1 + ln(s/m) / ln(BASE))    where s >= m    ours: the same with s in units of m
    linear           F(s) = (s + m) / 2                   where s >= m    found in the authors' code
    clip             F(s) = m                             where s >= m    the projection onto ||dW|| <= m

and F(s) = s below m. These are continuous at m. Only none and clip give the same when applied twice, so a restraint
must read the raw accumulated update. Controls, to hold the maps against:

    rescale:SPEC        F(s) = c s                      c gives the Frobenius norm that SPEC gives
    truncated:TOL:SPEC  SPEC, and 0 below TOL s_max     what the authors' code does, TOL = max(d_in, d_out) 1.2e-7
    added:SPEC          F(s) = s + SPEC(s)              W_n + U diag(F(s)) V^T, the error in copies of PRUNE
    random:SEED         F(s) = s in random directions   an update that has the spectrum and nothing else

A restraint of the weight (`capping`: cap:C, spectral, frobenius) acts on W_n itself, or behind one of these, joined by
+: log:e+cap:1.5 caps W_0 + U diag(F(s)) V^T.
"""

import math
import re
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from prunejax.capping import SPECS as CAPS
from prunejax.capping import Cap, is_cap, parse_cap
from prunejax.errors import InputError
from prunejax.maps import Map, added, clip, identity, linear, log, rescale, scaled_log, truncated
from prunejax.mesh import on_devices, on_host
from prunejax.spectra import Svd, rank_bound, singular_values, svd
from prunejax.sweep import Sweep
from prunejax.update import Dense, LowRank, Update, apply, dense

SPECS = "none, log:BASE, scaled-log:BASE, linear, clip, rescale:SPEC, truncated:TOL:SPEC, added:SPEC, random:SEED"

LONGEST = 200
"""Characters of a restraint: maps lie within maps, and no end of them means nothing."""


@dataclass(frozen=True)
class Restraint:
    """A restraint as a value: the text it was written as, its map F(sigma, m), and the point where it acts.

    `point` is "accumulated" for every map above: the sum of all updates so far, as in the paper; "weight" where a `cap`
    acts on what comes of it. `directions` is None for the update's own singular vectors, else the seed of random ones.
    """

    spec: str
    function: Map = field(repr=False, compare=False)
    point: str = "accumulated"
    directions: int | None = field(default=None, repr=False)
    cap: Cap | None = field(default=None, repr=False, compare=False)


def parse(spec: str) -> Restraint:
    """The restraint that `spec` names (the table at the top of this file); InputError, one line, if it names none.

    >>> parse("log:1.2")
    Restraint(spec='log:1.2', point='accumulated')
    """
    if len(spec) > LONGEST:
        raise InputError(f"restraint {spec[:LONGEST]!r}...: is too long; one of {SPECS}, or of {CAPS} was expected")
    *before, last = spec.split("+")
    if is_cap(last):
        inner = parse("+".join(before) or "none")
        if inner.cap:
            raise InputError(f"restraint {spec!r}: at most one of {CAPS}, behind at most one other")
        return replace(inner, spec=spec, point="weight", cap=parse_cap(last))
    match spec.split(":", 1):
        case ["none"]:
            return Restraint(spec, identity)
        case ["log", base]:
            return Restraint(spec, partial(log, base=_parse_base(base, spec)))
        case ["scaled-log", base]:
            return Restraint(spec, partial(scaled_log, base=_parse_base(base, spec)))
        case ["linear"]:
            return Restraint(spec, linear)
        case ["clip"]:
            return Restraint(spec, clip)
        case ["rescale", like]:
            return Restraint(spec, partial(rescale, like=parse(like).function))
        case ["added", like] if like:
            return Restraint(spec, partial(added, like=parse(like).function))
        case ["truncated", rest] if rest.partition(":")[2]:
            tolerance, _, like = rest.partition(":")
            number = _parse_number(tolerance)
            if not 0 <= number < 1:
                raise InputError(f"restraint {spec!r}: TOL must be a decimal number under 1; restraints: {SPECS}")
            return Restraint(spec, partial(truncated, tolerance=number, like=parse(like).function))
        case ["random", seed] if re.fullmatch(r"[0-9]{1,18}", seed):
            return Restraint(spec, identity, directions=int(seed))
    raise InputError(f"restraint {spec!r}: not one of {SPECS}, or of {CAPS} (for example log:1.2)")


def restrain(restraint: Restraint, update: Update, m: float, factors: Svd | None = None) -> Update:
    """U diag(F(s)) V^T of the accumulated `update`; a LowRank stays LowRank, a Dense stays Dense, float32.

    `m` is sigma_max(W_0). `factors`, if given, is svd(update): a sweep over restraints needs it only once. If F moves
    no singular value the update itself is returned, to the bit. A non-finite update gives NaN.

    The matrix is built anew from the restrained values. Correcting the old one by U diag(F(s) - s) V^T looks gentler,
    but after a collapse s is hundreds of times F(s) and the difference keeps rounding errors of the size of s.

    >>> update = LowRank(jnp.array([[1.0], [0.0]]), jnp.array([[0.0, 8.0, 0.0]]))
    >>> round(float(dense(restrain(parse("log:2"), update, m=2.0))[0, 1]), 5)
    4.0
    """
    _check(restraint, m)
    if restraint.cap is not None:
        raise ValueError(f"{restraint.spec} acts on a weight: see update_under")
    if restraint.function is identity and restraint.directions is None:
        return update
    left, sigma, right = svd(update) if factors is None else factors
    sigma = on_host(sigma).astype(np.float64)
    restrained = restraint.function(sigma, m)
    if restraint.directions is not None:
        left, right = random_directions(restraint.directions, left, right)
    elif np.array_equal(restrained, sigma):
        return update
    result = LowRank(left * on_devices(restrained.astype(left.dtype)), right)
    return result if isinstance(update, LowRank) else Dense(dense(result))


def random_directions(seed: int, left: Array, right: Array) -> tuple[Array, Array]:
    """Random orthonormal U [d_in, k] and V^T [k, d_out] in the shape of those given: QR of normal draws."""
    drawn = zip(jax.random.split(jax.random.key(seed)), (left.shape, right.T.shape), strict=True)
    u, v = (jnp.linalg.qr(jax.random.normal(key, shape))[0] for key, shape in drawn)
    return u, v.T


def restrained_weight(restraint: Restraint, weight: Array, update: Update, m: float) -> Array:
    """W_0 + U diag(F(s)) V^T in the weight's dtype, [d_in, d_out]. `weight` is the unedited W_0, `m` its sigma_max.

    Its largest singular value is at most m + F(s_max), which is 2m + ln(s_max/m)/ln(BASE) for log:BASE and s_max >= m.
    Nothing bounds its smallest one, so nothing bounds its condition number.
    """
    return weight_under(restraint, Sweep(weight, update, m))


def weight_under(restraint: Restraint, sweep: Sweep) -> Array:
    """`restrained_weight` for one restraint of several: the update is decomposed once for all of them.

    If F moves no singular value it is W_0 + sum_j dW_j, to the bit.
    """
    if restraint.cap is not None:
        return on_devices(_capped(restraint, sweep).astype(sweep.weight.dtype))
    if restraint.directions is not None or is_idle(restraint, sweep):
        return apply(sweep.weight, update_under(restraint, sweep))
    return sweep.weight_with(restraint.function(sweep.sigma, sweep.m))


def update_under(restraint: Restraint, sweep: Sweep) -> Update:
    """`restrain` for one restraint of several; of one with a cap it is the capped weight less W_0."""
    if restraint.cap is not None:
        return Dense(on_devices((_capped(restraint, sweep) - on_host(sweep.weight)).astype(np.float32)))
    if is_idle(restraint, sweep):
        return sweep.update
    return restrain(restraint, sweep.update, sweep.m, sweep.factors)


def _capped(restraint: Restraint, sweep: Sweep) -> np.ndarray:
    """What a cap makes of W_0 + U diag(F(s)) V^T, float64."""
    inner = weight_under(replace(restraint, cap=None), sweep)
    return restraint.cap(*(on_host(part).astype(np.float64) for part in (inner, sweep.weight)), sweep.m)


def restrained_values(restraint: Restraint, sweep: Sweep, sigma: np.ndarray) -> np.ndarray:
    """The singular values of the restrained update, of those `sigma` [k] of the update; [k], or behind a cap all."""
    if restraint.cap is not None:
        return singular_values(update_under(restraint, sweep))
    return restraint.function(sigma, sweep.m)


def is_idle(restraint: Restraint, sweep: Sweep) -> bool:
    """Whether a restraint leaves the accumulated update as it is, as all do before the first edit."""
    _check(restraint, sweep.m)
    if not rank_bound(sweep.update):
        return True
    if restraint.cap is not None or restraint.directions is not None:
        return False
    return restraint.function is identity or np.array_equal(restraint.function(sweep.sigma, sweep.m), sweep.sigma)


def amplification(restraint: Restraint, sigma: ArrayLike, m: float) -> float:
    """The largest F(s)/s over the singular values `sigma` [k] of an update; 1.0 if all are zero, NaN if one is NaN.

    Above 1 the "restraint" enlarges some direction, which log maps do just above m when `margin` is below 1.

    Misleads: values below m are left alone and count as exactly 1, so 1.0 does not mean that nothing was restrained.
    """
    sigma = np.asarray(sigma, np.float64)
    gain = np.divide(restraint.function(sigma, m), sigma, out=np.ones_like(sigma), where=sigma != 0)
    return float(gain.max()) if gain.size else 1.0


def margin(restraint: Restraint, m: float) -> float | None:
    """1/F'(m+), the inverse slope of a log map just above m; None for the other maps.

    m ln(BASE) for log:BASE, which is not scale-free, and ln(BASE) for scaled-log:BASE. Below 1, F(s) > s on an interval
    above m: the map amplifies before it restrains. log:1.2 needs m >= 5.5 and scaled-log needs BASE >= e to avoid it.
    """
    match restraint.function:
        case partial(func=function, keywords={"base": base}):
            return math.log(base) * (m if function is log else 1.0)
    return None


def _check(restraint: Restraint, m: float) -> None:
    if not 0 < m < math.inf:
        raise InputError(f"restraint {restraint.spec!r}: m = sigma_max(W_0) must be positive and finite, not {m}")


def _parse_base(text: str, spec: str) -> float:
    number = math.e if text == "e" else _parse_number(text)
    if not 1 < number < math.inf:
        raise InputError(f"restraint {spec!r}: BASE must be e or a finite decimal number above 1; restraints: {SPECS}")
    return number


def _parse_number(text: str) -> float:
    # float() alone would read "1_2" as 12 and accept "inf".
    return float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else math.nan
