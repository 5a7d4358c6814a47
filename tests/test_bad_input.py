"""Bad input, everywhere: one line that says what is wrong, status 2, and nothing is touched, made or run."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bad_inputs import configs, contexts, deltas, moments, options, requests, run_files, runs, weights
from bad_inputs.breaking import json_file, new_edit, pickled
from bad_inputs.configs import CODE
from desk import Call, Desk
from tiny_runs import contents

TABLES = {
    "requests": requests,
    "contexts": contexts,
    "moments": moments,
    "config": configs,
    "weights": weights,
    "run": runs,
    "run file": run_files,
    "delta": deltas,
    "options": options,
}
BAD = {f"{kind}: {name}": row for kind, table in TABLES.items() for name, row in table.BAD.items()}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_status_2_and_touches_nothing(call: Call, desk: Desk, name: str) -> None:
    make, complaint = BAD[name]
    words = make(desk)
    before = contents(desk.root), contents(desk.model)
    ended = call(*words)
    assert ended.err.startswith("prunejax: ")
    assert ended.err.count("\n") == 1
    assert len(ended.err) < 2000
    assert complaint in ended.err
    assert ended.status == 2
    assert ended.out == ""
    assert (contents(desk.root), contents(desk.model)) == before


def test_a_hub_name_without_network_is_one_line(call: Call, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether somebody said that there is none, or nobody answers."""

    def nobody(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setattr(socket.socket, "connect", nobody)
    before = contents(desk.root)
    ended = call(*new_edit(desk, model="nobody/nothing"))
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "model 'nobody/nothing': no folder of that name, and the hub does not give it" in ended.err
    assert "download it where there is a network" in ended.err
    assert contents(desk.root) == before


WATCHED = """
import sys
opened = []
def watch(event, words):
    if event in ("open", "pickle.find_class"):
        opened.append((event, str(words[0])))
sys.addaudithook(watch)
from prunejax.cli import main
try:
    main(sys.argv[1:])
finally:
    ours = [name for event, name in opened if event == "open" and "/model/" in name]
    classes = [name for event, name in opened if event == "pickle.find_class"]
    print("opened", *sorted({name.rpartition("/")[2] for name in ours}))
    print("unpickled", *classes)
    print("torch", "torch" in sys.modules)
"""


def test_no_code_of_a_model_is_run_and_nothing_is_unpickled(desk: Desk) -> None:
    """In a folder full of both, beside good weights: the edit works, and none of it is even opened."""
    folder = Path(shutil.copytree(desk.model, desk.root / "model"))
    traps = {"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"], "AutoModelForCausalLM": "own.Own"}
    json_file("config.json", auto_map=traps, trust_remote_code=True)(folder)
    json_file("tokenizer_config.json", auto_map=traps, trust_remote_code=True)(folder)
    (folder / "own.py").write_text(CODE.format(name="own"))
    pickles = ("pytorch_model.bin", "vocab.pkl", "training_args.bin", "tokenizer.pt", "optimizer.pt")
    pickled(*pickles)(folder)
    words = [sys.executable, "-c", WATCHED, *map(str, new_edit(desk, model=folder))]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    opened, unpickled, torch = ended.stdout.splitlines()[-3:]
    assert "config.json" in opened
    assert not {"own.py", *pickles} & set(opened.split())
    assert (unpickled, torch) == ("unpickled", "torch False")
    assert not (folder / "trace").exists()
