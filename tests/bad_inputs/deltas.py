"""Bad deltas, and what they are put on."""

import json
from collections.abc import Callable

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from bad_inputs.breaking import Break, Table, safetensors
from desk import Desk
from prunejax.base_checkpoint import find_base
from prunejax.delta import METADATA, delta_of_run, write_delta
from prunejax.restraint import parse
from prunejax.run import open_run
from tiny_runs import TENSOR


def file(content: bytes) -> Break:
    """The verb on a file of this content."""

    def words(desk: Desk) -> list[object]:
        (desk.root / "delta.safetensors").write_bytes(content)
        return ["apply", desk.root / "delta.safetensors", "--model", desk.model, "--out", desk.root / "new"]

    return words


def made(change: Callable[[dict, dict[str, np.ndarray]], object]) -> Break:
    """The verb on a delta of the run whose facts and arrays are changed."""

    def words(desk: Desk) -> list[object]:
        run = open_run(desk.run)
        base = find_base(run.facts["model"], str(desk.model), "run")
        path = write_delta(delta_of_run(run, base, 7, parse("none")), desk.root / "delta.safetensors")
        with safe_open(path, framework="numpy") as handle:
            facts = json.loads(handle.metadata()[METADATA])
            arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        change(facts, arrays)
        save_file(arrays, path, metadata={METADATA: json.dumps(facts)})
        return ["apply", path, "--model", desk.model, "--out", desk.root / "new"]

    return words


BAD: Table = {
    "missing": (lambda desk: ["apply", "nowhere", "--model", desk.model, "--out", desk.root / "new"], "no such file"),
    "a folder": (lambda desk: ["apply", desk.run, "--model", desk.model, "--out", desk.root / "new"], "delta "),
    "empty": (file(b""), "not a whole safetensors file"),
    "a checkpoint": (
        lambda desk: [
            *("apply", desk.model / "model.safetensors", "--model", desk.model, "--out", desk.root / "new"),
        ],
        "holds no delta",
    ),
    "facts that are not JSON": (file(safetensors({"__metadata__": {METADATA: "{"}})), "not a whole safetensors file"),
    "facts nested without end": (
        file(safetensors({"__metadata__": {METADATA: "[" * 100_000}})),
        "not a whole safetensors file",
    ),
    "facts that are a list": (file(safetensors({"__metadata__": {METADATA: "[]"}})), "holds no delta"),
    "another format": (made(lambda facts, _: facts.update(format=2)), "has format 2, this prunejax reads 1"),
    "no base": (made(lambda facts, _: facts.pop("base")), "holds no delta"),
    "a base that is a text": (
        made(lambda facts, _: facts.update(base="tiny")),
        "base must be an object",
    ),
    "a base without checksum": (
        made(lambda facts, _: facts["base"].pop("sha256")),
        "base must be an object",
    ),
    "tensors that are a list": (made(lambda facts, _: facts.update(tensors=[TENSOR])), "tensors must be an object"),
    "a tensor without facts": (
        made(lambda facts, _: facts["tensors"].update({TENSOR: {}})),
        "shape must be two sizes",
    ),
    "a tensor of which nothing is told": (
        made(lambda facts, _: facts["tensors"].clear()),
        "of which it says nothing",
    ),
    "factors changed": (
        made(lambda _, arrays: arrays.update({f"{TENSOR}.left": 2 * arrays[f"{TENSOR}.left"]})),
        "have another checksum; it was damaged or changed",
    ),
    "factors lost": (made(lambda _, arrays: arrays.pop(f"{TENSOR}.left")), "have another checksum"),
    "a run that is not described": (made(lambda facts, _: facts["run"].pop("requests")), "requests must be an object"),
    "made for another model": (
        made(lambda facts, _: facts["base"].update(sha256="0" * 64)),
        "was made from model 'tiny', whose weights have SHA-256 000000000000",
    ),
}
