"""The systems are what their names say, and no bound that applies is exceeded."""

import numpy as np
import pytest

from prunejax.systems import (
    ETA,
    FAMILIES,
    KAPPA,
    SIZES,
    draw_systems,
    exceeded,
    random_systems,
    searched,
    simplified_applies,
)
from prunejax.theory import System, movement

N = 300


def consistent(system: System) -> np.ndarray:
    left = system.b - np.matvec(system.a, np.matvec(np.linalg.pinv(system.a), system.b))
    return np.linalg.norm(left, axis=1) < 1e-10 * np.linalg.norm(system.b, axis=1)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_what_they_are_named(name):
    system = FAMILIES[name].draw(np.random.default_rng(0), N)
    p, q = system.a.shape[1:]
    found = movement(system)
    full = np.linalg.matrix_rank(system.a, rtol=1e-10) == min(p, q)
    assert full.all() != ("rank 3" in name)
    assert (found.kappa <= KAPPA[1] * 1.001).all()
    assert (found.kappa >= KAPPA[0]).all()
    assert (found.eta[found.valid] < 1).all()
    assert found.eta.max() > 0.5
    assert found.eta.min() < 0.01
    if "rank 3" not in name:
        assert found.valid.all()
        assert found.eta.max() <= ETA[1] * 1.001
    assert bool(system.db.any()) == (name in ("square", "tall, inconsistent") or "moved" in name)
    if FAMILIES[name].simplified_applies:
        assert full.all()
        assert p >= q
        assert consistent(system).all()
    elif p > q and full.all():
        assert not consistent(system).any()


def test_no_bound_is_exceeded_where_it_applies_and_the_simplified_one_is_elsewhere():
    table = exceeded(draw_systems(N, seed=3))
    assert set(FAMILIES) < set(table.index)
    assert (table["systems"] >= N).all()
    assert (table["wedin exceeded"] == 0).all()
    applies = table.index.map(simplified_applies)
    assert (table.loc[applies, "simplified exceeded"] == 0).all()
    for name in ("tall, inconsistent", "wide, two smallest", "tall, steered residual"):
        assert table.loc[name, "simplified exceeded"] > N / 10
    assert table.loc["attained", "moved / wedin"] == pytest.approx(1, abs=1e-9)
    assert table.loc["wide, two smallest", "moved / simplified"] == pytest.approx(np.sqrt(2), rel=2e-3)


def test_a_bound_that_is_too_small_is_caught(monkeypatch):
    monkeypatch.setattr(
        "prunejax.systems.movement", lambda system: movement(system)._replace(wedin=movement(system).wedin * 0.9)
    )
    assert exceeded(draw_systems(N, seed=3))["wedin exceeded"].sum() > 0


def test_a_search_climbs():
    rng = np.random.default_rng(1)
    reached = [np.median((found := movement(s)).moved / found.wedin) for s in searched(rng, 50, "tall", rounds=30)]
    start = movement(random_systems(rng, 50, "tall"))
    assert np.mean(reached[-5:]) > 1.5 * np.median(start.moved / start.wedin)


def test_the_same_seed_draws_the_same_systems():
    assert draw_systems(50, seed=5).equals(draw_systems(50, seed=5))
    assert not draw_systems(50, seed=5).equals(draw_systems(50, seed=6))


def test_shapes_are_tall_square_and_wide():
    assert [np.sign(p - q) for p, q in SIZES.values()] == [1, 0, -1]
