"""MEMIT as published: a value step a request, one after another; then, layer by layer, keys and residuals by passes of
the whole model, and a solve in float64."""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.original_model import Original, read, rows_of
from benchmarks.recipe import Recipe, flat
from prunejax.requests import EditRequest


def memit_layers(
    original: Original,
    requests: Sequence[EditRequest],
    contexts: Sequence[Sequence[str]],
    moments: Sequence[Tensor],
    targets: Tensor,
    recipe: Recipe,
) -> list[tuple[Tensor, Tensor]]:
    """(lambda C + K K^T)^-1 K [d_in, n] and R [n, d_out] of each layer in order, float64; the update is their product.

    `targets` [n, d_model] are the target values Z, `moments` C of each layer. The weights are changed on the way and
    put back.
    """
    factors, kept = [], [original.kernel(layer).clone() for layer in recipe.layers]
    last = original.layers[recipe.layers[-1]]
    prompts, subjects = [request.prompt for request in requests], [request.subject for request in requests]
    for number, layer in enumerate(recipe.layers):
        keys = averaged_keys(original, layer, requests, contexts).double().T
        _, now = read(original, last, rows_of(original, prompts, subjects, [""] * len(requests)))
        residual = (targets - now).double() / (len(recipe.layers) - number)
        metric = recipe.moment_weight * moments[number].double() + keys @ keys.T
        adjusted = torch.linalg.solve(metric, keys)
        kernel = original.kernel(layer)
        kernel += (adjusted @ residual).to(kernel.dtype)
        factors.append((adjusted, residual))
    for layer, weight in zip(recipe.layers, kept, strict=True):
        original.kernel(layer).copy_(weight)
    return factors


def averaged_keys(
    original: Original, layer: int, requests: Sequence[EditRequest], contexts: Sequence[Sequence[str]]
) -> Tensor:
    """The key [n, d_in] of each request at a layer: the mean over groups of contexts of the group's mean."""
    templates = flat(contexts)
    prompts = [template.replace("{}", request.prompt, 1) for request in requests for template in templates]
    subjects = [request.subject for request in requests for _ in templates]
    keys, _ = read(original, original.down(layer), rows_of(original, prompts, subjects, [""] * len(prompts)))
    groups = keys.reshape(len(requests), len(templates), -1).split([len(group) for group in contexts], dim=1)
    return torch.stack([group.mean(1) for group in groups]).mean(0)
