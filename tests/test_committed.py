"""The committed records and notebooks: whole, as signed, and caught when somebody moves a number or swaps two runs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prunejax.enough_records import FILE as ENOUGH
from prunejax.enough_records import IDENTITY, PER_DIMENSION, REQUESTS, SEEDS
from prunejax.errors import InputError
from prunejax.grid import CHOSEN, EDITOR_FILES, SERIES, STORED, series_named
from prunejax.live import Check, check_slice, check_state, compare
from prunejax.models.checkpoints import Model
from prunejax.records import is_score, read_records, verify_manifest
from prunejax.reproduce import reproduce
from prunejax.series import POOL
from prunejax.sources import RECORDS, find_model
from prunejax.values import EARLY
from prunejax.verdicts import index, verdicts_of

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
RESTRAINT_NOTEBOOK = "04_what_does_the_restraint_save_and_cost"
STATES = RECORDS / "states.safetensors"


@pytest.fixture(scope="module")
def evaluation() -> pd.DataFrame:
    return read_records(RECORDS / "evaluation.csv")


@pytest.fixture(scope="module")
def model() -> Model:
    return find_model("world")


def test_the_records_are_those_that_were_signed() -> None:
    assert {"evaluation.csv", "spectra.csv", "single.csv", "states.safetensors"} <= verify_manifest(RECORDS).keys()


def test_the_records_hold_the_whole_grid(evaluation: pd.DataFrame) -> None:
    for files in {series.files for series in SERIES}:
        together = [series for series in SERIES if series.files == files]
        for name, counts in (("evaluation", "edits"), ("spectra", "spectra_edits")):
            rows = read_records(RECORDS / f"{files}{name}.csv")
            key = ["model", "editor", "seed", "n_edits", "restraint"]
            wanted = {
                (series.model, series.label or series.editor, order, n, spec)
                for series in together
                for order in series.orders
                for n in getattr(series, counts)
                for spec in series.restraints
            }
            found = rows[rows["metric"] != "seconds"]  # which stand under a run's last edit, measured there or not
            assert set(found[key].itertuples(index=False, name=None)) == wanted, files + name
            if name == "evaluation":
                key = ["editor", "batch", "seed", "restraint"]
                runs = {(s.editor, s.batch, order, s.restraints[0]) for s in together if s.timed for order in s.orders}
                assert set(rows[rows["metric"] == "seconds"][key].itertuples(index=False, name=None)) == runs
    edited = evaluation[(evaluation["metric"] == "efficacy") & (evaluation["n_edits"] > 0)]
    assert (edited["n"] == edited["n_edits"]).all()


def checked(records: pd.DataFrame, model: Model, restraint: str) -> Check:
    return check_state(records, STATES, model, STORED[-1], restraint)


def test_a_record_moved_by_a_tenth_is_caught_by_the_live_check(evaluation: pd.DataFrame, model: Model) -> None:
    first = SERIES[0]
    live = checked(evaluation, model, "none")
    assert live.agrees, live.rows
    here = (evaluation["model"] == first.model) & (evaluation["seed"] == first.orders[0])
    here &= (evaluation["n_edits"] == STORED[-1]) & (evaluation["restraint"] == "none")
    for metric in live.rows["metric"]:
        moved = evaluation.copy()
        at = here & (moved["metric"] == metric)
        value = moved.loc[at, "mean"].item()
        moved.loc[at, "mean"] = value + (0.1 if value <= 0.5 else -0.1) if is_score(metric) else 1.1 * value
        rows = checked_against(moved, live)
        assert rows.loc[~rows["agrees"], "metric"].tolist() == [metric]


def checked_against(records: pd.DataFrame, live: Check) -> pd.DataFrame:
    """The live numbers of a check that was made, held against other records."""
    first = SERIES[0]
    found = live.rows.rename(columns={"live": "mean"})[["metric", "mean"]]
    return compare(found, records, first, first.orders[0], STORED[-1], "none").rows


def test_restrained_and_unrestrained_records_that_are_swapped_are_caught(
    evaluation: pd.DataFrame, model: Model
) -> None:
    swap = {"none": "log:e", "log:e": "none"}
    swapped = evaluation.assign(restraint=evaluation["restraint"].replace(swap))
    for restraint in swap:
        assert not checked(swapped, model, restraint).agrees


@pytest.mark.parametrize("doctored", [False, True])
def test_a_notebook_in_which_restrained_and_unrestrained_are_swapped_does_not_agree(
    tmp_path: Path, doctored: bool
) -> None:
    notebook = json.loads((NOTEBOOKS / f"{RESTRAINT_NOTEBOOK}.ipynb").read_text(encoding="utf-8"))
    pair = 'paired(both, claimed, "none")'
    sources = [cell for cell in notebook["cells"] if pair in "".join(cell["source"])]
    assert len(sources) == 1
    if doctored:
        swap = 'swapped = both.replace({"restraint": {"none": claimed, claimed: "none"}})\n'
        text = "".join(sources[0]["source"])
        first, _, rest = text.rpartition("saved, control = ")
        sources[0]["source"] = f"{first}{swap}saved, control = {rest.replace('(both', '(swapped')}"
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / f"{RESTRAINT_NOTEBOOK}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (outcome,) = reproduce(folder, tmp_path / "build", None, False, False, lambda outcome: None)
    assert (outcome.error, outcome.agrees) == ("", not doctored)


def test_every_editors_early_values_and_ages_are_on_record() -> None:
    for series in (series for series in SERIES if series.followed):
        aged, early, values = (read_records(RECORDS / f"{series.files}{n}.csv") for n in ("ages", "early", "values"))
        for rows in (aged, early):
            assert set(rows["seed"]) == set(series.orders)
            assert set(rows["restraint"]) == set(series.followed)
            assert set(rows["editor"]) == {series.editor}
        assert set(values["seed"]) == {series.orders[0]}
        assert values["case"].nunique() == EARLY


def test_second_moments_of_both_models_are_on_record() -> None:
    rows = read_records(RECORDS / ENOUGH)
    world = find_model("world")
    facts = rows.groupby("model")[["weights", "tensor", "d_in", "requests"]].agg(["unique", "nunique"])
    assert set(facts.index) == {"world", "TinyStories-656K"}
    assert (facts.xs("nunique", axis=1, level=1) == 1).all(axis=None)
    assert facts.loc["world", ("weights", "unique")].item() == world.sha256[:8]
    assert facts.loc["world", ("requests", "unique")].item() == f"world/{POOL}:{REQUESTS}"
    for name, own in rows.groupby("model"):
        d_in = own["d_in"].iloc[0]
        shares = {int(share * d_in) for share in PER_DIMENSION}
        for seed in SEEDS:
            of_seed = own[own["seed"] == seed]
            assert set(of_seed["settings"]) == {"ridge=0", "ridge=1"} | ({IDENTITY} if name == "world" else set())
            for settings in ("ridge=0", "ridge=1"):
                counts = set(of_seed.loc[(of_seed["settings"] == settings) & (of_seed["metric"] == "cost"), "keys"])
                assert counts == shares | {own["keys"].max()}


ASKED = (
    *("Fig. 1a", "Fig. 1b", "Fig. 1c", "Fig. 1d", "Fig. 2", "Fig. 3", "Fig. 4", "Fig. 5", "Table 2", "Table 4"),
    *("appendix (other models", "appendix (zsRE", "appendix (the base of each editor)", "section 3.2", "section 3.3"),
    *("the key's perturbation", "equal updates", "two norms", "MEMIT", "choice of the map", "the largest directions"),
    *("1,000 edits", "small sample", "recent edits", "lost edits", "other editors", "resources", "referee 3 (Table 2"),
    *("PCA", "sweep of the base", "AlphaEdit", "NSE", "ENCORE", "NAS", "RECT", "EAC", "MOSE", "authors' code"),
    "arXiv 2506.04226",
)
"""What the paper shows, what its referees asked and what later papers said of it."""


def test_everything_that_was_asked_has_a_row_on_the_page_of_verdicts() -> None:
    told = [verdict for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")) for verdict in verdicts_of(path)]
    for asked in ASKED:
        assert any(asked in verdict.about for verdict in told), asked
    claims = [(verdict.about, verdict.claim) for verdict in told]
    assert len(set(claims)) == len(claims)
    assert {verdict.about for verdict in told if verdict.answer == "not asked"} == {
        "Fig. 1a",  # a sketch
        "EAC; MOSE",  # not here
    }


def test_the_page_of_verdicts_is_what_the_notebooks_say() -> None:
    assert (NOTEBOOKS / "index.md").read_text(encoding="utf-8") == index(NOTEBOOKS)


def records_of(editor: str) -> list[pd.DataFrame]:
    """The scores and the spectra of an editor's runs in the committed model."""
    files = [read_records(RECORDS / f"{EDITOR_FILES[editor]}{name}.csv") for name in ("evaluation", "spectra")]
    return [rows[rows["model"] == "world"] for rows in files]


def slice_of(editor: str, records: list[pd.DataFrame], order: int) -> Check:
    """The live slice of a given order, held against `records`."""
    (series,) = (series for series in SERIES if series.followed and series.editor == editor)
    seed = next(s for s in range(1000) if np.random.default_rng(s).choice(series.orders) == order)
    return check_slice(*records, seed=seed, name=series.name)


@pytest.mark.parametrize(("editor", "order"), [("rome", 0), ("rome", 3), ("memit", 1), ("mend", 4)])
def test_two_runs_that_are_swapped_are_caught(editor: str, order: int) -> None:
    records = records_of(editor)
    live = slice_of(editor, records, order)
    assert live.agrees, live.rows[~live.rows["agrees"]]
    found = live.rows.rename(columns={"live": "mean"})[["metric", "mean"]]
    found = found[found["metric"] != "portability"]  # not every order has a city among its first ten edits
    for other in set(range(5)) - {order}:
        here = pd.concat(records).assign(
            seed=lambda rows, other=other: rows["seed"].replace({order: other, other: order})
        )
        assert not compare(found, here, series_named("world" if editor == "rome" else editor), order, 10, "none").agrees


@pytest.mark.parametrize(("editor", "other"), [("rome", "memit"), ("rome", "mend")])
def test_an_editors_rows_in_anothers_place_are_caught(editor: str, other: str) -> None:
    assert not slice_of(editor, [rows.assign(editor=editor) for rows in records_of(other)], 0).agrees
    with pytest.raises(InputError, match=r"records: no .*mlp.* of order 0 after 10 edits"):
        slice_of(other, [rows.assign(editor=other) for rows in records_of(editor)], 0)


def test_notebooks_name_the_bases_that_were_chosen() -> None:
    named = []
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        (parameters,) = (cell for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
        values: dict[str, object] = {}
        exec("".join(parameters["source"]), values)
        if isinstance(values.get("editors"), dict):
            named.append(path.name[:2])
            assert values["editors"] == CHOSEN, path.name
        if "bases" in values:
            named.append(path.name[:2])
            assert values["bases"] == ["log:e", CHOSEN["rome"]], path.name
    assert named == ["12", "13", "14", "15", "16", "18"]
