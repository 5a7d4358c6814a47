"""The checkpoint on disk that a run or a delta was made from: found, held against its checksum, and its editable
kernels read one by one, so that no model is loaded to write another."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from prunejax.errors import InputError
from prunejax.models.checkpoints import config_of
from prunejax.models.families import Family, read_config
from prunejax.models.tensors import FLOATS, Stored, open_tensors, weight_files, weights_digest
from prunejax.sources import model_folder


class Kernel(NamedTuple):
    """A kernel in a checkpoint's file, there `turned` to [d_out, d_in] or not."""

    stored: Stored
    turned: bool

    @property
    def dtype(self) -> np.dtype:
        """What the file holds it in."""
        return jnp.dtype(FLOATS[self.stored.dtype])

    @property
    def shape(self) -> tuple[int, ...]:
        """(d_in, d_out)."""
        return self.stored.shape[::-1] if self.turned else self.stored.shape

    def read(self) -> np.ndarray:
        """The kernel [d_in, d_out] in float32, as a model is loaded from it."""
        array = self.stored.read((slice(None), slice(None))).astype(np.float32)
        return array.T if self.turned else array

    def in_file(self, weight: np.ndarray) -> np.ndarray:
        """A float32 weight [d_in, d_out] as this file holds one: rounded once to its dtype, and turned."""
        rounded = weight.astype(self.dtype)
        return np.ascontiguousarray(rounded.T if self.turned else rounded)


@dataclass(frozen=True)
class Base:
    """An unedited checkpoint: its folder, the files of its weights, their checksum, and what is in them."""

    folder: Path
    files: tuple[Path, ...]
    sha256: str
    family: Family
    stored: Mapping[str, Stored]

    def kernel(self, tensor: str) -> Kernel:
        """The editable kernel that a run calls `tensor`; an older file may lack the family's prefix."""
        self.family.kernel_of(tensor)
        found = self.stored.get(tensor) or self.stored.get(tensor.removeprefix(self.family.prefix))
        if found is None or found.dtype not in FLOATS or len(found.shape) != 2:
            raise InputError(f"tensor {tensor}: the model in {self.folder} has no such kernel")
        return Kernel(found, self.family.turned)


def find_base(described: Mapping[str, str], name: str | None, whose: str) -> Base:
    """The checkpoint with the `sha256` that was `described`, in the folder `name`; a hub name, or "world", which None
    is too. `whose` names the run or delta in errors.

    InputError if its weights have another checksum: an update of other weights is noise.
    """
    folder = model_folder(name or "world")
    family, _ = read_config(*config_of(folder))
    files = weight_files(folder)
    stored = open_tensors(files)
    digest = weights_digest(files)
    if digest != described["sha256"]:
        wanted = f"was made from model {described['name']!r}, whose weights have SHA-256 {described['sha256'][:12]}..."
        remedy = "give its folder with --model" if name is None else f"those in {folder} have {digest[:12]}..."
        raise InputError(f"{whose}: {wanted}; {remedy}")
    return Base(folder, files, digest, family, stored)
