"""Target values as the editors ask for them: found by the value step, and held to the unedited model's norm where that
is wanted."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from prunejax.editors.streams import run_below, run_tapped
from prunejax.editors.value import FactRows, TargetValue, target_values
from prunejax.editors.value_settings import ValueSettings
from prunejax.models.decoder import Decoder, Overrides
from prunejax.models.opened import Opened


@partial(jax.jit, static_argnames=("settings",))
def wanted_values(
    decoder: Decoder,
    overrides: Overrides,
    rows: FactRows,
    settings: ValueSettings,
    opened: Mapping[int, Opened] | None = None,
) -> TargetValue:
    """`target_values`; with `settings.anchor` each value is z ||v0_unedited|| / ||z||, with v0_unedited what the
    unedited model holds at the site in the bare prompt (norm anchor, arXiv 2602.02543): z is found on weights that
    earlier edits made larger, so without it value and weight drive one another up.

    `delta`, `losses` and `probability` stay those of the search."""
    found = target_values(decoder, overrides, rows, settings, opened)
    if not settings.anchor:
        return found
    norm = jnp.linalg.norm(unedited_values(decoder, rows, settings), axis=1)
    scale = norm / jnp.linalg.norm(found.value, axis=1)
    return found._replace(value=found.value * scale[:, None])


def unedited_values(decoder: Decoder, rows: FactRows, settings: ValueSettings) -> Array:
    """What the unedited model holds at the last of `sites` in each request's bare prompt, [n, d_model]."""
    layer = settings.layer
    below = run_below(decoder, {}, rows, layer)
    there = run_tapped(decoder, {}, rows, below, layer, layer + 1, settings.sites)[1][settings.sites[-1]][0]
    return there.reshape(rows.tail.shape[0], -1, there.shape[-1])[:, 0]
