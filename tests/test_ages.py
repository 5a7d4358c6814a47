"""Scores by the age of an edit."""

import pandas as pd
import pytest

from prunejax import ages
from prunejax.ages import by_age
from prunejax.models.checkpoints import Model
from prunejax.run import Run
from tiny_runs import REQUESTS, edit_tiny


@pytest.fixture(scope="module")
def run(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return edit_tiny(tmp_path_factory.mktemp("ages") / "run", tiny_model)


def rows(n_edits: int, values: list[float], metric: str = "efficacy_top1") -> pd.DataFrame:
    cases = [request.case_id for request in REQUESTS[: len(values)]]
    frame = pd.DataFrame({"case": cases, "value": values})
    return frame.assign(editor="rome", restraint="none", n_edits=n_edits, seed=0, metric=metric)


def test_the_last_edit_is_the_youngest(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ages, "AGES", (0, 2, 4, 100))
    monkeypatch.setattr(ages, "FIRST", 3)
    values = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    found = by_age(run, pd.concat([rows(7, values), rows(3, [0.0, 1.0, 1.0]), rows(0, values)]))
    means = found.set_index(["n_edits", "metric"])["mean"]
    assert means[7].to_dict() == {
        "efficacy_top1:age 0-1": 0.5,  # edits 7 and 6
        "efficacy_top1:age 2-3": 1.0,  # 5 and 4
        "efficacy_top1:age 4-99": pytest.approx(1 / 3),
        "efficacy_top1:first 3": pytest.approx(1 / 3),
    }
    # After three edits the first three are also the last ones, so they are no group of their own.
    assert means[3].to_dict() == {"efficacy_top1:age 0-1": 1.0, "efficacy_top1:age 2-3": 0.0}
    assert set(found["n_edits"]) == {3, 7}, "before any edit nothing has an age"


def test_only_whether_the_edit_holds_has_an_age(run: Run) -> None:
    found = by_age(run, pd.concat([rows(7, [1.0] * 7), rows(7, [1.0] * 7, "locality_top1")]))
    assert set(found["metric"]) == {"efficacy_top1:age 0-19"}
    assert found["n"].tolist() == [7]
