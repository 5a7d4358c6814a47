"""The metric in which an update is smallest: S_0 = lambda C with its ridges, inverted once a layer and run. What a step
solves with it is in `solve`, the metric of a null space in `null_space`."""

import numpy as np
import scipy.linalg

from prunejax.editors.condition import cholesky, condition_number, ridged
from prunejax.editors.moments import Moments
from prunejax.editors.settings import LocateSettings
from prunejax.editors.solve import Metric
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


def corpus_metric(
    model: Model,
    moments: Moments | None,
    tensor: str,
    settings: LocateSettings,
    weight: float = 1.0,
    key_ridge: float = 0.0,
    *,
    whole: bool = False,
) -> Metric:
    """S_0 = weight (C + ridge mean(diag C) I) + key_ridge I of one tensor, or weight I + key_ridge I for
    second_moment="identity". `whole`: S_0 itself is kept beside its inverse."""
    c, d_in = second_moment_of(model, moments, tensor, settings), model.config.d_ff
    if c is None:
        c, ridge = np.eye(d_in, dtype=np.float32), key_ridge / weight
    else:
        ridge = settings.ridge + key_ridge / weight / float(np.mean(np.diag(c.astype(np.float64))))
    matrix = ridged(c, ridge).astype(np.float32) if whole else None
    inverse = on_devices(inverse_second_moment(c, ridge, d_in), "model", None)
    return Metric(inverse, weight, matrix if matrix is None else on_devices(matrix, "model", None))


def second_moment_of(model: Model, moments: Moments | None, tensor: str, settings: LocateSettings) -> np.ndarray | None:
    """C [d_in, d_in] of one tensor, None for second_moment="identity".

    InputError for second moments of other weights than the model was loaded with, and for a C of fewer keys than
    dimensions where no ridge is set.
    """
    if settings.second_moment == "identity":
        return None
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
    d_in = model.config.d_ff
    if matrix.shape != (d_in, d_in):
        raise InputError(f"moments: the second moment is {matrix.shape}, the model's keys have {d_in} dimensions")
    if settings.ridge == 0 and d_in > count:
        raise InputError(f"moments: {tensor} is singular, {count} keys cannot fill {d_in} dimensions; {REMEDY}")
    return matrix


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
