"""The run folder: what is written comes back, what is torn or damaged is noticed, the fold gives the state after n."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import oracles
from prunejax.errors import InputError
from prunejax.events import Event, append_events
from prunejax.fold import accumulated, one_edit
from prunejax.run import Run, create_run, open_run
from prunejax.stored import read_carried, read_state, record_chunk, record_event
from prunejax.update import LowRank, dense
from tiny_runs import REQUESTS, contents

DOWN, UP = "transformer.h.1.mlp.c_proj.weight", "transformer.h.1.mlp.c_fc.weight"
SHAPES = {DOWN: (8, 5), UP: (5, 8)}
FACTS = {"tensors": [DOWN, UP], "seed": 3, "batch": 1, "settings": {"lr": 0.5}}
FACTS |= {"editor": "rome", "preset": "default", "restrain": "", "chunk": 50, "contexts": {"sha256": "0" * 64}}
FACTS |= {"model": {"name": "tiny", "sha256": "0" * 64}, "requests": {"source": "", "n": 7, "sha256": "0" * 64}}
FACTS |= {"versions": {"jax": "1"}, "device": "cpu"}
CONTEXTS = ("{}", "“Bitte.” {}")


def new_run(folder: Path) -> Run:
    return create_run(folder, FACTS, REQUESTS, CONTEXTS)


def edits(rng: np.random.Generator, n: int, rank: int = 1) -> list[dict[str, LowRank]]:
    """n edits of both tensors, each of some rank."""

    def draw(*size: int) -> Any:
        return jnp.asarray(rng.normal(size=size), jnp.float32)

    return [{t: LowRank(draw(d_in, rank), draw(rank, d_out)) for t, (d_in, d_out) in SHAPES.items()} for _ in range(n)]


def weights(rng: np.random.Generator) -> dict[str, Any]:
    """Unedited weights whose sigma_max is 1, small beside the edits."""
    return {t: jnp.asarray(oracles.with_spectrum(rng, *s, [1.0, 0.5]), jnp.float32) for t, s in SHAPES.items()}


def summed(chunk: Sequence[dict[str, LowRank]], tensor: str) -> np.ndarray:
    """The sum of edits, one after another, float64."""
    total = np.zeros(SHAPES[tensor])
    for edit in chunk:
        total += np.asarray(edit[tensor].left, np.float64) @ np.asarray(edit[tensor].right, np.float64)
    return total


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_what_was_written_is_read_again(tmp_path: Path, rng: np.random.Generator) -> None:
    made = new_run(tmp_path / "run")
    assert made.events() == ()
    assert made.n_edits == 0
    assert made.tensors == (DOWN, UP)
    state = weights(rng)
    event = record_chunk(made, 1, 3, edits(rng, 3), state)
    restraint = append_events(made.folder, Event(1, "restrain", 3, 3, restraint="log:1.2", raw=True))

    run = open_run(tmp_path / "run")
    assert run == Run(tmp_path / "run", FACTS, REQUESTS, CONTEXTS)
    assert run.events() == (event, restraint)
    assert (event.kind, event.first, event.last, run.n_edits) == ("edit", 1, 3, 3)
    for tensor, weight in read_state(run, 3).items():
        np.testing.assert_array_equal(weight, state[tensor])


def test_factors_lie_in_rows_in_the_order_of_the_edits(tmp_path: Path, rng: np.random.Generator) -> None:
    """The published format: W += sum_i outer(left_i, right_i)."""
    chunk = edits(rng, 3)
    event = record_chunk(new_run(tmp_path), 1, 3, chunk, weights(rng))
    stored = load_file(tmp_path / event.file)
    assert event.file == "updates/000001-000003.safetensors"
    assert stored.keys() == {f"{tensor}.{side}" for tensor in SHAPES for side in ("left", "right")}
    for number, edit in enumerate(chunk):
        for tensor in SHAPES:
            np.testing.assert_array_equal(stored[f"{tensor}.left"][number], edit[tensor].left[:, 0])
            np.testing.assert_array_equal(stored[f"{tensor}.right"][number], edit[tensor].right[0])


@pytest.mark.parametrize("rank", [1, 2])
def test_the_fold_after_n_edits_is_their_sum_chunk_ends_or_not(
    tmp_path: Path, rng: np.random.Generator, rank: int
) -> None:
    run, original, done = new_run(tmp_path), weights(rng), []
    for first, n in ((1, 3), (4, 2)):
        chunk = edits(rng, n, rank)
        record_chunk(run, first, first + n - 1, chunk, original)
        done += chunk
    for n in range(6):
        for tensor, update in accumulated(run, n, original).items():
            np.testing.assert_allclose(dense(update), summed(done[:n], tensor), rtol=0, atol=1e-5)
            assert update.left.shape == (SHAPES[tensor][0], n * rank)


@pytest.mark.parametrize("rank", [1, 2])
def test_one_edit_is_that_edit(tmp_path: Path, rng: np.random.Generator, rank: int) -> None:
    run, original = new_run(tmp_path), weights(rng)
    done = edits(rng, 5, rank)
    record_chunk(run, 1, 3, done[:3], original)
    record_chunk(run, 4, 5, done[3:], original)
    for number, edit in enumerate(done, 1):
        for tensor, update in one_edit(run, number).items():
            np.testing.assert_array_equal(update.left, edit[tensor].left)
            np.testing.assert_array_equal(update.right, edit[tensor].right)
    with pytest.raises(InputError, match="has 5 edits, edit 6 was asked for"):
        one_edit(run, 6)


def test_edits_that_end_within_a_batch_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    run, original = create_run(tmp_path, FACTS | {"batch": 2}, REQUESTS, CONTEXTS), weights(rng)
    record_chunk(run, 1, 3, edits(rng, 3), original)
    assert all(update.left.shape[1] == n for n in (2, 3) for update in accumulated(run, n, original).values())
    with pytest.raises(InputError, match="1 edits end within a batch of 2"):
        accumulated(run, 1, original)


@pytest.mark.parametrize("n", [-1, 4])
def test_the_fold_refuses_edits_that_are_not_there(tmp_path: Path, rng: np.random.Generator, n: int) -> None:
    run, original = new_run(tmp_path), weights(rng)
    record_chunk(run, 1, 3, edits(rng, 3), original)
    with pytest.raises(InputError, match=f"has 3 edits, {n} were asked for"):
        accumulated(run, n, original)


@pytest.mark.parametrize("raw", [False, True])
def test_a_restraint_during_the_run_replaces_what_had_accumulated_unless_raw(
    tmp_path: Path, rng: np.random.Generator, raw: bool
) -> None:
    run, original = new_run(tmp_path), weights(rng)
    before, after = edits(rng, 2), edits(rng, 2)
    record_chunk(run, 1, 2, before, original)
    append_events(run.folder, Event(1, "restrain", 2, 2, restraint="log:2", raw=raw))
    record_chunk(run, 3, 4, after, original)
    for tensor in SHAPES:
        restrained = oracles.restrained_delta("log:2", summed(before, tensor), 1.0)
        assert oracles.distance(restrained, summed(before, tensor)) > 0.1
        replaced = summed(before, tensor) if raw else restrained
        expected = {1: summed(before[:1], tensor), 2: replaced, 3: replaced + summed(after[:1], tensor)}
        for n, total in expected.items():
            assert oracles.distance(dense(accumulated(run, n, original)[tensor]), total) < 1e-5


def test_a_torn_last_line_does_not_count_and_the_next_event_removes_it(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    run, path = new_run(tmp_path), tmp_path / "events.jsonl"
    event = record_chunk(run, 1, 3, edits(rng, 3), weights(rng))
    whole = path.read_text()
    for torn in ('{"seq": 1, "kind": "edit", "first": 4, "la', "{", whole.removesuffix("\n")):
        path.write_text(whole + torn)
        assert run.events() == (event,)
        assert run.n_edits == 3
    record_chunk(run, 4, 4, edits(rng, 1), weights(rng))
    assert [json.loads(line)["last"] for line in path.read_text().splitlines()] == [3, 4]


def test_a_line_that_is_whole_and_no_event_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    run = new_run(tmp_path)
    record_chunk(run, 1, 3, edits(rng, 3), weights(rng))
    with (tmp_path / "events.jsonl").open("a") as handle:
        handle.write('{"seq": 1, "colour": "red"}\n')
    with pytest.raises(InputError, match=r"events\.jsonl: line 2 is not an event"):
        run.events()


@pytest.mark.parametrize("damage", ["one bit", "cut", "gone"])
def test_damaged_factors_are_named(tmp_path: Path, rng: np.random.Generator, damage: str) -> None:
    run, original = new_run(tmp_path), weights(rng)
    record_chunk(run, 1, 2, edits(rng, 2), original)
    event = record_chunk(run, 3, 4, edits(rng, 2), original)
    path = tmp_path / event.file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content if damage == "one bit" else path.read_bytes()[:-10])
    if damage == "gone":
        path.unlink()
    reason = "no such file" if damage == "gone" else "its checksum is not the recorded one"
    with pytest.raises(InputError, match=rf"updates/000003-000004\.safetensors: {reason}"):
        accumulated(run, 3, original)
    assert accumulated(run, 2, original).keys() == SHAPES.keys()  # what lies before the damage can still be had


def test_a_state_that_was_cut_off_or_changed_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    run, state = new_run(tmp_path), weights(rng)
    record_event(run, Event(0, "edit", 1, 50), state)
    path = tmp_path / "state/000050.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-10], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"state/000050\.safetensors: its checksum is not the recorded one"):
            read_state(run, 50)
    path.write_bytes(whole)
    assert read_state(run, 50).keys() == state.keys()


def cut(carried: dict[str, Any]) -> dict[str, Any]:
    """Its rows and columns that are used."""
    n = int(carried["used"])
    return {"keys": carried["keys"][:n], "factor": carried["factor"][:n, :n], "used": carried["used"]}


START = {"keys": np.zeros((5, 3), np.float32), "factor": np.eye(5, dtype=np.float32), "used": np.int32(0)}
FULL = {"keys": START["keys"].copy(), "factor": START["factor"].copy(), "used": np.int32(2)}
FULL["keys"][:2], FULL["factor"][1, 0] = [[1, 2, 3], [4, 5, 6]], 7


@pytest.mark.parametrize("stored", [cut(FULL), FULL], ids=["what is used", "all, as older runs"])
def test_what_was_stored_lies_over_what_a_run_starts_with(
    tmp_path: Path, rng: np.random.Generator, stored: dict[str, Any]
) -> None:
    run = new_run(tmp_path)
    record_event(run, Event(0, "edit", 1, 2), weights(rng), stored)
    again = read_carried(run, 2, START, cut)
    assert again.keys() == FULL.keys()
    for name, expected in FULL.items():
        np.testing.assert_array_equal(again[name], expected)
    assert not START["keys"].any()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"keys": FULL["keys"][:3]}, r"another part of editor\['keys'\]"),
        ({"used": np.int32(3)}, r"another part of editor\['factor'\]"),
        ({"keys": np.zeros((2, 4), np.float32)}, r"no editor\['keys'\] of this editor"),
        ({"keys": np.zeros((6, 3), np.float32)}, r"no editor\['keys'\] of this editor"),
        ({"keys": np.zeros(2, np.float32)}, r"no editor\['keys'\] of this editor"),
        ({"keys": np.zeros((2, 3))}, r"no editor\['keys'\] of this editor"),
        ({"other": np.zeros(2)}, r"no editor\['used'\] of this editor"),
    ],
)
def test_a_state_of_another_editor_is_refused(
    tmp_path: Path, rng: np.random.Generator, changed: dict[str, Any], reason: str
) -> None:
    run, stored = new_run(tmp_path), cut(FULL) | changed
    if "other" in changed:
        del stored["used"]
    record_event(run, Event(0, "edit", 1, 2), weights(rng), stored)
    with pytest.raises(InputError, match=f"the state after 2 edits holds {reason}"):
        read_carried(run, 2, START, cut)


def test_a_state_without_a_recorded_checksum_is_read_as_it_was_written_then(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Earlier versions wrote the restrained state over that of the chunk."""
    run, state = new_run(tmp_path), weights(rng)
    record_event(run, Event(0, "edit", 1, 2), state)
    append_events(run.folder, Event(1, "restrain", 2, 2, restraint="clip"))
    for tensor, weight in read_state(run, 2).items():
        np.testing.assert_array_equal(weight, state[tensor])
    (tmp_path / "state/000002.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"state/000002\.safetensors: not a whole safetensors file"):
        read_state(run, 2)


@pytest.mark.parametrize("left", [(), ("requests.jsonl",), ("requests.jsonl", "contexts.json")])
def test_a_run_that_was_cut_while_it_was_made_is_made_again(tmp_path: Path, left: tuple[str, ...]) -> None:
    new_run(tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    for name in left:
        shutil.copy(tmp_path / "whole" / name, tmp_path / "cut")
    (tmp_path / "cut" / ".lock").touch()
    new_run(tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole") | {".lock": b""}


@pytest.mark.parametrize(
    ("name", "text"), [("requests.jsonl", "{}"), ("contexts.json", '["{}"]'), ("notes.txt", ""), (".mine", "")]
)
def test_a_folder_with_files_of_somebody_else_is_left_alone(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"the folder is not empty and holds no run\.json; choose another --out"):
        new_run(tmp_path)
    assert contents(tmp_path) == before


def test_the_same_run_is_taken_up_even_with_other_versions_and_devices(tmp_path: Path) -> None:
    made = new_run(tmp_path)
    before = contents(tmp_path)
    assert create_run(tmp_path, FACTS | {"versions": {"jax": "2"}, "device": "gpu"}, REQUESTS, CONTEXTS) == made
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 4}, "seed 3 -> 4"),
        ({"settings": {"lr": 0.1}}, "settings {'lr': 0.5} -> {'lr': 0.1}"),
        ({"tensors": [DOWN]}, "tensors"),
        ({"later": 1}, "later None -> 1"),
    ],
)
def test_another_run_is_refused_with_what_differs(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    new_run(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError) as caught:
        create_run(tmp_path, FACTS | changed, REQUESTS, CONTEXTS)
    assert named in str(caught.value)
    assert contents(tmp_path) == before


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="not empty and holds no run"):
        new_run(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", [None, "{", "[]", '{"tensors": 1}'])
def test_a_folder_that_is_no_run_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match="run"):
        open_run(tmp_path)
