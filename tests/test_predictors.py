"""Predictors of the loss of ability: what a point is, and how numbers are ranked."""

import numpy as np
import pandas as pd
import pytest

from prunejax.intervals import student
from prunejax.predictors import PREDICTORS, points, rank
from prunejax.records import SUMMARY_COLUMNS

COMMON = {"run_id": "r", "model": "world", "requests": "q", "preset": "p", "batch": 1, "n": 1, "nan_count": 0}


def row(editor: str, restraint: str, n_edits: int, metric: str, mean: float, seed: int = 0) -> dict:
    own = {"editor": editor, "restraint": restraint, "n_edits": n_edits, "metric": metric, "mean": mean, "seed": seed}
    return COMMON | own | {"lo": mean, "hi": mean}


def frame(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows)[list(SUMMARY_COLUMNS)]


def spectra_at(editor: str, restraint: str, n: int, tensor: str, kappa: float, top: float, size: float) -> list[dict]:
    found = {f"kappa:weight:{tensor}": kappa, f"sigma_max:weight:{tensor}": top, f"frobenius:update:{tensor}": size}
    found |= {f"drift:update:{tensor}": size / 10, f"frobenius:weight:{tensor}": 4.0 + size}
    found |= {f"kappa:update:{tensor}": 1e9, f"margin:update:{tensor}": 1e9}
    return [row(editor, restraint, n, metric, value) for metric, value in found.items()]


def test_a_point_is_the_loss_beside_the_largest_number_of_the_edited_matrices() -> None:
    scored = [row("memit", "none", 0, f"ability:{task}", 1.0) for task in "ab"]
    scored += [row("memit", "none", 10, "ability:a", 0.5), row("memit", "none", 10, "ability:b", 0.1)]
    scored += [row("memit", "log:e", 10, f"ability:{task}", 0.9) for task in "ab"]
    spectra = spectra_at("memit", "none", 0, "x", 10.0, 2.0, 0.0) + spectra_at("memit", "none", 0, "y", 20.0, 3.0, 0.0)
    spectra += spectra_at("memit", "none", 10, "x", 5.0, 8.0, 2.0)
    spectra += spectra_at("memit", "none", 10, "y", 60.0, 6.0, 1.0)
    spectra += spectra_at("memit", "log:e", 10, "x", 5.0, 4.0, 1.0)
    spectra += spectra_at("memit", "log:e", 10, "y", 20.0, 3.0, 0.5)
    # A restraint that does nothing repeats the unrestrained point, which counts once.
    scored += [row("memit", "log:20", 10, "ability:a", 0.5), row("memit", "log:20", 10, "ability:b", 0.1)]
    spectra += [one | {"restraint": "log:20"} for one in spectra if (one["restraint"], one["n_edits"]) == ("none", 10)]
    found = points(frame(scored), frame(spectra)).set_index("restraint")
    assert len(found) == 2
    assert found["loss"].to_dict() == {"log:20": pytest.approx(0.7), "log:e": pytest.approx(0.1)}
    plain = found.loc["log:20"]
    assert (plain["kappa"], plain["sigma_max"], plain["frobenius"]) == (3.0, 4.0, 0.5)
    assert (plain["drift"], plain["edits"]) == (0.2, 10)


def test_ranks_are_means_over_orders_and_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    parts = []
    for seed in range(4):
        loss = rng.permutation(np.linspace(0, 1, 12))
        noisy = loss + rng.normal(size=12) * 0.3
        numbers = {"kappa": -loss, "sigma_max": noisy, "frobenius": loss**3, "drift": rng.normal(size=12), "edits": 1.0}
        parts.append(pd.DataFrame(numbers | {"edits": rng.normal(size=12), "loss": loss, "seed": seed}))
    found = pd.concat(parts)
    ranked = rank(found)
    assert ranked.index[0] == "frobenius", "any increasing function orders alike"
    assert ranked.loc["frobenius", ["mean", "behind"]].tolist() == [1.0, 0.0]
    assert ranked.loc["kappa", "mean"] == -1.0
    by_order = [part["sigma_max"].rank().corr(part["loss"].rank()) for _, part in found.groupby("seed")]
    expected = student(by_order)
    assert ranked.loc["sigma_max", ["mean", "lo", "hi"]].tolist() == pytest.approx(list(expected))
    assert ranked.loc["sigma_max", "behind"] == pytest.approx(1 - expected.mean)
    assert ranked.loc["sigma_max", "behind_lo"] == pytest.approx(1 - expected.hi)
    assert set(ranked.index) == set(PREDICTORS)
