"""Bad weights: lying headers, tensors that the model has not or that are not whole, shards that are not there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from bad_inputs.breaking import (
    Break,
    Table,
    both,
    content,
    header,
    lacking,
    on_model,
    parts,
    pickled,
    safetensors,
    truncated,
)
from tiny_runs import TENSOR

FILE = "model.safetensors"
INDEX = f"{FILE}.index.json"
BIAS = TENSOR.replace("weight", "bias")
LAST = "transformer.wte.weight"
EIGHT_BYTES = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
NOT_WHOLE = f"{FILE}: not a whole safetensors file"


def entry(name: str, **changes: object) -> Break:
    """The edit of a model whose header says this of a tensor."""
    return on_model(header(FILE, lambda entries: entries[name].update(changes)))


def entries(change: Callable[[dict], object]) -> Break:
    """The edit of a model whose header is changed."""
    return on_model(header(FILE, change))


def arrays(change: Callable[[dict[str, np.ndarray]], object]) -> Break:
    """The edit of a model whose tensors are changed and written anew."""

    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / FILE)
        change(tensors)
        save_file(tensors, folder / FILE)

    return on_model(rewrite)


def split(index: object, *shards: str) -> Callable[[Path], object]:
    """Puts shards, each with all tensors, and this index in the place of the one file."""

    def change(folder: Path) -> None:
        for shard in shards:
            shutil.copy(folder / FILE, folder / shard)
        (folder / FILE).unlink()
        (folder / INDEX).write_text(json.dumps(index))

    return change


def sharded(index: object, *shards: str) -> Break:
    """The edit of a model in shards, each with all tensors, that this index names."""
    return on_model(split(index, *shards))


def lacks(folder: Path) -> None:
    """Names a tensor in the index that the one shard has under another name."""
    header(FILE, lambda known: known.update(other=known.pop(BIAS)))(folder)
    split({"weight_map": {BIAS: "a.safetensors"}}, "a.safetensors")(folder)


def twice(folder: Path) -> None:
    """Says one name twice in the header."""
    known, data = parts(folder / FILE)
    text = json.dumps(known)
    (folder / FILE).write_bytes(safetensors((text[:-1] + f', "{BIAS}": {json.dumps(known[BIAS])}}}').encode(), data))


def moved(by: int, name: str = BIAS) -> Callable[[dict], object]:
    """Moves the place of a tensor in the header."""

    def change(known: dict) -> None:
        known[name]["data_offsets"] = [place + by for place in known[name]["data_offsets"]]

    return change


def first_bytes(number: int) -> Break:
    """The edit of a model whose header says that it is so long."""
    return on_model(lambda f: (f / FILE).write_bytes(number.to_bytes(8, "little") + (f / FILE).read_bytes()[8:]))


BAD: Table = {
    "missing": (on_model(lacking(FILE)), f"{FILE}: no such file (only safetensors are read)"),
    "a pickle alone": (
        on_model(both(lacking(FILE), pickled("pytorch_model.bin"))),
        f"{FILE}: no such file (only safetensors are read)",
    ),
    "a pickle in their place": (on_model(pickled(FILE)), NOT_WHOLE),
    "a folder in their place": (on_model(both(lacking(FILE), lambda f: (f / FILE).mkdir())), NOT_WHOLE),
    "cut off": (on_model(truncated(FILE, 100)), NOT_WHOLE),
    "something behind them": (on_model(lambda f: (f / FILE).write_bytes((f / FILE).read_bytes() + b"x")), NOT_WHOLE),
    "empty": (on_model(content(FILE, b"")), NOT_WHOLE),
    "seven bytes": (on_model(content(FILE, b"\0" * 7)), NOT_WHOLE),
    "a header longer than the file": (first_bytes(1 << 24), NOT_WHOLE),
    "a header without end": (first_bytes((1 << 64) - 1), NOT_WHOLE),
    "a header of nothing": (first_bytes(0), NOT_WHOLE),
    "a header that is shorter": (first_bytes(16), NOT_WHOLE),
    "a header that is not JSON": (on_model(content(FILE, safetensors(b"{"))), NOT_WHOLE),
    "a header that is not UTF-8": (on_model(content(FILE, safetensors(b'{"\xff": 1}'))), NOT_WHOLE),
    "a header that is a list": (on_model(content(FILE, safetensors([]))), NOT_WHOLE),
    "a header nested without end": (on_model(content(FILE, safetensors(b'{"a":' * 100_000))), NOT_WHOLE),
    "no tensors": (on_model(content(FILE, safetensors({}))), "missing: transformer.wte.weight"),
    "no bytes of it": (
        on_model(content(FILE, safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}))),
        NOT_WHOLE,
    ),
    "overlapping": (entries(moved(-4)), NOT_WHOLE),
    "a hole": (entries(moved(4)), NOT_WHOLE),
    "out of the file": (entries(moved(1 << 40)), NOT_WHOLE),
    "below the file": (entry(BIAS, data_offsets=[-64, 0]), NOT_WHOLE),
    "from back to front": (entries(lambda e: e[BIAS]["data_offsets"].reverse()), NOT_WHOLE),
    "offsets that are texts": (entry(BIAS, data_offsets=["0", "64"]), NOT_WHOLE),
    "unknown dtype": (entry(BIAS, dtype="F31"), NOT_WHOLE),
    "whole numbers": (entry(BIAS, dtype="I32"), f"not floating point: {BIAS} (I32)"),
    "eight bits": (entry(BIAS, dtype="F8_E4M3", shape=[64]), f"{BIAS} (F8_E4M3)"),
    "a shape of other bytes": (entry(BIAS, shape=[15]), NOT_WHOLE),
    "a shape beyond all numbers": (entry(BIAS, shape=[1 << 62, 1 << 62]), NOT_WHOLE),
    "a negative shape": (entry(BIAS, shape=[-16]), NOT_WHOLE),
    "another shape": (entry(BIAS, shape=[4, 4]), f"{BIAS} is (4, 4), expected (16,)"),
    "turned": (arrays(lambda a: a.update({TENSOR: a[TENSOR].T.copy()})), f"{TENSOR} is (16, 64), expected (64, 16)"),
    "said twice": (on_model(twice), "its header says a name twice"),
    "metadata that are numbers": (entries(lambda e: e["__metadata__"].update(format=1)), NOT_WHOLE),
    "a tensor missing": (arrays(lambda a: a.pop(BIAS)), f"missing: {BIAS}"),
    "a tensor too many": (arrays(lambda a: a.update(extra=np.zeros(3))), "extra: extra"),
    "a name that climbs out": (arrays(lambda a: a.update({"../../x": np.zeros(3)})), "extra: ../../x"),
    "a name that writes on the screen": (arrays(lambda a: a.update({"\x1b[2Jx": np.zeros(3)})), "extra: \\x1b[2Jx"),
    "a thousand tensors too many": (
        arrays(lambda a: a.update({f"extra.{i}": np.zeros(1) for i in range(1000)})),
        "extra.0, extra.1, extra.10, extra.100, extra.101, extra.102, extra.103, extra.104, extra.105 and 991 more",
    ),
    "NaN where it is edited": (arrays(lambda a: a[TENSOR].fill(np.nan)), f"{TENSOR} holds numbers that are not finite"),
    "infinite where it is edited": (
        arrays(lambda a: a[TENSOR].__setitem__((0, 0), np.inf)),
        f"{TENSOR} holds numbers that are not finite",
    ),
    "NaN where keys are counted": (
        lambda desk: [
            *("moments", *arrays(lambda a: a[BIAS].fill(np.nan))(desk)[1:3]),
            *("--layers", "2", "--text", desk.root / "text.txt", "--out", desk.root / "new"),
        ],
        "its keys are not finite numbers",
    ),
    "an index that is a list": (sharded([], "a.safetensors"), "no weight_map in it"),
    "an index without a map": (sharded({"metadata": {}}, "a.safetensors"), "no weight_map in it"),
    "an index of nothing": (sharded({"weight_map": {}}, "a.safetensors"), "no weight_map in it"),
    "an index of numbers": (sharded({"weight_map": {LAST: 1}}, "a.safetensors"), "no weight_map in it"),
    "an index that climbs out": (
        sharded({"weight_map": {LAST: "../model/a.safetensors"}}, "a.safetensors"),
        "'../model/a.safetensors' is not a safetensors file of this folder",
    ),
    "an index from the root": (
        sharded({"weight_map": {LAST: "/a.safetensors"}}, "a.safetensors"),
        "'/a.safetensors' is not a safetensors file of this folder",
    ),
    "an index of the folder above": (sharded({"weight_map": {LAST: ".."}}), "'..' is not a safetensors file of this"),
    "an index with a zero byte": (sharded({"weight_map": {LAST: "a\0.safetensors"}}), "is not a safetensors file"),
    "an index of pickles": (
        sharded({"weight_map": {LAST: "pytorch_model.bin"}}, "pytorch_model.bin"),
        "'pytorch_model.bin' is not a safetensors file of this folder",
    ),
    "a shard missing": (sharded({"weight_map": {LAST: "a.safetensors"}}), "a.safetensors: no such file"),
    "a tensor in two shards": (
        sharded({"weight_map": {LAST: "a.safetensors", BIAS: "b.safetensors"}}, "a.safetensors", "b.safetensors"),
        "b.safetensors: transformer.h.0.attn.c_attn.bias is in another file too",
    ),
    "a shard that lacks what the index names": (on_model(lacks), f"missing: {BIAS}; extra: other"),
}
