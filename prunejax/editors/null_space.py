"""The null space that AlphaEdit writes into: directions in which a text's keys have hardly any length."""

import numpy as np

from prunejax.editors.solve import Metric
from prunejax.errors import InputError
from prunejax.mesh import on_devices

CUTS = ("relative", "energy", "absolute", "none")


def null_metric(c: np.ndarray, cut: str, threshold: float, weight: float) -> Metric:
    """S_0 = weight I on the null space of C, and no other direction to write in."""
    basis = null_basis(c, cut, threshold)
    projector = basis @ basis.T
    return Metric(on_devices(projector.astype(np.float32), "model", None), weight)


def null_basis(c: np.ndarray, cut: str, threshold: float) -> np.ndarray:
    """U [d_in, r], float64: the eigenvectors of C [d_in, d_in] that count as its null space; P = U U^T.

    "relative": eigenvalues below `threshold` times the largest. "energy": the smallest ones that together are at most
    that share of the trace. "absolute": below `threshold` itself (AlphaEdit as published), which depends on the scale
    of the activations. "none": all of them, P = I. InputError when none is left.

    Misleads: r near d_in means that P is near the identity and hardly restrains anything; look at r.
    """
    values, vectors = np.linalg.eigh(c.astype(np.float64))
    values = np.maximum(values, 0.0)
    bounds = {"relative": threshold * values[-1], "absolute": threshold, "none": np.inf}
    within = np.cumsum(values) <= threshold * values.sum() if cut == "energy" else values < bounds[cut]
    if not within.any():
        raise InputError(
            f"threshold={threshold:g} cut={cut}: no eigenvalue of the second moment is below it (they are "
            f"{values[0]:.3g} to {values[-1]:.3g}), so there is no null space to write into; set a larger threshold"
        )
    return vectors[:, within]
