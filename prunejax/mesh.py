"""Many devices: a mesh of them, how a decoder's arrays lie on it, and what one process among several may do.

Two axes: "data" divides the rows of a batch, "model" the heads and the MLP's width. Nothing else in the package names
a device: arrays are placed when they are loaded, and XLA's partitioner divides every program that reads them.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from prunejax.errors import InputError
from prunejax.holding import PROGRESS, beside
from prunejax.models.config import DecoderConfig

AXES = ("data", "model")

COLUMNS, ROWS, VECTOR = (None, "model"), ("model", None), ("model",)
"""A kernel divided by its output, by its input, and a bias divided with its kernel's output."""

LAYOUT: Mapping[str, tuple] = {
    **{f"blocks.{name}.kernel": (None, *COLUMNS) for name in ("q", "k", "v", "gate", "up")},
    **{f"blocks.{name}.bias": (None, *VECTOR) for name in ("q", "k", "v", "gate", "up")},
    **{f"blocks.{name}.kernel": (None, *ROWS) for name in ("o", "down")},
    "wte.embedding": ROWS,
    "head.kernel": COLUMNS,
    "head.bias": VECTOR,
}
"""The axes of every array that is divided, by its path in the decoder; the others are on every device."""


def mesh_sizes(text: str) -> dict[str, int]:
    """The devices along each axis, from "data=2,model=4"; an axis that is not named has one."""
    sizes = dict.fromkeys(AXES, 1)
    for part in text.split(","):
        name, _, number = (word.strip() for word in part.partition("="))
        if name not in AXES or not re.fullmatch(r"[1-9][0-9]{0,8}", number):
            raise InputError(f"--mesh {text!r}: write data=N,model=M, for example data=1,model=8")
        sizes[name] = int(number)
    return sizes


def make_mesh(text: str) -> Mesh:
    """The mesh "data=2,model=4" of the first devices there are; InputError when there are too few."""
    sizes = tuple(mesh_sizes(text).values())
    wanted, devices = int(np.prod(sizes)), jax.devices()
    if wanted > len(devices):
        kind = devices[0].platform
        raise InputError(f"--mesh {text!r}: needs {wanted} devices, there are {len(devices)} ({kind})")
    if jax.process_count() > 1 and wanted != len(devices):
        raise InputError(f"--mesh {text!r}: several processes share {len(devices)} devices, all must be in the mesh")
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices[:wanted])


def layout(path: str, shape: tuple[int, ...], config: DecoderConfig, n_model: int) -> PartitionSpec:
    """How the decoder's array at `path` is divided among `n_model` devices.

    Query heads are divided whole, and so are key and value heads where they divide; where they do not, they are on
    every device. A vocabulary that does not divide is divided by d_model instead. Anything else that does not divide is
    on every device.
    """
    axes = LAYOUT.get(path, ())
    part = path.split(".")[1] if path.startswith("blocks.") else ""
    heads = {"q": config.n_heads, "o": config.n_heads, "k": config.kv_heads, "v": config.kv_heads}.get(part, n_model)
    if "model" not in axes or heads % n_model:
        return PartitionSpec()
    if path in ("wte.embedding", "head.kernel") and shape[axes.index("model")] % n_model:
        axes = tuple(reversed(axes))
    return PartitionSpec(*axes) if shape[axes.index("model")] % n_model == 0 else PartitionSpec()


def layout_on(mesh: Mesh, path: str, shape: tuple[int, ...], config: DecoderConfig) -> NamedSharding:
    """`layout` on a mesh."""
    return NamedSharding(mesh, layout(path, shape, config, mesh.shape["model"]))


def spread(rows: Array) -> Array:
    """The rows of a batch divided along "data" where a mesh is set and they divide; else as they are."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("data", 1) == 1 or rows.shape[0] % mesh.shape["data"]:
        return rows
    return jax.lax.with_sharding_constraint(rows, PartitionSpec("data"))


def set_mesh() -> Mesh | None:
    """The mesh that `jax.set_mesh` has set, None without one."""
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else mesh


def on_devices(array: ArrayLike, *axes: str | None) -> Array:
    """A host array where the program runs: on the default device, or on the mesh that is set, divided along `axes`
    where they divide it and else on every device."""
    if (mesh := set_mesh()) is None:
        return jnp.asarray(array)
    divides = all(
        axis is None or size % mesh.shape[axis] == 0 for size, axis in zip(np.shape(array), axes, strict=False)
    )
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*axes if divides else ())))


def on_host(array: ArrayLike) -> np.ndarray:
    """An array in full on this host, gathered from the other processes where parts of it lie with them."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def join_processes() -> None:
    """Initialise jax.distributed when the launcher says that there are several processes: JAX_NUM_PROCESSES (with
    JAX_PROCESS_ID and JAX_COORDINATOR_ADDRESS), Slurm, Open MPI, or a TPU pod. Else nothing."""
    said = os.environ
    tasks = max(int(said.get(name, "1")) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    if int(said.get("JAX_NUM_PROCESSES", "1")) > 1:
        if missing := [name for name in ("JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS") if name not in said]:
            raise InputError(f"JAX_NUM_PROCESSES is set and {missing[0]} is not: set all three, or none")
        jax.distributed.initialize(num_processes=int(said["JAX_NUM_PROCESSES"]), process_id=int(said["JAX_PROCESS_ID"]))
    elif tasks > 1 or "," in said.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize()


def said_by_first(answer: bool) -> bool:
    """What the first of several processes answers: their clocks differ, and they have to do the same."""
    return answer if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.array(answer)))


def is_first() -> bool:
    """Whether this process is the one of several that prints and writes."""
    return jax.process_index() == 0


def device_words() -> str:
    """The kind of device that programs run on, and how many share the work."""
    kind, mesh = jax.devices()[0].device_kind, set_mesh()
    return kind if mesh is None else f"{kind}, {', '.join(f'{axis}={size}' for axis, size in mesh.shape.items())}"


@contextmanager
def mesh_of(text: str | None) -> Iterator[None]:
    """Processes joined and, for a text like "data=1,model=8", that mesh set: what is loaded within is divided on it."""
    join_processes()
    if text:
        with jax.set_mesh(make_mesh(text)):
            yield
    elif jax.process_count() > 1:
        raise InputError(f"{jax.process_count()} processes were started together: give --mesh, so that they share work")
    else:
        yield


@contextmanager
def own_place(out: Path) -> Iterator[Path]:
    """Where this process writes what all compute alike: the first to `out`, the others to a copy that is removed."""
    if jax.process_count() == 1:
        yield out
        return
    with tempfile.TemporaryDirectory() as scratch:
        mine = out
        if jax.process_index():
            mine = Path(scratch) / out.name
            if out.is_dir():
                shutil.copytree(out, mine)
            if (progress := beside(out, PROGRESS)).exists():
                shutil.copyfile(progress, beside(mine, PROGRESS))
        multihost_utils.sync_global_devices("copied")
        yield mine
        multihost_utils.sync_global_devices("written")
