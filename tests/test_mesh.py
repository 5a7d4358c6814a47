"""A mesh changes where arrays lie, not what is computed: each case runs in processes of its own, on virtual devices."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from jax.sharding import PartitionSpec
from safetensors.numpy import load_file

from oracles import distance
from prunejax.errors import InputError
from prunejax.mesh import join_processes, layout, make_mesh, mesh_sizes
from prunejax.models.checkpoints import save_model
from prunejax.models.config import DecoderConfig
from prunejax.models.families import read_config
from tiny import TEXTS, random_decoder, tiny_tokenizer

TESTS = Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "TQDM_DISABLE": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random Llama of 8 query heads and 4 key and value heads."""
    config = json.loads((TESTS / "models" / "references" / "llama" / "config.json").read_text())
    config |= {"num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 32}
    config |= {"intermediate_size": 64, "vocab_size": tiny_tokenizer().get_vocab_size(), "dtype": "float32"}
    family, sizes = read_config(config, "llama")
    out = tmp_path_factory.mktemp("mesh") / "llama"
    return save_model(random_decoder(sizes, vocabulary=1.0), family, config, tiny_tokenizer().to_str(), out)


def program(folder: Path, out: Path, *mesh: str) -> dict[str, np.ndarray]:
    """What tests/mesh_program.py finds on 8 virtual devices."""
    flags = ENVIRONMENT | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    words = [sys.executable, TESTS / "mesh_program.py", folder, out, *mesh]
    done = subprocess.run(words, env=flags, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(out)


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory) -> dict[str, np.ndarray]:
    """The results of one device."""
    return program(folder, tmp_path_factory.mktemp("alone") / "alone.safetensors")


@pytest.mark.parametrize(("mesh", "parts"), [("data=1,model=8", [8, 1]), ("data=2,model=4", [4, 4])])
def test_a_mesh_computes_what_one_device_does(folder, alone, tmp_path, mesh, parts):
    """Logits, second moments, solve and restraint to 1e-5; a whole edit to 1e-2, with the same arg-max and scores. Key
    and value heads are divided among 4 devices, and on every one of 8."""
    found = program(folder, tmp_path / "found.safetensors", mesh)
    assert found.keys() == alone.keys()
    assert alone["parts"].tolist() == [1, 1]
    assert found["parts"].tolist() == parts
    for name in found.keys() - {"parts"}:
        if name.endswith(("argmax", "scores")):
            np.testing.assert_array_equal(found[name], alone[name], name)
        else:
            assert distance(found[name], alone[name]) < (1e-2 if name[:4] in ("rome", "memi") else 1e-5), name
    assert {name.split(".")[0] for name in found} == {
        "parts", "logits", "moment model", "solve", "restraint",
        *(f"{editor} {what}" for editor in ("rome", "memit") for what in ("model", "argmax", "scores")),
    }  # fmt: skip


def together(words: list[object], processes: int = 2, program: Sequence[object] = ("-m", "prunejax.cli")) -> list[str]:
    """One verb in several processes that jax.distributed joins; what each printed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, (*program, *words))],
            env=ENVIRONMENT
            | {"JAX_NUM_PROCESSES": str(processes), "JAX_PROCESS_ID": str(i), "JAX_COORDINATOR_ADDRESS": address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    ended = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0] * processes, ended
    return ["".join(line for line in out.splitlines(True) if not line.startswith("[Gloo]")) for out, _ in ended]


def test_two_processes_load_edit_and_export_one_model(folder, tmp_path):
    (tmp_path / "contexts.json").write_text('["{}", "I think that. {}"]')
    (tmp_path / "text.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    request = {"prompt": "I think that this is {}", "subject": "Grace Hopper", "target_new": "Rome"}
    (tmp_path / "requests.jsonl").write_text(json.dumps(request))
    settings = {"layers": 0, "steps": 30, "clamp": 100, "weight_decay": 0, "kl_factor": 0, "ridge": 1}
    words = ["--requests", tmp_path / "requests.jsonl", "--contexts", tmp_path / "contexts.json", "--editor", "rome"]
    words += [word for pair in settings.items() for word in ("--set", "{}={}".format(*pair))]

    def make(place: Path, run, *mesh: str) -> Path:
        place.mkdir()
        model = ["--model", folder, *mesh]
        printed = run(
            ["moments", *model, "--layers", 0, "--text", tmp_path / "text.txt", "--out", place / "moments.safetensors"]
        )
        assert "keys of 64 dimensions" in printed[0]
        assert printed[1:] == [""] * (len(printed) - 1)
        run(["edit", *model, *words, "--moments", place / "moments.safetensors", "--out", place / "run"])
        run(["evaluate", place / "run", *model, "--tasks", "editing"])
        run(["export", place / "run", *model, "--restraint", "log:2", "--out", place / "edited"])
        return place

    both = make(tmp_path / "both", together, "--mesh", "model=2")
    one = make(tmp_path / "one", lambda words: together(words, 1))
    assert json.loads((both / "run" / "run.json").read_text())["device"].endswith("data=1, model=2")
    theirs, ours = (load_file(place / "edited" / "model.safetensors") for place in (both, one))
    moved = [name for name, array in theirs.items() if not np.array_equal(array, ours[name])]
    assert moved in ([], ["model.layers.0.mlp.down_proj.weight"])
    for name, array in theirs.items():
        assert distance(array, ours[name]) < 1e-3
    scores = [(place / "run" / "records" / "evaluation.csv").read_text() for place in (both, one)]
    assert scores[0] == scores[1]


CUT = """
import math, sys
from prunejax import progress
from prunejax.cli import main
from prunejax.editors import key_sums
key_sums.POOL, progress.SAVE_SECONDS, progress.SHARE = 40, 0.0, math.inf
until, done, add_pool = int(sys.argv[1]), [], key_sums.add_pool
def counted(*given):
    if len(done) == until:
        raise KeyboardInterrupt
    done.append(0)
    return add_pool(*given)
key_sums.add_pool = counted
try:
    main(sys.argv[2:])
finally:
    print(len(done), "pools")
"""


def test_two_processes_take_moments_up_where_they_were_saved(folder, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(TEXTS * 2), encoding="utf-8")

    def make(place: Path, until: int) -> str:
        words = ["moments", "--model", folder, "--mesh", "model=2", "--layers", 0, "--text", tmp_path / "text.txt"]
        return together([until, *words, "--out", place / "moments.safetensors"], 2, ("-c", CUT))[1]

    whole = int(make(tmp_path / "whole", 99).split()[-2])
    with pytest.raises(AssertionError, match="interrupted"):
        make(tmp_path / "cut", 2)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [".moments.safetensors.progress"]
    assert make(tmp_path / "cut", 99) == f"{whole - 2} pools\n"
    first, second = (list((tmp_path / name).iterdir()) for name in ("whole", "cut"))
    assert [path.name for path in first] == [path.name for path in second] == ["moments.safetensors"]
    assert first[0].read_bytes() == second[0].read_bytes()


def test_a_mesh_is_needed_by_several_processes(folder, tmp_path):
    with pytest.raises(AssertionError, match="give --mesh"):
        together(["moments", "--model", folder, "--layers", 0, "--text", TESTS / "tiny.py", "--out", tmp_path / "m"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "sizes"),
    [("data=1,model=8", (1, 8)), ("model=4", (1, 4)), (" data = 2 ", (2, 1)), ("model=2,data=3", (3, 2))],
)
def test_a_mesh_in_words(text, sizes):
    assert tuple(mesh_sizes(text).values()) == sizes


@pytest.mark.parametrize("text", ["", "8", "model", "model=0", "model=x", "heads=2", "data=1;model=2"])
def test_a_mesh_that_is_none(text):
    with pytest.raises(InputError, match="write data=N,model=M"):
        mesh_sizes(text)


def test_a_launcher_that_says_half_of_it(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    with pytest.raises(InputError, match="JAX_COORDINATOR_ADDRESS is not: set all three"):
        join_processes()


def test_more_devices_than_there_are():
    with pytest.raises(InputError, match=r"needs 4096 devices, there are \d+ \(cpu\)"):
        make_mesh("model=4096")


LLAMA3 = DecoderConfig(32, 32, 4096, 14336, 128256, 8192, n_kv_heads=8, d_head=128, tied=False)
XL = DecoderConfig(48, 25, 1600, 6400, 50257, 1024)


@pytest.mark.parametrize(
    ("config", "path", "shape", "n", "axes"),
    [
        (LLAMA3, "blocks.q.kernel", (32, 4096, 4096), 8, (None, None, "model")),
        (LLAMA3, "blocks.k.kernel", (32, 4096, 1024), 8, (None, None, "model")),
        (LLAMA3, "blocks.k.kernel", (32, 4096, 1024), 16, ()),
        (LLAMA3, "blocks.q.kernel", (32, 4096, 4096), 16, (None, None, "model")),
        (LLAMA3, "blocks.down.kernel", (32, 14336, 4096), 16, (None, "model", None)),
        (LLAMA3, "blocks.ln_1.scale", (32, 4096), 8, ()),
        (LLAMA3, "head.kernel", (4096, 128256), 8, (None, "model")),
        (XL, "blocks.q.kernel", (48, 1600, 1600), 8, ()),
        (XL, "blocks.o.kernel", (48, 1600, 1600), 5, (None, "model", None)),
        (XL, "blocks.up.bias", (48, 6400), 8, (None, "model")),
        (XL, "wte.embedding", (50257, 1600), 8, (None, "model")),
        (XL, "wte.embedding", (50257, 1600), 7, ()),
        (XL, "wpe.embedding", (1024, 1600), 8, ()),
    ],
)
def test_how_arrays_are_divided(config, path, shape, n, axes):
    assert layout(path, shape, config, n) == PartitionSpec(*axes)
