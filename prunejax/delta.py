"""Delta: the restrained update of a run, small enough to mail, with all that is needed to put it on the checkpoint it
was made for.

A run is bound to its editor and grows; a Delta is what remains once n and a restraint are chosen: F(D) of every edited
tensor, as factors or as a matrix, whichever is smaller, and facts. `export` and `apply` both write a folder from one,
through `edited`, so that they give the same bits:

    stored = dtype(float32(W_0 + F(D))),

the product of the factors and the sum taken in float64 on the host. Edits are made on float32 weights; only here are
they rounded to what the checkpoint holds. Of a half-precision weight that rounding can swallow what is smaller than its
spacing: `rounding` is ||stored - (W_0 + F(D))||_F / ||F(D)||_F, near 1 where nothing of the edits is left.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from prunejax.base_checkpoint import Base, Kernel
from prunejax.errors import InputError
from prunejax.files import write_through
from prunejax.fold import accumulated
from prunejax.restraint import Restraint, restrained_values, update_under
from prunejax.run import Run
from prunejax.run_facts import check_delta
from prunejax.spectra import rank_bound, sigma_max
from prunejax.sweep import Sweep
from prunejax.update import LowRank, Update

FORMAT = 1
METADATA = "prunejax.delta"
"""The key of the facts, as JSON, among a delta file's metadata."""


@dataclass(frozen=True)
class Delta:
    """F(D) of every edited tensor, float32 on the host: `<tensor>.left` [r, d_in] and `<tensor>.right` [r, d_out] or
    `<tensor>.dense` [d_in, d_out], under the names and in the layout of a run's updates.

    `facts`: `format`, `prunejax` (version), `base` (name and SHA-256 of the weights it is for), `run` (name and
    run.json), `edits`, `restraint`, and of each of `tensors` what `describe` says, and sigma_max of W_0, D and F(D).
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the edited tensors."""
        return tuple(self.facts["tensors"])

    def factors(self, tensor: str) -> dict[str, np.ndarray]:
        """`left` and `right`, or `dense`, of one tensor."""
        parts = {part: self.arrays.get(f"{tensor}.{part}") for part in ("left", "right", "dense")}
        return {part: array for part, array in parts.items() if array is not None}


class Edited(NamedTuple):
    """A tensor as the exported file holds it, and its rounding error as a share of the update."""

    array: np.ndarray
    rounding: float


def delta_of_run(run: Run, base: Base, n: int, restraint: Restraint) -> Delta:
    """The delta of a run after n edits: F(W_n - W_0) of every edited tensor.

    Only the edited tensors are read, in float32 as the run read them; the model is never loaded.
    """
    kernels = {tensor: base.kernel(tensor) for tensor in run.tensors}
    original = {tensor: kernel.read() for tensor, kernel in kernels.items()}
    arrays, told = {}, {}
    for tensor, update in tqdm(accumulated(run, n, original).items(), desc="delta", unit="tensor"):
        sweep = Sweep(original[tensor], update, sigma_max(original[tensor]))
        sigma = sweep.sigma if rank_bound(update) else np.zeros(0)
        restrained = update_under(restraint, sweep)
        factors = smaller_form(restrained)
        arrays |= {f"{tensor}.{part}": array for part, array in factors.items()}
        told[tensor] = describe(kernels[tensor], factors, tensor) | {
            "sigma_max": sweep.m,
            "update_sigma_max": float(sigma.max(initial=0.0)),
            "restrained_sigma_max": float(restrained_values(restraint, sweep, sigma).max(initial=0.0)),
        }
    facts = {
        "format": FORMAT,
        "prunejax": version("prunejax"),
        "base": {"name": run.facts["model"]["name"], "sha256": base.sha256},
        "run": {"name": run.folder.resolve().name} | portable(run.facts),
        "edits": n,
        "restraint": restraint.spec,
        "tensors": told,
    }
    return Delta(json.loads(json.dumps(facts, sort_keys=True)), arrays)


def smaller_form(update: Update) -> dict[str, np.ndarray]:
    """An update as arrays of a delta: its factors, or its matrix in float32 where that has fewer elements, which is so
    long before their rank reaches the smaller side."""
    parts = [np.asarray(part, np.float32) for part in update]
    if isinstance(update, LowRank):
        left, right = np.ascontiguousarray(parts[0].T), np.ascontiguousarray(parts[1])
        if left.size + right.size < left.shape[1] * right.shape[1]:
            return {"left": left, "right": right}
        with np.errstate(over="ignore", invalid="ignore"):
            return {"dense": matrix({"left": left, "right": right}).astype(np.float32)}
    return {"dense": np.ascontiguousarray(parts[0])}


def matrix(factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """F(D), [d_in, d_out], multiplied in float64, so that its float32 value hardly depends on the machine."""
    if "dense" in factors:
        return factors["dense"].astype(np.float64)
    return factors["left"].astype(np.float64).T @ factors["right"].astype(np.float64)


def edited(kernel: Kernel, factors: Mapping[str, np.ndarray], tensor: str) -> Edited:
    """The tensor W_0 + F(D) in the layout and dtype of its file, and what rounding did to it.

    InputError where an element becomes an infinity or NaN in that dtype: the exported model would not be the one that
    the run measured.
    """
    weight = kernel.read()
    with np.errstate(over="ignore", invalid="ignore"):
        exact = matrix(factors)
        if exact.shape != weight.shape:
            raise InputError(f"tensor {tensor}: an update of shape {exact.shape} does not fit a kernel {weight.shape}")
        size = np.linalg.norm(exact)
        np.copyto(exact, -0.0, where=exact == 0)  # x + 0.0 would turn an untouched -0.0 to 0.0
        exact += weight
        array = kernel.in_file(exact.astype(np.float32))
        kept = array.T if kernel.turned else array
        if lost := int(np.sum(~np.isfinite(kept) & np.isfinite(weight))):
            raise InputError(
                f"tensor {tensor}: {lost} edited elements are not finite numbers in {kernel.dtype}; "
                "export fewer edits (--edits) or a restrained update (--restraint)"
            )
        rounding = float(np.linalg.norm(kept.astype(np.float64) - exact) / size) if size else 0.0
    return Edited(array, rounding)


def describe(kernel: Kernel, factors: Mapping[str, np.ndarray], tensor: str) -> dict[str, Any]:
    """What a delta records of a tensor: shape and dtype in the file, rounding error, SHA-256 of what is stored and of
    the factors."""
    array, rounding = edited(kernel, factors, tensor)
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "rounding": rounding,
        "sha256": digest(array),
        "factors_sha256": digest(*factors.values()),
    }


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 of the bytes of arrays, one after another."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def portable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """run.json without paths of the machine where it was made: a setting that names a file keeps the file's name."""
    settings = {k: Path(v).name if isinstance(v, str) else v for k, v in facts.get("settings", {}).items()}
    return {**facts, "settings": settings}


def write_delta(delta: Delta, path: Path) -> Path:
    """Write a delta as one safetensors file; returns the path."""
    if path.is_dir():
        raise InputError(f"delta {path}: is a folder, a file was expected")
    metadata = {METADATA: json.dumps(delta.facts, sort_keys=True)}
    return write_through(path, lambda part: save_file(dict(delta.arrays), part, metadata=metadata))


def read_delta(path: str | Path) -> Delta:
    """The delta in a file; InputError if it is none, was made in another format, or was damaged on the way."""
    try:
        with safe_open(path, framework="numpy") as handle:
            facts = json.loads((handle.metadata() or {}).get(METADATA, "null"))
            arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"delta {path}: no such file") from None
    except (SafetensorError, RecursionError, ValueError, TypeError, OSError) as error:
        raise InputError(f"delta {path}: not a whole safetensors file ({error})") from None
    if not isinstance(facts, dict) or not {"format", "base", "run", "tensors"} <= facts.keys():
        raise InputError(f"delta {path}: holds no delta; 'prunejax export RUN --delta' writes one")
    if facts["format"] != FORMAT:
        raise InputError(f"delta {path}: has format {facts['format']!r}, this prunejax reads {FORMAT}; install another")
    check_delta(facts, f"delta {path}")
    delta = Delta(facts, arrays)
    if strange := [name for name in arrays if name.rpartition(".")[0] not in delta.tensors]:
        raise InputError(f"delta {path}: holds {strange[0]}, of which it says nothing; it was damaged or changed")
    for tensor in delta.tensors:
        factors = delta.factors(tensor)
        if digest(*factors.values()) != facts["tensors"][tensor]["factors_sha256"]:
            raise InputError(f"delta {path}: the factors of {tensor} have another checksum; it was damaged or changed")
        widths = [len(part) for part in factors.values() if part.ndim == 2 and part.dtype == np.float32]
        if {*factors} not in ({"dense"}, {"left", "right"}) or len(widths) != len(factors) or len({*widths}) > 1:
            raise InputError(f"delta {path}: holds no update of {tensor}; it was damaged or changed")
    return delta
