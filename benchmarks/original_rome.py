"""ROME as published: the key averaged over all contexts, the value step, the rank-one update read at the bare
prompt."""

from collections.abc import Sequence

from torch import Tensor

from benchmarks.original_model import Original, read, rows_of
from benchmarks.original_value import fact_of, find_value
from benchmarks.recipe import Recipe
from prunejax.requests import EditRequest


def rome_edit(
    original: Original, request: EditRequest, templates: Sequence[str], inverse: Tensor | None, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    """u [d_in] = C^-1 k* / ||C^-1 k*|| and v [d_out] = (z - W k) / (k . u), float32, so that the update is u v^T;
    nothing is written. `inverse` is C^-1, None for the identity."""
    down = original.down(recipe.layers[0])
    prompts = [template.replace("{}", request.prompt, 1) for template in templates]
    keys, _ = read(original, down, rows_of(original, prompts, [request.subject] * len(prompts), [""] * len(prompts)))
    u = keys.float().mean(0)
    if inverse is not None:
        u = inverse @ u
    u = u / u.norm()
    found = find_value(original, fact_of(original, request, templates), recipe, "value")
    key, output = read(original, down, rows_of(original, [request.prompt], [request.subject], [""]))
    v = (found.initial + found.delta - output[0].float()) / (key[0].float() @ u)
    return u, v
