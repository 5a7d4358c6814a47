"""The largest singular value of large matrices against a dense decomposition."""

import numpy as np
import pytest

from oracles import with_spectrum
from prunejax.lanczos import ROWS, largest_singular_value

D_IN, D_OUT = ROWS + 40, 60
SPECTRA = {
    "one far above": [9.0, *np.linspace(1, 0.1, D_OUT - 1)],
    "crowded": list(np.linspace(9.0, 8.9, D_OUT)),
    "twenty alike": [*(9 * (1 - 1e-5 * np.arange(20))), *np.linspace(1, 0.1, D_OUT - 20)],
    "all equal": [9.0] * D_OUT,
    "one": [9.0],
    "ill-conditioned": list(np.geomspace(9.0, 9e-9, D_OUT)),
}


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_it_is_the_spectral_norm(spectrum, scale):
    exact = scale * with_spectrum(np.random.default_rng(0), D_IN, D_OUT, SPECTRA[spectrum])
    for matrix in (exact.astype(np.float32), np.ascontiguousarray(exact.T, np.float32), exact):
        expected = np.linalg.norm(matrix.astype(np.float64), 2)
        found = largest_singular_value(matrix)
        assert found <= expected * (1 + 1e-13)
        assert found == pytest.approx(expected, rel=5e-8)


def test_a_value_that_stands_out_is_right_to_the_last_digits():
    matrix = with_spectrum(np.random.default_rng(1), D_IN, D_OUT, SPECTRA["one far above"]).astype(np.float32)
    expected = np.linalg.norm(matrix.astype(np.float64), 2)
    assert largest_singular_value(matrix) == pytest.approx(expected, rel=1e-13)


def test_the_same_matrix_gives_the_same_bits():
    """Where many values crowd at the top, what is found depends on the start."""
    matrix = with_spectrum(np.random.default_rng(2), D_IN, D_OUT, SPECTRA["crowded"]).astype(np.float32)
    assert len({largest_singular_value(matrix.copy()) for _ in range(5)}) == 1
