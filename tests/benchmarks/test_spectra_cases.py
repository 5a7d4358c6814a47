"""The cases that need no PyTorch, at small sizes in this very process: what both sides find is the same."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import cases_spectra
from benchmarks.cases_moments import moments_case
from benchmarks.cases_spectra import BASES, KAPPA, kappa_case, kappa_data, restrain_seconds, restraint_case
from benchmarks.cases_world import Ran, requests_again, thousands, world_case
from benchmarks.original_restraint import restrain_dense
from oracles import distance, restrained_weight
from tiny import TEXTS

SHAPE = (60, 20)


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """A side that is this very process."""
    return function(*arguments)


def test_the_restraint_of_both_sides_is_one() -> None:
    rows = restraint_case(here, here, SHAPE, 10)
    ours, weights, factors, bases, reference = rows
    assert [row.side for row in rows] == ["prunejax", "eight weights", "as factors", "eight bases", "reference"]
    assert reference.difference < 1e-5
    assert reference.ratio == pytest.approx(reference.median_s / ours.median_s)
    assert weights.ratio == pytest.approx(weights.median_s / ours.median_s)
    assert bases.ratio == pytest.approx(bases.median_s / factors.median_s)
    assert all(row.n == 5 for row in rows[:-1])


def test_it_restrains() -> None:
    """Some singular values of the update are above sigma_max of the weight and some below; the oracle says the same."""
    data = cases_spectra.restraint_data(SHAPE, 10)
    sigma = np.linalg.svd(data.left @ data.right, compute_uv=False)[:10]
    m = np.linalg.svd(data.weight, compute_uv=False)[0]
    assert 1 < np.sum(sigma > m) < 10
    _, weight = restrain_seconds(SHAPE, 10, BASES[:1], formed=True)
    assert distance(weight, restrained_weight("log:e", data.weight, data.after(10))) < 1e-5
    assert distance(weight, data.after(10)) > 0.1
    assert distance(restrain_dense(data.weight, data.after(10), np.e).weight, weight) < 1e-5


def test_kappa_along_a_run_is_that_of_float64() -> None:
    ours, thin = kappa_case(here, here, SHAPE)
    assert thin.difference < 1e-3
    assert thin.ratio == pytest.approx(thin.median_s / ours.median_s)
    sigma = np.linalg.svd(kappa_data(SHAPE, 1000).weight.astype(np.float64), compute_uv=False)
    assert sigma[0] / sigma[-1] == pytest.approx(KAPPA, rel=1e-2)


def test_second_moments_and_their_parts(tiny_folder: Path) -> None:
    together, passes, products = moments_case(here, "moments-gpt2", tiny_folder, TEXTS, 1, 64, 1)
    assert [row.side for row in (together, passes, products)] == ["prunejax", "forward alone", "product alone"]
    assert together.n == passes.n == products.n == 3
    assert together.ratio > 0


def test_a_long_run_writes_every_request_as_often_as_the_others() -> None:
    requests = requests_again(2_500)
    assert len({request.case_id for request in requests}) == 2_500
    counts = Counter((request.prompt, request.subject) for request in requests)
    assert sorted(Counter(counts.values()).items()) == [(2, 500), (3, 500)]


def test_the_last_thousand_stands_beside_the_second(tmp_path: Path) -> None:
    """Whole thousands alone; the first compiles, and the process may have ended before its memory was read."""
    chunks = [(first, 100.0 if first < 1000 else 2.0 + first // 1000) for first in range(1, 3600, 50)]
    pd.DataFrame(chunks, columns=["first", "seconds"]).assign(edits=50).to_csv(tmp_path / "timing.csv")
    assert thousands(tmp_path) == [2000.0, 60.0, 80.0]
    assert thousands(tmp_path / "none") == []
    ran = Ran(3000.0, thousands(tmp_path), 900.0, [700.0, 800.0])
    whole, second, last = world_case(lambda function, *_: ran if function.__name__ == "run_of" else "", "long", 3000, 2)
    assert (whole.median_s, whole.peak_mb, second.median_s, second.held_mb) == (3000.0, 900.0, 60.0, 800.0)
    assert last.ratio == pytest.approx(80 / 60)
    assert np.isnan(last.held_mb)
