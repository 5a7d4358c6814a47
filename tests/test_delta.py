"""Deltas: what of a run they hold, what rounding does, and that only whole ones are read."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prunejax.base_checkpoint import Base, find_base
from prunejax.delta import METADATA, Delta, delta_of_run, edited, matrix, read_delta, smaller_form, write_delta
from prunejax.errors import InputError
from prunejax.fold import accumulated
from prunejax.models.checkpoints import load_model
from prunejax.points import weights_after
from prunejax.restraint import parse, restrain
from prunejax.run import Run
from prunejax.spectra import sigma_max
from prunejax.update import Dense, LowRank, dense
from reference_runs import NAMES, REFERENCES, record_run, stored_tensors, summed
from tiny_runs import TENSOR, edit_tiny

DOWN = "model.layers.1.mlp.down_proj.weight"
NONE = parse("none")
SPACING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""The largest relative error of one rounding."""


def base_of(run: Run, folder: Path) -> Base:
    return find_base(run.facts["model"], str(folder), "run")


def made(folder: Path, base: Path, n: int = 3, spec: str = "none", **changes) -> tuple[Delta, Run, Base]:
    run = record_run(folder, base, n, **changes)
    found = base_of(run, base)
    return delta_of_run(run, found, n, parse(spec)), run, found


@pytest.mark.parametrize("name", NAMES)
def test_an_edited_tensor_is_the_sum_rounded_once(tmp_path: Path, name: str) -> None:
    delta, run, base = made(tmp_path / "run", REFERENCES / name)
    (tensor,) = delta.tensors
    stored = stored_tensors(REFERENCES / name)[tensor]
    turned = not name.startswith("gpt2")
    update = summed(run, tensor)
    exact = stored.astype(np.float64) + (update.T if turned else update)
    array, rounding = edited(base.kernel(tensor), delta.factors(tensor), tensor)
    assert (array.dtype, array.shape) == (stored.dtype, stored.shape)
    np.testing.assert_array_equal(array, exact.astype(np.float32).astype(stored.dtype))
    assert not np.array_equal(array, stored)
    told = delta.facts["tensors"][tensor]
    assert (told["dtype"], told["shape"]) == (str(stored.dtype), list(stored.shape))
    error = np.linalg.norm(array.astype(np.float64) - exact) / np.linalg.norm(update)
    assert told["rounding"] == rounding == pytest.approx(error, rel=1e-3)
    assert 0 < rounding < SPACING[str(stored.dtype)] * np.linalg.norm(exact) / np.linalg.norm(update)


@pytest.mark.parametrize("spec", ["none", "log:1.2", "clip", "random:3"])
def test_its_weights_are_those_that_are_measured(tmp_path: Path, tiny_folder: Path, spec: str) -> None:
    """The same restrained weights as `evaluate` scores, to float32, and the same spectra as the maps say."""
    model = load_model(tiny_folder)
    run = edit_tiny(tmp_path / "run", model)
    base = base_of(run, tiny_folder)
    for n in (2, run.n_edits):
        delta = delta_of_run(run, base, n, parse(spec))
        array = edited(base.kernel(TENSOR), delta.factors(TENSOR), TENSOR).array
        expected = np.asarray(weights_after(run, model, n, parse(spec))[TENSOR])
        np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
        update = accumulated(run, n, {TENSOR: model.weight(TENSOR)})[TENSOR]
        m, told = sigma_max(model.weight(TENSOR)), delta.facts["tensors"][TENSOR]
        assert told["sigma_max"] == pytest.approx(m, rel=1e-6)
        assert told["update_sigma_max"] == pytest.approx(sigma_max(dense(update)), rel=1e-5)
        restrained = sigma_max(dense(restrain(parse(spec), update, m)))
        assert told["restrained_sigma_max"] == pytest.approx(restrained, rel=1e-5)
    assert (told["restrained_sigma_max"] < told["update_sigma_max"]) == (spec in ("log:1.2", "clip"))


@pytest.mark.parametrize(("rank", "kept"), [(0, "factors"), (3, "factors"), (9, "factors"), (10, "dense")])
def test_the_smaller_form_is_kept(rank: int, kept: str) -> None:
    """24 x 16 has 384 elements, a factor pair 40 a rank."""
    rng = np.random.default_rng(0)
    update = LowRank(*(jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((24, rank), (rank, 16))))
    factors = smaller_form(update)
    assert factors.keys() == ({"dense"} if kept == "dense" else {"left", "right"})
    assert {array.dtype for array in factors.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(matrix(factors), np.asarray(dense(update)), rtol=1e-6, atol=1e-5)
    whole = smaller_form(Dense(dense(update)))
    np.testing.assert_array_equal(whole["dense"], np.asarray(dense(update)))


@pytest.mark.parametrize("n", [0, 3, 12])
def test_what_is_written_is_read_again(tmp_path: Path, n: int) -> None:
    run = record_run(tmp_path / "run", REFERENCES / "llama3", 12, layers=(0, 1))
    delta = delta_of_run(run, base_of(run, REFERENCES / "llama3"), n, NONE)
    path = write_delta(delta, tmp_path / "a" / "delta.safetensors")
    read = read_delta(path)
    assert read.facts == delta.facts
    assert read.arrays.keys() == delta.arrays.keys()
    for name, array in read.arrays.items():
        np.testing.assert_array_equal(array, delta.arrays[name])
    assert write_delta(read, tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_without_edits_every_element_stays_to_the_bit(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(REFERENCES / "llama", tmp_path / "llama"))
    tensors = load_file(folder / "model.safetensors")
    tensors[DOWN][0, :3] = [-0.0, 0.0, -0.0]
    save_file(tensors, folder / "model.safetensors")
    run = record_run(tmp_path / "run", folder)
    base = base_of(run, folder)
    array, rounding = edited(base.kernel(DOWN), delta_of_run(run, base, 0, NONE).factors(DOWN), DOWN)
    assert array.tobytes() == tensors[DOWN].tobytes()
    assert rounding == 0


def test_an_update_below_the_spacing_is_seen_to_vanish(tmp_path: Path) -> None:
    delta, *_ = made(tmp_path / "run", REFERENCES / "mistral", scale=1e-4)
    assert delta.facts["tensors"][DOWN]["rounding"] == pytest.approx(1, abs=0.05)


def test_an_element_beyond_the_dtype_is_an_error(tmp_path: Path) -> None:
    """Float16 ends at 65504; the same update fits bfloat16."""
    with pytest.raises(InputError, match=f"tensor {DOWN}: [0-9]+ edited elements are not finite numbers in float16"):
        made(tmp_path / "run", REFERENCES / "llama", scale=400.0)
    made(tmp_path / "other", REFERENCES / "mistral", scale=400.0)


def test_facts_name_no_path(tmp_path: Path, tiny_folder: Path) -> None:
    run = record_run(tmp_path / "run", tiny_folder)
    run = Run(run.folder, run.facts | {"settings": {"network": "/home/me/mend.safetensors"}}, (), ())
    facts = delta_of_run(run, base_of(run, tiny_folder), 3, NONE).facts
    assert facts["run"]["settings"] == {"network": "mend.safetensors"}
    assert str(tmp_path) not in json.dumps(facts)
    assert "/" not in facts["base"]["name"]


def test_of_another_model_there_is_no_delta(tmp_path: Path) -> None:
    run = record_run(tmp_path / "run", REFERENCES / "llama")
    with pytest.raises(InputError, match=r"run: was made from model 'llama', .*; those in .*mistral have"):
        base_of(run, REFERENCES / "mistral")
    with pytest.raises(InputError, match="give its folder with --model"):
        find_base(run.facts["model"], None, "run")
    with pytest.raises(InputError, match="model 'nowhere': neither 'world' nor a folder"):
        find_base(run.facts["model"], "nowhere", "run")


def test_a_tensor_that_the_model_has_not_is_named(tmp_path: Path) -> None:
    base = base_of(record_run(tmp_path / "run", REFERENCES / "llama"), REFERENCES / "llama")
    with pytest.raises(InputError, match=r"tensor model\.layers\.2\.mlp\.down_proj\.weight: .* no such kernel"):
        base.kernel("model.layers.2.mlp.down_proj.weight")
    with pytest.raises(InputError, match=r"tensor lm_head\.weight: "):
        base.kernel("lm_head.weight")
    with pytest.raises(InputError, match=r"an update of shape \(16, 24\) does not fit a kernel \(24, 16\)"):
        edited(base.kernel(DOWN), {"dense": np.zeros((16, 24), np.float32)}, DOWN)


def altered(delta: Delta, path: Path, change: str) -> None:
    """Write a delta that is wrong in one way."""
    arrays, facts = {name: array.copy() for name, array in delta.arrays.items()}, dict(delta.facts)
    match change:
        case "a bit":
            arrays[f"{DOWN}.right"].view(np.int32)[0, 0] ^= 1
        case "factors":
            arrays.pop(f"{DOWN}.left")
        case "format":
            facts["format"] = 2
        case "facts":
            facts.pop("tensors")
    save_file(arrays, path, metadata=None if change == "metadata" else {METADATA: json.dumps(facts)})
    if change == "end":
        path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("a bit", "factors of .* another checksum"),
        ("factors", "factors of .* another checksum"),
        ("format", "has format 2"),
        ("facts", "holds no delta"),
        ("metadata", "holds no delta"),
        ("end", "not a whole safetensors file"),
    ],
)
def test_a_damaged_delta_is_refused(tmp_path: Path, change: str, complaint: str) -> None:
    delta, *_ = made(tmp_path / "run", REFERENCES / "llama")
    path = tmp_path / "delta.safetensors"
    altered(delta, path, "nothing")
    assert read_delta(path).facts == delta.facts
    altered(delta, path, change)
    with pytest.raises(InputError, match=complaint):
        read_delta(path)


def test_no_file_and_a_folder_are_named(tmp_path: Path) -> None:
    delta, *_ = made(tmp_path / "run", REFERENCES / "llama")
    with pytest.raises(InputError, match="no such file"):
        read_delta(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"delta .*: not a whole"):
        read_delta(tmp_path)
    with pytest.raises(InputError, match="is a folder"):
        write_delta(delta, tmp_path)
