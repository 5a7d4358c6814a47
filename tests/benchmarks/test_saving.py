"""The case of saving, at a small size in this very process: all ways end with the same bits."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases_saving
from benchmarks.cases_saving import Turn, kept_in_memory, saved, saving_case, turns
from benchmarks.measurements import CLAIMS, verdicts, write_measurements
from prunejax.editors import editor_row, settings_of
from prunejax.job import Job
from prunejax.models.checkpoints import Model
from tiny import TEXTS
from tiny_runs import CONTEXTS, REQUESTS, SETTINGS


def test_all_ways_make_the_same_edits(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several chunks, and others than the unedited weights."""
    monkeypatch.setattr(cases_saving, "CHUNK", 3)
    monkeypatch.setattr(cases_saving, "guard_text", lambda: TEXTS)
    monkeypatch.setattr(cases_saving, "GUARD", "stop@3,perplexity=1e9")
    settings = settings_of("rome", SETTINGS)
    job = Job("rome", settings, "none", REQUESTS, "requests", tiny_model, CONTEXTS, None)
    monkeypatch.setattr(cases_saving, "job_of", lambda *words: job)
    found = turns("rome", "model", "requests", 2)
    assert len(found) == 2
    assert {turn.difference for turn in found} == {0.0}
    assert min(min(turn[:3]) for turn in found) > 0
    (tensor,) = editor_row("rome").make(settings).tensors(tiny_model)
    assert (kept_in_memory(job)[tensor] != tiny_model.weight(tensor)).any()
    assert (saved(job)[tensor] == kept_in_memory(job)[tensor]).all()


def test_the_ratio_is_the_mean_over_turns(tmp_path: Path) -> None:
    """Not that of the means: all ways of a turn meet the same busy moment."""
    made = [Turn(1.01, 1.0, 1.515, 0.0), Turn(1.03, 1.0, 1.03, 0.0), Turn(20.4, 20.0, 30.6, 1e-9)]

    def call(function: Any, *words: Any) -> Any:
        return made if function is turns else 0 if function.__name__ == "peak_mb" else ""

    memory, rome, guard = saving_case(call, "rome", "world", "world:300", 2)
    assert [row.side for row in (memory, rome, guard)] == ["rome in memory", "rome", "rome guarded every ten"]
    assert (rome.ratio, rome.difference, rome.median_s) == (pytest.approx(1.02), 1e-9, 1.03)
    assert rome.unit == "world:300 one by one (ratio 0.995 to 1.045)"
    assert guard.ratio == pytest.approx(4 / 3)
    said = verdicts(write_measurements(tmp_path / "cpu.csv", [memory, rome, guard]), CLAIMS)
    assert said == ["yes saving, rome: ratio 1.02, at most 1.03 is asked"]
