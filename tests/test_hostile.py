"""Files that nobody would write by hand: whatever they hold, they are read, or refused in words that are ours, soon and
without a trace.

`make torture` asks for more examples than `make test`: PRUNEJAX_EXAMPLES says of how many.
"""

import io
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bad_inputs.breaking import safetensors
from desk import Desk
from prunejax.checking import problems
from prunejax.cli import main
from prunejax.contexts import read_contexts
from prunejax.delta import METADATA, read_delta
from prunejax.editors.editor import as_it_is
from prunejax.editors.hypernetwork import load_hypernetwork
from prunejax.editors.moments import ORIGIN, load_moments
from prunejax.errors import InputError
from prunejax.fold import accumulated, one_edit
from prunejax.models.checkpoints import load_decoder
from prunejax.models.tensors import INDEX, WEIGHTS, open_tensors, weight_files
from prunejax.points import provenance
from prunejax.requests import read_requests, sift_requests
from prunejax.run import open_run
from prunejax.sources import find_requests
from prunejax.stored import read_carried, read_state
from tiny_runs import TENSOR, contents

EXAMPLES = int(os.environ.get("PRUNEJAX_EXAMPLES", "40"))
SECONDS = 20
"""Longer than any reader takes on a busy machine."""

FORMS = (
    {"requested_rewrite": {"prompt": "{} is", "subject": "A", "target_new": {"str": "B"}, "target_true": {"str": "C"}}},
    {"src": "A is", "subject": "A", "alt": "B", "answers": ["C"], "loc": "D", "loc_ans": "E"},
    {"prompt": "A is", "subject": "A", "target_new": "B", "ground_truth": ["C"], "locality": {"x": [{"prompt": "D"}]}},
)
"""Records in the forms of others."""

hostile = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
rarely = settings(hostile, max_examples=max(EXAMPLES // 10, 5))

LEFT, RIGHT, MOMENT, COUNT = (f"{TENSOR}.{part}" for part in ("left", "right", "second_moment", "count"))
EVENTS, UPDATE, STATE = "events.jsonl", "updates/000001-000007.safetensors", "state/000007.safetensors"

words = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "..", "../../x", "/etc/passwd", "\0", "\ud800", "{}", "NaN", "x" * 300, TENSOR, "0" * 64]),
)
numbers = st.one_of(
    st.integers(-2, 70),
    st.sampled_from([2**30, 2**31, 2**63, 2**64, 10**30, -(2**63)]),
    st.floats(),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=8,
)


def mutated(whole: Any) -> st.SearchStrategy[Any]:
    """A JSON value some entry of which, however deep, is another one, or gone, or one too many."""
    other = values | st.just(...)
    if isinstance(whole, dict) and whole:
        inner = st.sampled_from(sorted(whole)).flatmap(
            lambda name: mutated(whole[name]).map(
                lambda new: {key: value for key, value in (whole | {name: new}).items() if value is not ...}
            )
        )
        return st.one_of(other, inner, inner, inner, st.tuples(words, values).map(lambda pair: whole | dict([pair])))
    if isinstance(whole, list) and whole:
        inner = st.integers(0, len(whole) - 1).flatmap(
            lambda at: mutated(whole[at]).map(
                lambda new: [*whole[:at], *([] if new is ... else [new]), *whole[at + 1 :]]
            )
        )
        return st.one_of(other, inner, inner)
    return other


def bent(whole: bytes) -> st.SearchStrategy[bytes]:
    """A file cut off, with bytes changed, or with bytes put in between."""
    at = st.integers(0, len(whole)) | st.integers(0, min(len(whole), 400))
    return st.one_of(
        at.map(lambda end: whole[:end]),
        st.tuples(at, st.binary(max_size=9)).map(lambda new: whole[: new[0]] + new[1] + whole[new[0] + len(new[1]) :]),
        st.tuples(at, st.binary(max_size=9)).map(lambda new: whole[: new[0]] + new[1] + whole[new[0] :]),
    )


def documents(whole: Any) -> st.SearchStrategy[bytes]:
    """A JSON file that was changed: a value of it, or its bytes; or that is another one altogether."""

    def written(value: Any) -> bytes:
        return b"" if value is ... else json.dumps(value).encode("utf-8", "surrogatepass")

    own = written(whole)
    return st.one_of(mutated(whole).map(written), mutated(whole).map(written), bent(own), st.binary(max_size=20)).map(
        lambda content: content + b"\n"
    )


entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "F16", "BF16", "I64", "BOOL", "C64", "F8_E4M3", "X"]) | values,
        "shape": st.lists(st.integers(0, 4), max_size=3) | values,
        "data_offsets": st.lists(st.integers(0, 70), min_size=2, max_size=2).map(sorted) | values,
    }
)
names = st.sampled_from([LEFT, RIGHT, MOMENT, COUNT, TENSOR, f"{TENSOR}.dense", "alpha.0.up", "alpha.x"]) | words
metadata = st.dictionaries(st.sampled_from([ORIGIN, METADATA]) | words, values.map(json.dumps) | values, max_size=2)


@st.composite
def packed(draw: st.DrawFn) -> bytes:
    """A whole file of a few small tensors, so that what reads the tensors is reached."""
    header: dict[str, Any] = {"__metadata__": draw(st.dictionaries(st.just(ORIGIN), st.text(max_size=9), max_size=1))}
    end = 0
    for name in draw(st.lists(st.sampled_from([LEFT, RIGHT, MOMENT, COUNT, TENSOR]), unique=True, min_size=1)):
        dtype, size = draw(st.sampled_from([("F32", 4), ("F64", 8), ("I64", 8), ("BOOL", 1), ("BF16", 2), ("C64", 8)]))
        shape = draw(st.lists(st.sampled_from([0, 1, 7, 16, 64]), max_size=2))
        start, end = end, end + size * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    fill = draw(st.sampled_from([b"\0", b"\1", b"\xff", b"\x3f"]))
    return safetensors(header, fill * end)


def files(*whole: bytes) -> st.SearchStrategy[bytes]:
    """Safetensors files and what looks like them: headers that lie, random bytes, and whole ones that were bent."""
    made = st.dictionaries(names, entries | values, max_size=3)
    lying = st.tuples(made, metadata, st.binary(max_size=70), st.none() | st.integers(0, 2**64 - 1)).map(
        lambda told: safetensors(told[0] | {"__metadata__": told[1]}, told[2], told[3])
    )
    headers = st.sampled_from(whole).flatmap(
        lambda one: mutated(json.loads(one[8 : 8 + int.from_bytes(one[:8], "little")])).map(
            lambda header: safetensors(None if header is ... else header, one[8 + int.from_bytes(one[:8], "little") :])
        )
    )
    return st.one_of(packed(), packed(), st.binary(max_size=99), lying, headers, st.sampled_from(whole).flatmap(bent))


@contextmanager
def soon() -> Iterator[None]:
    """TimeoutError for what takes longer than SECONDS."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def holding(path: Path, content: bytes) -> Iterator[None]:
    """A file that holds something else for a while, and a folder around it in which nothing else changes."""
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content)
    held = contents(path.parent)
    try:
        yield
        assert contents(path.parent) == held
    finally:
        path.unlink() if before is None else path.write_bytes(before)


def read(*readers: Callable[[], object]) -> None:
    """Every reader gives something, or an InputError."""
    for reader in readers:
        with soon(), suppress(InputError):
            reader()


def ends(*said: object) -> None:
    """The verb ends well, or with one line and status 2."""
    out, err = io.StringIO(), io.StringIO()
    with soon(), redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(word) for word in said])
    told = (ended.value.code, out.getvalue(), err.getvalue().count("\n"))
    assert ended.value.code == 0 or told == (2, "", 1), err.getvalue()


@pytest.fixture(scope="module")
def place(finished: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk whose files are written anew for every example, its model on it. Its run tells no checksums, so that what
    a file holds is looked at."""
    root = Path(shutil.copytree(finished.root, tmp_path_factory.mktemp("hostile") / "desk"))
    desk = Desk(root, Path(shutil.copytree(finished.model, root / "model")))
    event = json.loads((desk.run / EVENTS).read_text())
    (desk.run / EVENTS).write_text(json.dumps({k: v for k, v in event.items() if k not in ("sha256", "state")}) + "\n")
    return desk


def spectra(desk: Desk) -> None:
    """The verb that reads all of a run, or refuses it and leaves no records."""
    ends("spectra", desk.run, "--model", desk.model, "--edits", "3")
    shutil.rmtree(desk.run / "records", ignore_errors=True)


@hostile
@given(data=st.data())
def test_safetensors_of_moments_networks_and_deltas(place: Desk, data: st.DataObject) -> None:
    file = place.root / "file.safetensors"
    with holding(file, data.draw(files((place.run / UPDATE).read_bytes()))):
        read(lambda: load_moments(file), lambda: load_hypernetwork(file), lambda: read_delta(file))


@hostile
@given(data=st.data())
def test_safetensors_of_a_run(place: Desk, data: st.DataObject) -> None:
    run, weights = open_run(place.run), {TENSOR: np.zeros((64, 16), np.float32)}
    with holding(place.run / UPDATE, data.draw(files((place.run / UPDATE).read_bytes()))):
        read(lambda: accumulated(run, 7, weights), lambda: accumulated(run, 3, weights), lambda: one_edit(run, 2))
    with holding(place.run / STATE, data.draw(files((place.run / STATE).read_bytes()))):
        read(
            lambda: read_state(run, 7, weights),
            lambda: read_carried(run, 7, {"key": np.zeros(3, np.float32)}, as_it_is),
        )


@hostile
@given(data=st.data())
def test_safetensors_of_a_model(place: Desk, data: st.DataObject) -> None:
    with holding(place.model / WEIGHTS, data.draw(files((place.model / WEIGHTS).read_bytes()))):
        read(lambda: load_decoder(place.model))


@hostile
@given(data=st.data())
def test_a_config_and_an_index(place: Desk, data: st.DataObject) -> None:
    config = data.draw(documents(json.loads((place.model / "config.json").read_text())))
    with holding(place.model / "config.json", config):
        read(lambda: load_decoder(place.model))
    with holding(place.root / INDEX, data.draw(documents({"weight_map": {TENSOR: "a.safetensors"}}))):
        read(lambda: open_tensors(weight_files(place.root)))


@hostile
@given(data=st.data())
def test_requests_and_contexts(place: Desk, data: st.DataObject) -> None:
    lines = (place.root / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    known = [*map(json.loads, lines[:2]), *FORMS]
    file = place.root / "file"
    with holding(file, data.draw(st.lists(st.sampled_from(known).flatmap(documents), max_size=3).map(b"\n".join))):
        read(lambda: read_requests(file), lambda: sift_requests(file), lambda: find_requests(f"{file}:1", 0, str))
    with holding(file, data.draw(documents(known))):
        read(lambda: read_requests(file))
    with holding(file, data.draw(documents(["{}", "A. {}"]) | documents([["{}"], ["A. {}"]]))):
        read(lambda: read_contexts(file))


@hostile
@given(data=st.data())
def test_the_description_and_the_events_of_a_run(place: Desk, data: st.DataObject) -> None:
    def look() -> None:
        run = open_run(place.run)
        provenance(run)
        run.events()
        accumulated(run, min(run.n_edits, 3), {tensor: np.zeros((64, 16), np.float32) for tensor in run.tensors})
        problems(run)

    for name in ("run.json", EVENTS):
        with holding(place.run / name, data.draw(documents(json.loads((place.run / name).read_text())))):
            read(look)


@rarely
@given(data=st.data())
def test_verbs_on_hostile_files(place: Desk, data: st.DataObject) -> None:
    for name in ("run.json", EVENTS):
        with holding(place.run / name, data.draw(documents(json.loads((place.run / name).read_text())))):
            spectra(place)
    with holding(place.run / UPDATE, data.draw(files((place.run / UPDATE).read_bytes()))):
        spectra(place)
