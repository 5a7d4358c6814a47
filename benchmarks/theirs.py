"""The PyTorch side: module-level functions that a side's process runs; what is loaded once stays in that process."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.clock import timed
from benchmarks.original_memit import memit_layers
from benchmarks.original_model import Original, load_original, read, rows_of
from benchmarks.original_rome import rome_edit
from benchmarks.original_value import fact_of, find_value
from benchmarks.recipe import Job, flat, memit_contexts, requests_of, rome_contexts


class Ready(NamedTuple):
    """A model, and C of each edited layer, its inverse too where one layer is edited (None for the identity)."""

    original: Original
    moments: list[Tensor]
    inverse: Tensor | None


@cache
def ready(job: Job) -> Ready:
    """What a job's edits start from."""
    device = "cpu" if job.device == "cpu" else "cuda"
    original = load_original(job.model, job.dtype, device)
    width, layers = original.kernel(0).shape[0], job.recipe.layers
    if job.recipe.second_moment == "identity":
        return Ready(original, [torch.eye(width, device=device)] * len(layers), None)
    stored = load_file(job.moments, device=device)
    names = {id(module): name for name, module in original.model.named_modules()}
    moments = [stored[f"{names[id(original.down(layer))]}.weight.second_moment"] for layer in layers]
    return Ready(original, moments, torch.linalg.inv(moments[0]) if len(layers) == 1 else None)


def finish(job: Job) -> None:
    """Wait for a GPU."""
    if job.device != "cpu":
        torch.cuda.synchronize()


def rome_seconds(job: Job, number: int) -> tuple[float, np.ndarray, np.ndarray]:
    """One ROME edit, written into the weight as published and then taken out again: seconds and the factors u [d_in]
    and v [d_out]."""
    original, _, inverse = ready(job)
    request, kernel = requests_of(job)[number], original.kernel(job.recipe.layers[0])

    def edit() -> tuple[Tensor, Tensor, Tensor]:
        u, v = rome_edit(original, request, rome_contexts(), inverse, job.recipe)
        before = kernel.clone()
        kernel.add_(torch.outer(u, v).to(kernel.dtype))
        finish(job)
        return u, v, before

    seconds, (u, v, before) = timed(edit)
    kernel.copy_(before)
    return seconds, u.cpu().numpy(), v.cpu().numpy()


def value_seconds(job: Job, number: int) -> tuple[float, np.ndarray]:
    """One of MEMIT's value steps: seconds and the delta [d_model]."""
    original, request = ready(job).original, requests_of(job)[number]

    def find() -> Tensor:
        fact = fact_of(original, request, flat(memit_contexts()))
        found = find_value(original, fact, job.recipe, "residual").delta
        finish(job)
        return found

    seconds, delta = timed(find)
    return seconds, delta.cpu().numpy()


def layers_seconds(job: Job, deltas: np.ndarray) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
    """MEMIT behind its value steps, whose deltas [n, d_model] are given: seconds and the factors of each layer."""
    original, moments, _ = ready(job)
    requests = requests_of(job)[: len(deltas)]
    bare = rows_of(original, [r.prompt for r in requests], [r.subject for r in requests], ["" for _ in requests])
    _, initial = read(original, original.layers[job.recipe.layers[-1]], bare)
    targets = initial.float() + torch.from_numpy(deltas).to(initial.device)

    def solve() -> Sequence[tuple[Tensor, Tensor]]:
        found = memit_layers(original, requests, memit_contexts(), moments, targets, job.recipe)
        finish(job)
        return found

    seconds, factors = timed(solve)
    return seconds, [(left.cpu().numpy(), right.cpu().numpy()) for left, right in factors]


def stack() -> str:
    """Versions of what computes here, and the device."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return f"torch {torch.__version__}, numpy {np.__version__}, {device}"
