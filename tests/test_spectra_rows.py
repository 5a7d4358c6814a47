"""Rows of the spectra of two edited tensors, one tall and one wide, against dense decompositions of each point."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from prunejax.events import Event, append_events
from prunejax.fold import accumulated_along
from prunejax.requests import EditRequest
from prunejax.restraint import parse
from prunejax.run import Run, create_run
from prunejax.spectra import sigma_max
from prunejax.spectra_rows import spectra_rows
from prunejax.stored import record_chunk
from prunejax.sweep import Sweep
from prunejax.update import LowRank

DOWN, UP = "transformer.h.1.mlp.c_proj.weight", "transformer.h.1.mlp.c_fc.weight"
SHAPES = {DOWN: (12, 7), UP: (7, 12)}
REQUESTS = [EditRequest(str(i), "{} is", "Rome", "new", "old") for i in range(6)]
COUNTS = (0, 1, 3, 4, 6)
SPECS = ("none", "clip", "rescale:log:2")


@pytest.fixture(scope="module")
def edits() -> list[dict[str, LowRank]]:
    rng = np.random.default_rng(1)
    return [
        {
            t: LowRank(*(jnp.asarray(rng.normal(size=s), "f4") for s in ((d_in, 1), (1, d_out))))
            for t, (d_in, d_out) in SHAPES.items()
        }
        for _ in REQUESTS
    ]


@pytest.fixture(scope="module")
def original() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        t: oracles.with_spectrum(rng, *s, list(np.geomspace(3.0, 0.5, 7))).astype(np.float32) for t, s in SHAPES.items()
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, edits, original) -> Run:
    """Six edits in two files, restrained after the third."""
    folder: Path = tmp_path_factory.mktemp("spectra") / "run"
    run = create_run(folder, {"tensors": [DOWN, UP], "batch": 1, "seed": 0}, REQUESTS, ("{}",))
    record_chunk(run, 1, 3, edits[:3], original)
    append_events(run.folder, Event(1, "restrain", 3, 3, restraint="clip"))
    record_chunk(run, 4, 6, edits[3:], original)
    return run


def expected_delta(edits: list[dict[str, LowRank]], tensor: str, n: int, m: float) -> np.ndarray:
    total = np.zeros(SHAPES[tensor])
    for number, edit in enumerate(edits[:n], 1):
        total += np.asarray(edit[tensor].left, np.float64) @ np.asarray(edit[tensor].right, np.float64)
        if number == 3:
            total = oracles.restrained_delta("clip", total, m)
    return total


def test_every_tensor_has_its_own_rows_at_every_point(run, edits, original):
    m = {tensor: sigma_max(weight) for tensor, weight in original.items()}
    weights = {tensor: jnp.asarray(weight) for tensor, weight in original.items()}
    sweeps = (
        {tensor: Sweep(weights[tensor], update, m[tensor]) for tensor, update in sums.items()}
        for sums in accumulated_along(run, COUNTS, weights, m)
    )
    asked = {n: [parse(spec) for spec in SPECS[: 1 + n]] for n in COUNTS}
    frames = list(spectra_rows(run, weights, sweeps, asked, None))
    assert [(n, restraint.spec) for n, restraint, _ in frames] == [
        (n, restraint.spec) for n in COUNTS for _ in SHAPES for restraint in asked[n]
    ]
    for n, restraint, frame in frames:
        found = frame.set_index(["case", "metric"])["value"]
        (tensor,) = {case.partition(":")[2] for case in frame["case"]}
        plain = expected_delta(edits, tensor, n, m[tensor])
        delta = plain if n == 0 else oracles.restrained_delta(restraint.spec, plain, m[tensor])
        rank = np.linalg.matrix_rank(plain, tol=1e-5)
        for matrix, case, k in ((delta, f"update:{tensor}", rank), (original[tensor] + delta, f"weight:{tensor}", 7)):
            sigma = np.linalg.svd(matrix, compute_uv=False)[:k]
            assert found[case, "rank"] == k
            assert found[case, "frobenius"] == pytest.approx(np.linalg.norm(sigma), rel=1e-5)
            if k:
                assert found[case, "sigma_max"] == pytest.approx(sigma[0], rel=1e-5)
                assert found[case, "kappa"] == pytest.approx(sigma[0] / sigma[-1], rel=1e-4)
        assert ((f"update:{tensor}", "kappa") in found) == (n > 0)
        assert ((f"weight:{tensor}", "eta") in found) == (restraint.spec == "none" and n < 6)
        if restraint.spec == "none" and n < 6:
            step = np.linalg.norm(edits[n][tensor].left) * np.linalg.norm(edits[n][tensor].right)
            smallest = np.linalg.svd(original[tensor] + plain, compute_uv=False)[-1]
            assert found[f"weight:{tensor}", "eta"] == pytest.approx(step / smallest, rel=1e-4)
