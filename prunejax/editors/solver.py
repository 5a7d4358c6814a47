"""The linear solve of locate-then-edit methods: the metric in which an update is smallest, and keys turned by it."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array

from prunejax.editors.condition import cholesky, condition_number, ridged
from prunejax.editors.moments import Moments
from prunejax.errors import InputError
from prunejax.mesh import on_devices
from prunejax.models.checkpoints import Model

MOST_KAPPA = 1e7
"""The largest scaled condition number (`condition_number`) at which float32 keeps a direction C^-1 k.

C is stored in float32 and C^-1 used in it, so C^-1 k is known to about kappa 2^-24. Of 200 random keys in 256
dimensions, beside exact arithmetic, the worst 1 - cosine was 1e-5 at kappa 1e6, 1e-3 at 1e7 and 0.2 at 1e8, where the
update disturbed other keys a third more than it need, and at 1e9 rounding left no positive definite matrix. Only the
scaled number tells: with one neuron 1e5 times as loud as the others kappa(C) was 1e10 and 1 - cosine 1e-13.
"""
REMEDY = "collect more text, or set ridge=0.1 or second_moment=identity"


def inverse_metric(model: Model, moments: Moments | None, tensor: str, second_moment: str, ridge: float) -> Array:
    """C^-1 [d_in, d_in] of one tensor in float32, or I for second_moment="identity".

    InputError for second moments of other weights than the model was loaded with, and for a C whose inverse would mean
    nothing: of fewer keys than dimensions without a ridge, or ill-conditioned (`inverse_second_moment`).
    """
    d_in = model.config.d_ff
    if second_moment == "identity":
        return on_devices(np.eye(d_in, dtype=np.float32), "model", None)
    if moments is None:
        raise InputError(
            "second_moment=corpus needs --moments FILE; make it with 'prunejax moments', or set second_moment=identity"
        )
    matrix, count, origin = moments.of(tensor)
    if origin is not None and origin.model != model.sha256:
        raise InputError(
            f"moments: {tensor} is that of another model (weights {origin.model[:8]}, this one's are "
            f"{model.sha256[:8]}); make this model's with 'prunejax moments'"
        )
    if ridge == 0 and len(matrix) == d_in > count:
        raise InputError(f"moments: {tensor} is singular, {count} keys cannot fill {d_in} dimensions; {REMEDY}")
    return on_devices(inverse_second_moment(matrix, ridge, d_in), "model", None)


def inverse_second_moment(matrix: np.ndarray, ridge: float, d_in: int) -> np.ndarray:
    """(C + ridge mean(diag C) I)^-1 in float32, by a float64 Cholesky factorisation; InputError when what is inverted
    is not positive definite, or its scaled condition number above MOST_KAPPA."""
    if matrix.shape != (d_in, d_in):
        raise InputError(f"moments: the second moment is {matrix.shape}, the model's keys have {d_in} dimensions")
    c = ridged(matrix, ridge)
    factor = cholesky(c)
    if factor is None:
        raise InputError(f"moments: the second moment is singular; {REMEDY}")
    kappa = condition_number(c, factor, scaled=True)
    if kappa > MOST_KAPPA:
        raise InputError(
            f"moments: the second moment cannot be inverted in float32, its scaled condition number is {kappa:.1e} and "
            f"at most {MOST_KAPPA:.0e} will do; {REMEDY}"
        )
    return scipy.linalg.cho_solve(factor, np.eye(d_in)).astype(np.float32)


def adjusted_keys(inverse: Array, keys: Array, moment_weight: float) -> Array:
    """(lambda C + K K^T)^-1 K [d_in, n] for keys K^T [n, d_in], from C^-1 [d_in, d_in]: MEMIT's solve.

    With B = (lambda C)^-1 K it is B (I + K^T B)^-1 (Woodbury), so that what is solved is n x n: C is inverted once a
    run, not once an edit.
    """
    turned = jnp.matmul(keys, inverse, precision="highest") / moment_weight
    gram = jnp.matmul(turned, keys.T, precision="highest")
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.solve(jnp.eye(len(keys)) + gram, turned).T
