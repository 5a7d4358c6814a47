"""The case of saving, at a small size in this very process: all ways end with the same bits."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import cases_saving
from benchmarks.cases_saving import Turn, kept, saved, saving_case, turns
from benchmarks.measurements import CLAIMS, verdicts, write_measurements
from prunejax import course
from prunejax.editors import editor_row, settings_of
from prunejax.job import Job
from prunejax.models.checkpoints import Model
from prunejax.run import open_run
from prunejax.sequence import edit_sequence
from tiny import TEXTS
from tiny_runs import CONTEXTS, REQUESTS, SETTINGS, contents


@pytest.fixture
def job(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Seven requests in chunks of three."""
    monkeypatch.setattr(course, "CHUNK", 3)
    return Job("rome", settings_of("rome", SETTINGS), "none", REQUESTS, "requests", tiny_model, CONTEXTS, None)


def test_all_ways_make_the_same_edits(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases_saving, "guard_text", lambda: TEXTS)
    monkeypatch.setattr(cases_saving, "GUARD", "stop@3,perplexity=1e9")
    monkeypatch.setattr(cases_saving, "TURNS", 1)
    monkeypatch.setattr(cases_saving, "GUARDED_TURNS", 2)
    monkeypatch.setattr(cases_saving, "job_of", lambda *words: job)
    saving, guarding = turns("rome", "model", "requests")
    assert (len(saving), len(guarding)) == (1, 2)
    assert {turn.difference for turn in (*saving, *guarding)} == {0.0}
    assert min(min(turn[:2]) for turn in (*saving, *guarding)) > 0


def test_chunk_by_chunk_makes_the_files_of_a_run(job: Job, tmp_path: Path) -> None:
    """And other weights than the unedited ones; each chunk is written while the next is there."""
    with jax.default_matmul_precision("highest"):
        ends = [chunk.end for chunk in saved(job, tmp_path / "chunks")]
    assert ends == [3, 6, 7, 7]
    run = edit_sequence(tmp_path / "run", job.model, job.requests, cases_saving.plan_of(job), job.contexts)
    made, whole = (contents(tmp_path / name) for name in ("chunks", "run"))
    for one in (made, whole):
        del one["timing.csv"]
    assert made == whole
    assert open_run(tmp_path / "chunks").n_edits == run.n_edits == 7
    written: list[int] = []
    for chunk in kept(job, lambda _, chunk: written.append(chunk.end)):
        assert written == [end for end in (3, 6) if end < chunk.end] or written == [3, 6, 7]
    (tensor,) = editor_row("rome").make(job.settings).tensors(job.model)
    assert np.any(np.asarray(chunk.weights[tensor]) != job.model.weight(tensor))


def test_the_ratio_is_the_mean_over_turns(tmp_path: Path) -> None:
    """Not that of the means: both ways of a turn meet the same busy moment."""
    made = (
        [Turn(1.01, 1.0, 0.0), Turn(1.03, 1.0, 0.0), Turn(20.4, 20.0, 1e-9)],
        [Turn(1.2, 1.0, 0.0), Turn(14, 10, 0.0)],
    )

    def call(function: Any, *words: Any) -> Any:
        return made if function is turns else 0 if function.__name__ == "peak_mb" else ""

    memory, rome, guard = saving_case(call, "rome", "world", "world:300", 2)
    assert [row.side for row in (memory, rome, guard)] == ["rome in memory", "rome", "rome guarded every ten"]
    assert (rome.ratio, rome.difference, rome.median_s) == (pytest.approx(1.02), 1e-9, 1.03)
    assert rome.unit == "world:300 one by one (ratio 0.995 to 1.045)"
    assert (guard.ratio, guard.n) == (pytest.approx(1.3), 2)
    said = verdicts(write_measurements(tmp_path / "cpu.csv", [memory, rome, guard]), CLAIMS)
    assert said == ["yes saving, rome: ratio 1.02, at most 1.03 is asked"]
