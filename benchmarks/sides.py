"""A side of a comparison: one process of its own, held to so many cores, that answers calls one at a time.

PyTorch and JAX never share a process, so neither's threads nor memory are the other's; whoever is not asked sleeps.
"""

import os
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

Call = Callable[..., Any]


@contextmanager
def side(cores: int, device: str = "cpu") -> Iterator[Call]:
    """`call(function, *arguments)` runs a module-level function in the side's process and returns what it returns.

    Threads of BLAS and of PyTorch are as many as the cores, and where the system can (Linux) the process is held to
    that many of them, which is what XLA counts. Device "cpu" hides accelerators.
    """
    told = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(cores))
    told |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "HF_HUB_OFFLINE": "1"}
    told |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if device == "cpu":
        told |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=hold_to, initargs=(cores,)) as pool:
        with environment(told):
            pool.submit(os.getpid).result()  # the process starts here and keeps what it is told
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def hold_to(cores: int) -> None:
    """Hold this process to the first so many of its cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for what is started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def peak_mb() -> float:
    """The most memory that this process has held so far, MB; of the device's own memory where that is a GPU's."""
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    if (jax := sys.modules.get("jax")) is not None and jax.default_backend() == "gpu":
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def children_peak_mb() -> float:
    """The most memory that any process this one has started and waited for has held, MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e6
