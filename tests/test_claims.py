import numpy as np
import pandas as pd
import pytest

from prunejax.claims import guarantees

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
