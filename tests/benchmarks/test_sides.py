"""The process that a side is, and what both sides are given."""

import os
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import ours, yardstick
from benchmarks.recipe import memit_contexts, rome_contexts
from benchmarks.sides import environment, hold_to, peak_mb, side
from prunejax.errors import InputError


def test_a_side_is_a_process_of_its_own() -> None:
    with side(1) as call:
        assert call(os.getpid) != os.getpid()
        assert call(os.getenv, "OMP_NUM_THREADS") == "1"
        assert call(os.getenv, "JAX_PLATFORMS") == "cpu"
        if hasattr(os, "sched_getaffinity"):
            assert len(call(os.sched_getaffinity, 0)) == 1
        assert 1 < call(peak_mb) < 1e5
        with pytest.raises(ZeroDivisionError):
            call(divmod, 1, 0)


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with environment({"OMP_NUM_THREADS": "2", "PRUNEJAX_NEW": "1"}):
        assert os.environ["OMP_NUM_THREADS"] == "2"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "PRUNEJAX_NEW" not in os.environ


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not hold processes to cores")
def test_more_cores_than_there_are_is_all_of_them() -> None:
    before = os.sched_getaffinity(0)
    hold_to(10_000)
    assert os.sched_getaffinity(0) == before


def test_the_contexts_are_as_many_and_as_long_as_the_authors(shared: Path) -> None:
    tokenizer = yardstick.gpt2_tokenizer(shared)
    lengths = [len(tokenizer.encode(t.removesuffix(". {}")).ids) for t in rome_contexts()[1:]]
    assert lengths == [5] * 10 + [10] * 10
    assert rome_contexts()[0] == "{}"
    bare, prefixed = memit_contexts()
    assert bare == ("{}",)
    assert prefixed == rome_contexts()[11:16]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="PRUNEJAX_SHARED is not set: name the folder with GPT-2's vocabulary"):
        yardstick.shared_folder(None)
    with pytest.raises(InputError, match="lacks GPT-2's vocabulary"):
        yardstick.shared_folder(str(tmp_path))


def test_neither_side_loads_what_the_other_computes_with(torch: ModuleType) -> None:
    from benchmarks import theirs

    with side(1) as me, side(1) as pytorch:
        assert me(ours.stack).startswith("jax ")
        assert pytorch(theirs.stack).startswith("torch ")
        assert not me(eval, "'torch' in __import__('sys').modules")
        assert not pytorch(eval, "'jax' in __import__('sys').modules")
