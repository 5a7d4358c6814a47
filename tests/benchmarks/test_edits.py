"""Both sides edit the same small model: equal deltas, whole cases, a side too slow to be compared with."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks import ours, yardstick
from benchmarks.measurements import distance
from benchmarks.rates import Refusal, refuse_below
from benchmarks.recipe import Job, Recipe
from prunejax.models.config import DecoderConfig, Rope
from prunejax.requests import EditRequest
from tiny import EDITS, tiny_tokenizer

SIZES = {"n_layers": 4, "n_heads": 2, "d_model": 16, "d_ff": 32, "n_positions": 256}
BATCH = 32


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """A side that is this very process."""
    return function(*arguments)


def make(folder: Path, family: str) -> Path:
    """A yardstick of a small model: two requests of tests/tiny.py again and again, and C of layers 0 to 2."""
    tokenizer = tiny_tokenizer()
    facts = (EDITS[0], EDITS[2])
    requests = [EditRequest(str(i), *[facts[i % 2].prompt, facts[i % 2].subject, "Madrid"]) for i in range(BATCH)]
    config = DecoderConfig(**SIZES, vocab_size=tokenizer.get_vocab_size())
    shapes = yardstick.gpt2_shapes(config, tokenizer.token_to_id(yardstick.END))
    if family == "llama":
        kind = {"norm": "rms", "activation": "silu", "gated": True, "rope": Rope(8, 500_000.0), "tied": False}
        biases = {"qkv_bias": False, "o_bias": False, "mlp_bias": False, "n_kv_heads": 1}
        sizes = DecoderConfig(**SIZES, **kind, **biases, vocab_size=config.vocab_size)
        shapes = yardstick.llama_shapes(sizes, "float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yardstick, "SPREAD", 0.3)  # as small as this, weights of 0.02 leave nothing to optimise
        yardstick.make(folder, shapes, tokenizer, requests, (0, 1, 2) if family == "gpt2" else ())
    return folder


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def jobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Job]:
    """ROME's and MEMIT's job of editing one small model; the Llama's has C = I, as on a GPU."""
    folder = make(tmp_path_factory.mktemp("yardstick"), request.param)
    kind = {"second_moment": "corpus" if request.param == "gpt2" else "identity", "steps": 6}
    return Job(folder, Recipe(layers=(1,), **kind)), Job(folder, Recipe(layers=(0, 1), **kind, moment_weight=10.0))


@pytest.fixture
def cases(torch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The cases, on a machine of 1 GFLOP/s and never busy."""
    from benchmarks import cases_edits

    monkeypatch.setattr(cases_edits, "refuse_below", lambda *_: None)
    monkeypatch.setattr(cases_edits, "jax_rate", lambda *_: 1e9)
    monkeypatch.setattr(cases_edits, "torch_rate", lambda *_: 1e9)
    return cases_edits


@pytest.mark.parametrize("name", ["rome", "memit"])
def test_both_sides_find_the_same_updates(cases: ModuleType, jobs: tuple[Job, Job], name: str) -> None:
    case, job = (cases.rome_case, jobs[0]) if name == "rome" else (cases.memit_case, jobs[1])
    extent = cases.Extent(rome_ours=3, rome_theirs=2, memit_ours=1, memit_theirs=2)
    mine, other = case(here, here, job, extent, 1)
    assert other.difference < 1e-3
    assert (mine.case, mine.side, mine.n) == (name, "prunejax", 3 if name == "rome" else 1)
    assert (other.case, other.side, other.n) == (name, "pytorch", 2)
    assert mine.gflop < other.gflop * (1 if name == "rome" else BATCH)  # of MEMIT's other side, one value step
    assert other.ratio > 0
    assert mine.peak_mb > 0


def test_other_settings_give_other_updates(torch: ModuleType, jobs: tuple[Job, Job]) -> None:
    """The equality above is not that of two zeros."""
    from benchmarks import theirs

    job = jobs[0]
    ((left, right),) = ours.edit(job, "rome", 1, 0).factors
    _, u, v = theirs.rome_seconds(job._replace(recipe=job.recipe._replace(steps=4)), 0)
    assert distance(left @ right, np.outer(u, v)) > 1e-2


def test_a_slow_pytorch_is_not_compared_with(cases: ModuleType, jobs: tuple[Job, Job], monkeypatch) -> None:
    monkeypatch.setattr(cases, "refuse_below", refuse_below)
    monkeypatch.setattr(cases, "torch_rate", lambda *_: 1e15)
    for case, job in zip((cases.rome_case, cases.memit_case), jobs, strict=True):
        with pytest.raises(Refusal, match="PyTorch reached 0% of its own matrix-product rate"):
            case(here, here, job, cases.Extent(1, 1, 1, 1), 1)
