import numpy as np
import pandas as pd
import pytest

from prunejax.claims import effect_on_seeds, growth_on_seeds, guarantees, largest_growth, ordered_alike

TENSOR = "a.weight"


def row(
    restraint: str, n_edits: int, metric: str, mean: float, seed: int = 0, model: str = "world", editor: str = "rome"
) -> dict:
    own = {"model": model, "restraint": restraint, "seed": seed, "n_edits": n_edits, "metric": metric, "mean": mean}
    return own | {"editor": editor}


def test_guarantees_stand_beside_what_was_measured() -> None:
    weight, update = f"sigma_max:weight:{TENSOR}", f"sigma_max:update:{TENSOR}"
    rows = [row("none", 0, weight, 2.0), row("none", 0, weight, 3.0, model="other")]
    for seed, s_max in ((0, 2 * np.e), (1, 1.0)):
        rows += [row("none", 5, update, s_max, seed), row("log:e", 5, update, 2.5, seed)]
        rows += [row(spec, 5, weight, 3.25, seed) for spec in ("none", "log:e", "rescale:log:e")]
    rows += [row("none", 5, "sigma_max:weight:b.weight", 100.0)]
    rows += [row("log:e", 5, weight, 7.0, editor="mend"), row("none", 5, update, 1.0, editor="mend")]
    every = guarantees(pd.DataFrame(rows), TENSOR)
    assert every.loc[every["editor"] == "mend", ["measured", "guarantee"]].to_numpy().tolist() == [[7.0, 3.0]]
    found = every[every["editor"] == "rome"].set_index(["restraint", "seed"])
    assert len(found) == 4
    assert found.loc[("log:e", 0), "guarantee"] == pytest.approx(2.0 + 2.0 + 1.0)
    assert found.loc[("log:e", 1), "guarantee"] == pytest.approx(2.0 + 1.0)
    assert found.loc[("none", 0), "guarantee"] == pytest.approx(2.0 + 2 * np.e)
    assert (found["measured"] == 3.25).all()
    assert (found["m"] == 2.0).all()


def by_order(**editors: list[float]) -> pd.Series:
    rows = {(editor, seed): value for editor, values in editors.items() for seed, value in enumerate(values)}
    return pd.Series(rows, dtype=float).rename_axis(["editor", "seed"])


@pytest.mark.parametrize(
    ("harm", "answer"),
    [
        ({"rome": [5.0, 5.1, 5.2], "mend": [9.0, 9.2, 9.1]}, "holds"),
        ({"rome": [9.0, 9.2, 9.1], "mend": [5.0, 5.1, 5.2]}, "does not hold"),
        ({"rome": [5.0, 9.0, 5.0], "mend": [9.0, 5.0, 9.0]}, "undecided"),
    ],
)
def test_what_orders_editors_alike(harm: dict[str, list[float]], answer: str) -> None:
    size = by_order(rome=[1.0, 1.1, 1.05], mend=[3.0, 3.2, 3.1])
    assert ordered_alike(size, by_order(**harm)) == answer
    assert ordered_alike(by_order(**harm), size) == answer


def test_the_largest_growth_is_that_of_the_matrix_that_grew_most() -> None:
    rows = [
        row("none", n, f"sigma_max:weight:{t}", v)
        for t, a, b in (("a", 2, 4), ("b", 1, 5))
        for n, v in ((0, a), (9, b))
    ]
    rows += [row("none", n, "sigma_max:update:a", 100.0 * n) for n in (0, 9)]
    assert largest_growth(pd.DataFrame(rows), "sigma_max", 9).to_dict() == {("rome", 0): 5.0}


@pytest.mark.parametrize(
    ("second", "grows", "steady"),
    [
        ([4.0, 4.1, 4.2], "holds", "does not hold"),
        ([0.2, 0.3, 0.2], "does not hold", "does not hold"),
        ([0.5, 3, 1], "undecided", "does not hold"),
    ],
)
def test_growth_must_hold_on_every_seed(second: list[float], grows: str, steady: str) -> None:
    common = {"run_id": "r", "requests": "q", "preset": "p", "batch": 1, "n": 1, "nan_count": 0}
    after = {"world": [2.0, 2.1, 2.2], "world-seed-1": second}
    rows = [
        row("none", n, "kappa", value, seed, model) | common | {"lo": value, "hi": value}
        for model, values in after.items()
        for seed, last in enumerate(values)
        for n, value in ((0, 1.0), (9, last))
    ]
    found = growth_on_seeds(pd.DataFrame(rows), "kappa", 9, "world")
    assert (found.grows, found.steady, found.seeds, found.orders) == (grows, steady, 2, "3 and 3 request orders")
    assert found.number.startswith("by a factor of 2.098 [")
    assert "; by seed 2.1, " in found.number


@pytest.mark.parametrize(
    ("second", "gains", "keeps"),
    [
        ((0.2, 0.1, 0.3), "holds", "holds"),
        ((0.0, -0.1, 0.1), "undecided", "undecided"),
        ((-0.2, -0.3, -0.1), *2 * ("does not hold",)),
    ],
)
def test_an_effect_must_be_there_on_every_seed(second: tuple[float, ...], gains: str, keeps: str) -> None:
    common = {
        "requests": "q",
        "editor": "e",
        "preset": "p",
        "batch": 1,
        "restraint": "a - b",
        "n_edits": 9,
        "metric": "x",
    }
    rows = [common | dict(zip(("mean", "lo", "hi"), ends, strict=True)) for ends in ((0.5, 0.4, 0.6), second)]
    frame = pd.DataFrame(rows).assign(model=["world", "world-seed-1"], n=5, nan_count=0)
    found = effect_on_seeds(frame)
    assert (found.gains, found.keeps, found.seeds) == (gains, keeps, 2)
    assert found.number.startswith("by seed: 0.500 [0.400, 0.600]; ")
    assert f"over seeds {(0.5 + second[0]) / 2:.3f} [" in found.number
