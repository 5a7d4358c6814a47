"""A checkpoint's tensors, read straight from safetensors slice by slice into the decoder's arrays, and named for
writing."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from prunejax.errors import InputError
from prunejax.files import read_json, sha256
from prunejax.models.families import Family

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

Index = tuple[slice, ...]


class Stored(NamedTuple):
    """A tensor in a file: its name there, shape and dtype, and the open file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    handle: Any

    def read(self, index: Index) -> np.ndarray:
        """A part of the tensor; nothing else of it is read."""
        return self.handle.get_slice(self.name)[index]


class Origin(NamedTuple):
    """Where an array of the decoder comes from: one tensor, or one a layer (`stacked`); the part number `part` of
    `parts` equal ones of its last axis; `turned` from [out, in]."""

    names: tuple[str, ...]
    stacked: bool
    part: int
    parts: int
    turned: bool

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in the file of one tensor, where the decoder's array has `shape`."""
        *rest, last = shape[1:] if self.stacked else shape
        return (last * self.parts, *reversed(rest)) if self.turned else (*rest, last * self.parts)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint: the single one, or the shards that its index names."""
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        return (folder / WEIGHTS,)
    index = read_json(folder / INDEX, "weights index")
    placed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        raise InputError(f"weights index {folder / INDEX}: no weight_map in it")
    names = sorted(set(placed.values()))
    if strange := [name for name in names if not re.fullmatch(r"[^/\\\x00-\x1f]+\.safetensors", name)]:
        raise InputError(f"weights index {folder / INDEX}: {strange[0]!r} is not a safetensors file of this folder")
    return tuple(folder / name for name in names)


def weights_digest(files: Sequence[Path]) -> str:
    """SHA-256 of a checkpoint's weights: of the one file, or of the shards' own checksums in the order of their
    names."""
    digests = [sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def open_tensors(files: Sequence[Path]) -> dict[str, Stored]:
    """Every tensor of the files, by name; the files stay open as long as one is held."""
    found: dict[str, Stored] = {}
    for path in files:
        try:
            handle = safe_open(path, framework="numpy")
            check_header(path)
            for name in handle.keys():  # noqa: SIM118
                part = handle.get_slice(name)
                if name in found:
                    raise InputError(f"weights {path}: {name} is in another file too")
                found[name] = Stored(name, tuple(part.get_shape()), part.get_dtype(), handle)
        except FileNotFoundError:
            raise InputError(f"weights {path}: no such file (only safetensors are read)") from None
        except InputError:
            raise
        except (SafetensorError, RecursionError, ValueError, TypeError, OSError) as error:
            raise InputError(f"weights {path}: not a whole safetensors file ({error})") from None
    return found


def check_header(path: Path) -> None:
    """InputError where a whole safetensors file says a name twice, of which one reader takes the first, another the
    last."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise InputError(f"weights {path}: its header says a name twice; get the file again")
        return found

    with path.open("rb") as handle:
        json.loads(handle.read(int.from_bytes(handle.read(8), "little")), object_pairs_hook=once)


def origins(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Origin]:
    """The origin of every array of a decoder whose arrays have these shapes, by path."""

    def turned(path: str) -> bool:
        return path.endswith(".kernel") and (family.turned or path.startswith("head."))

    found = {path: Origin((name,), False, 0, 1, turned(path)) for name, path in family.top_tensors.items()}
    for suffix, paths in family.layer_tensors.items():
        parts = (paths,) if isinstance(paths, str) else paths
        for part, path in enumerate(parts):
            n_layers = shapes.get(f"blocks.{path}", (0,))[0]
            names = tuple(family.layer.format(layer) + suffix for layer in range(n_layers))
            found[f"blocks.{path}"] = Origin(names, True, part, len(parts), turned(path))
    return {path: origin for path, origin in found.items() if path in shapes}


def match(
    stored: Mapping[str, Stored], family: Family, shapes: Mapping[str, tuple[int, ...]], where: str
) -> dict[str, Origin]:
    """The origins of a decoder's arrays among the stored tensors, under the names they have there.

    A whole file may lack the family's prefix, and a tied output matrix may stand for the embedding. All missing, extra
    and misshapen tensors, and all that are not floating point, are named in one InputError.
    """
    wanted = origins(family, shapes)
    expected = {name: origin.stored_shape(shapes[path]) for path, origin in wanted.items() for name in origin.names}
    names = {name: name if name in stored else name.removeprefix(family.prefix) for name in expected}
    embedding = next(name for name, path in family.top_tensors.items() if path == "wte.embedding")
    ignored = family.ignored
    if "head.kernel" not in shapes:
        ignored = (*ignored, "lm_head.weight")
        if names[embedding] not in stored:
            names[embedding] = "lm_head.weight"
    used = set(names.values())
    present = {name: stored[names[name]] for name in expected if names[name] in stored}
    problems = {
        "missing": [name for name in expected if name not in present],
        "extra": [name for name in stored if name not in used and not name.endswith(ignored)],
        "shapes": [
            f"{name} is {tensor.shape}, expected {expected[name]}"
            for name, tensor in present.items()
            if tensor.shape != expected[name]
        ],
        "not floating point": [
            f"{name} ({tensor.dtype})" for name, tensor in present.items() if tensor.dtype not in FLOATS
        ],
    }
    told = [f"{kind}: {_listed(names)}" for kind, names in problems.items() if names]
    if told:
        raise InputError(f"weights {where}: {'; '.join(told)}")
    return {path: o._replace(names=tuple(names[name] for name in o.names)) for path, o in wanted.items()}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:9]) + f" and {len(names) - 9} more" * (len(names) > 9)


def read_array(
    stored: Mapping[str, Stored], origin: Origin, shape: tuple[int, ...], dtype: jnp.dtype, index: Index
) -> np.ndarray:
    """The part `index` of a decoder's array of `shape`: only the bytes of that part are read."""
    bounds = [range(size)[part] for part, size in zip(index, shape, strict=True)]
    layers, axes = (bounds[0], bounds[1:]) if origin.stacked else (range(1), bounds)
    offset = origin.part * shape[-1]
    cut = [slice(axis.start, axis.stop) for axis in axes[:-1]]
    cut.append(slice(axes[-1].start + offset, axes[-1].stop + offset))
    cut = tuple(reversed(cut)) if origin.turned else tuple(cut)
    array = np.empty((len(layers), *map(len, axes)), dtype)
    for row, layer in enumerate(layers):
        read = stored[origin.names[layer]].read(cut)
        array[row] = read.T if origin.turned else read
    return array if origin.stacked else array[0]


def checkpoint_tensors(family: Family, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A decoder's arrays by path under the checkpoint's own names and layouts, q, k and v fused again."""
    fused: dict[str, dict[int, np.ndarray]] = {}
    for path, origin in origins(family, {path: array.shape for path, array in arrays.items()}).items():
        for layer, name in enumerate(origin.names):
            array = arrays[path][layer] if origin.stacked else arrays[path]
            fused.setdefault(name, {})[origin.part] = array.T if origin.turned else array
    return {
        name: np.ascontiguousarray(np.concatenate([parts[part] for part in sorted(parts)], axis=-1))
        for name, parts in fused.items()
    }
