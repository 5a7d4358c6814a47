"""The figure of identities draws every distance at its place, and the bounds."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from prunejax import figures


def test_every_identity_has_a_dot_a_precision_and_the_bounds_are_lines():
    rows = pd.DataFrame(
        [
            (name, precision, distance, bound, True)
            for precision, bound, distances in (("float32", 1e-4, (1e-6, 3e-6)), ("float64", 1e-9, (1e-13, 1e-12)))
            for name, distance in zip(("one = other", "dual = primal"), distances, strict=True)
        ],
        columns=["identity", "precision", "distance", "bound", "holds"],
    )
    with figures.style():
        _, ax = plt.subplots()
        drawn = figures.identity_distances(ax, rows)
    dots = [line for line in ax.get_lines() if line.get_marker() in ("o", "s")]
    assert [line.get_xdata().tolist() for line in dots] == [[1e-6, 3e-6], [1e-13, 1e-12]]
    lines = [line for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in lines] == [1e-4, 1e-9]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["one = other", "dual = primal"]
    assert drawn.loc["dual = primal", "float64"] == 1e-12
    assert ax.get_xscale() == "log"
    assert np.all(np.diff(ax.get_ylim()) < 0), "the first identity is on top"
    plt.close("all")
