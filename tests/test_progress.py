"""Progress comes back to the bit, or not at all: damaged it is thrown away, of other work it is refused."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax import progress
from prunejax.errors import InputError
from prunejax.progress import Progress, Saves, due, resumable

FACTS = {"work": "moments", "seed": 0, "layers": (1, 2), "recipe": {"steps": 100, "lr": 0.1}}
ARRAYS = {
    "sums": [jnp.asarray([[math.pi, -0.0], [math.inf, math.nan]]), jnp.zeros((0, 3))],
    "alpha": {(1, "up"): jnp.asarray(7, jnp.int32)},
    "half": jnp.asarray([1.5, -2.0], jnp.float16),
}
PLACE = {"step": 3, "course": [[1, 0.1, math.inf]], "drawing": 2**127 + 1}


@pytest.fixture
def noted() -> list[str]:
    return []


@pytest.fixture
def kept(tmp_path: Path, noted: list[str]) -> Progress:
    """Progress of FACTS with something saved."""
    own = Progress(tmp_path / ".out.progress", noted.append).of(**FACTS)
    own.save(ARRAYS, PLACE)
    return own


def test_what_was_saved_comes_back_to_the_bit_in_its_structure(kept: Progress, noted: list[str]) -> None:
    arrays, place = kept.load({**ARRAYS, "sums": [jnp.zeros((2, 2)), jnp.zeros((0, 3))]})
    assert place == PLACE
    for found, saved in zip((*arrays["sums"], arrays["half"]), (*ARRAYS["sums"], ARRAYS["half"]), strict=True):
        assert found.dtype == saved.dtype
        assert np.asarray(found).tobytes() == np.asarray(saved).tobytes()
    assert arrays["alpha"][1, "up"] == 7
    assert noted == []


def test_where_nothing_was_saved_there_is_nothing(tmp_path: Path) -> None:
    assert Progress(tmp_path / ".out.progress").of(**FACTS).load(ARRAYS) is None


def test_other_work_is_refused_and_every_difference_named(kept: Progress) -> None:
    other = kept.of(**FACTS | {"seed": 1, "layers": (1,), "recipe": {"steps": 50, "lr": 0.1}})
    said = (
        r"progress .*\.out\.progress: belongs to work with other settings \(layers \[1, 2\] -> \[1\]; "
        r"recipe steps 100 -> 50; seed 0 -> 1\); give those, remove this file, or choose another --out"
    )
    with pytest.raises(InputError, match=said):
        other.load(ARRAYS)
    assert kept.load(ARRAYS) is not None, "a refusal removes nothing"


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: flip(content, len(content) - 1),
        lambda content: content.replace(b'\\"step\\": 3', b'\\"step\\": 4'),
        lambda content: content.replace(b"'half'", b"'hulf'"),
        lambda content: content.replace(b"prunejax.sha256", b"prunejax.sha255"),
        lambda content: content[:-1],
        lambda content: content[:20],
        lambda content: b"",
    ],
    ids=["an array", "the place", "a name", "no checksum", "a byte short", "cut in the header", "empty"],
)
def test_a_damaged_file_is_thrown_away(kept: Progress, noted: list[str], damage) -> None:
    whole = kept.path.read_bytes()
    assert damage(whole) != whole
    kept.path.write_bytes(damage(whole))
    assert kept.load(ARRAYS) is None
    assert noted == [f"progress {kept.path}: damaged, and thrown away; the work starts anew"]
    assert not kept.path.exists()


@pytest.mark.parametrize("other", [jnp.zeros(3, jnp.float16), jnp.zeros(2)], ids=["shape", "dtype"])
def test_arrays_of_another_form_are_thrown_away(kept: Progress, noted: list[str], other: jax.Array) -> None:
    assert kept.load({**ARRAYS, "half": other}) is None
    assert noted == [f"progress {kept.path}: of another form, and thrown away; the work starts anew"]


def test_other_versions_and_devices_are_told_and_taken(
    kept: Progress, noted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "device_words", lambda: "another")
    assert kept.load(ARRAYS) is not None
    (line,) = noted
    assert "device 'cpu' -> 'another'; the last bits may differ" in line


def test_progress_goes_when_the_output_is_there_and_stays_when_work_is_cut(tmp_path: Path, noted: list[str]) -> None:
    out = tmp_path / "out"

    def cut() -> None:
        with resumable(out, "moments", noted.append) as own:
            own.of(**FACTS).save(ARRAYS, PLACE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut()
    assert [path.name for path in tmp_path.iterdir()] == [".out.progress"]
    for name in (".out", "..out.progress"):
        (tmp_path / f"{name}.ab12_xyz.prunejax-part").touch()
    with resumable(out, "moments", noted.append) as own:
        assert own.of(**FACTS).load(ARRAYS).place == PLACE
        with pytest.raises(InputError, match=r"moments .*out: process .* writes into it"), resumable(out, "moments"):
            pass
        out.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert noted == []


def test_saving_takes_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.time, "monotonic", lambda: 1000.0)
    assert not due(Saves(971.0, 0.0)), "29 s"
    assert due(Saves(969.0, 0.9))
    assert not due(Saves(969.0, 1.0)), "more than three parts in a hundred of 31 s"
