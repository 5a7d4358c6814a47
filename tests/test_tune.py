"""The search over edit settings: what it reports, and what it takes for the best."""

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

from prunejax.editors import settings_of
from prunejax.editors.rome import RomeSettings
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.presets import preset_settings
from prunejax.single import single_edits
from prunejax.sources import WORLD_FOLDER
from prunejax.tune import BASE, GRIDS, N_REQUESTS, SCORES, best, best_base, search
from tiny_runs import CONTEXTS, REQUESTS, SETTINGS

TWO = REQUESTS[:2]
SHORT = ("ft-l", "ft-m", "ultraedit")
"""Editors of which no combination has all three scores at 0.9: the best of them is the least bad."""


def test_the_search_reports_the_means_of_every_combination(tiny_model: Model) -> None:
    found = list(search(tiny_model, TWO, "rome", SETTINGS, {"lr": (8.0,), "clamp": (100.0, 0.01)}, CONTEXTS, None))
    assert [(row["lr"], row["clamp"], row["n"]) for row in found] == [(8.0, 100.0, 2), (8.0, 0.01, 2)]
    rows = single_edits(tiny_model, TWO, "rome", RomeSettings(**SETTINGS), CONTEXTS, None)
    means = rows.groupby("metric")[["before", "after"]].mean()
    assert {name: found[0][name] for name in SCORES} == {name: means.loc[name, "after"] for name in SCORES}
    shares = rows.loc[rows["metric"] == "sigma_max:update", "after"] / means.loc["sigma_max:weight", "before"]
    assert found[0]["sigma_largest"] == pytest.approx(max(shares))
    assert found[0]["sigma_median"] == pytest.approx(np.median(shares))
    assert found[1]["sigma_largest"] < found[0]["sigma_largest"] / 10


def test_a_setting_that_does_not_exist_is_named(tiny_model: Model) -> None:
    with pytest.raises(InputError, match="hyper-parameter 'loudness': rome has layers, steps"):
        next(search(tiny_model, TWO, "rome", SETTINGS, {"loudness": (1,)}, CONTEXTS, None))


def test_the_best_is_the_smallest_update_that_is_good_enough() -> None:
    rows = [(1.0, 0.95, 0.93, 2.0), (0.9, 0.9, 0.9, 1.5), (1.0, 1.0, 0.89, 1.0), (1.0, 1.0, 1.0, 9.0)]
    found = pd.DataFrame(rows, columns=[*SCORES, "sigma_median"])
    assert best(found).name == 1
    assert best(found.drop([0, 1, 3])).name == 2
    assert best(found.assign(locality_top1=[0.1, 0.3, 0.2, 0.0])).name == 1


@pytest.mark.parametrize("editor", GRIDS)
def test_the_preset_of_the_world_is_what_was_found(editor: str) -> None:
    found = pd.read_csv(WORLD_FOLDER / f"tune-{editor}.csv", dtype={"layers": str})
    assert len(found) == np.prod([len(values) for values in GRIDS[editor].values()])
    assert set(found["n"]) == {N_REQUESTS}
    chosen = best(found)
    assert (min(chosen[name] for name in SCORES) >= 0.9) == (editor not in SHORT)
    searched = {name: chosen[name] for name in GRIDS[editor]} | {"layers": tuple(map(int, chosen["layers"].split()))}
    known = {field.name for field in fields(settings_of(editor, {}))}
    found = {name: value for name, value in BASE.items() if name in known} | searched
    assert settings_of(editor, preset_settings("world", editor)) == settings_of(editor, found)


def test_the_best_base_keeps_both_abilities_and_edits() -> None:
    kept = {"log:e": (1.0, 0.1), "log:1.5": (0.6, 0.6), "log:1.2": (0.1, 1.0), "none": (1.0, 1.0), "clip": (1.0, 1.0)}
    rows = [
        (spec, seed, n_edits, metric, value - 0.1 * seed * (spec == "log:1.5"))
        for spec, (ability, efficacy) in kept.items()
        for seed in (0, 1)
        for n_edits in (0, 9)
        for metric, value in (("ability:a", ability), ("ability:b", ability), ("efficacy_top1", efficacy))
    ]
    found = pd.DataFrame(rows, columns=["restraint", "seed", "n_edits", "metric", "mean"])
    chosen, harmonic = best_base(found, 9)
    assert chosen == "log:1.5", "no other map is asked"
    nothing = found.assign(mean=found["mean"].where((found["restraint"] != "log:1.5") | (found["seed"] == 0), 0.0))
    assert best_base(nothing, 9)[1]["log:1.5"] == pytest.approx(0.3), "an order that keeps neither counts as 0"
    assert harmonic.to_dict() == pytest.approx({"log:1.5": 0.55, "log:1.2": 2 / 11, "log:e": 2 / 11})
