"""Restraints on each update, before it is added: which of its elements are kept.

    rect:PERCENT  the elements with the largest relative change |dW / W| (RECT, Gu et al. 2024; published: 20 or 40)
    mask:PERCENT  as many at random, the control

The others are set to 0. A masked update has full rank, so a run keeps sums of such updates and no factors.
"""

import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from prunejax.errors import InputError
from prunejax.update import Dense, Update, dense

SPECS = "rect:PERCENT, mask:PERCENT"


@dataclass(frozen=True)
class Mask:
    """A restraint on each update as a value: the text it was written as, whether the elements are `chosen` by their
    relative change or at random, and how many percent are kept."""

    spec: str
    chosen: bool
    percent: float


def is_mask(spec: str) -> bool:
    """Whether a text names one of these."""
    return spec.partition(":")[0] in ("rect", "mask")


def parse_mask(spec: str) -> Mask:
    """The mask that `spec` names; InputError, one line, if it names none."""
    name, _, percent = spec.partition(":")
    number = float(percent) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", percent) else 0.0
    if not is_mask(spec) or not 0 < number <= 100:
        raise InputError(f"restraint {spec!r}: give {SPECS}, PERCENT above 0 and at most 100 (rect:20)")
    return Mask(spec, name == "rect", number)


def masked(mask: Mask, update: Update, weight: Array, key: Array) -> Dense:
    """The update [d_in, d_out] with int((1 - PERCENT / 100) d_in d_out) of its elements set to 0, those of the smallest
    |dW / W| as released (0 / 0 counts as no change, and elements that tie with the last one set to 0 are kept).

    `weight` is what the update is added to, `key` draws the control's elements.

    Misleads: what is kept is kept whole, so an edit loses its effect in proportion to what the others held, and a null
    space that an editor wrote into is left, unless the editor brings the update back (`Editor.within`).
    """
    zeroed = int(weight.size * ((100 - mask.percent) / 100))
    return Dense(_masked(dense(update), weight, key, zeroed, mask.chosen))


def _scores(matrix: Array, weight: Array, key: Array, chosen: bool) -> Array:
    if not chosen:
        return jax.random.uniform(key, matrix.shape)
    change = jnp.abs(matrix / weight)
    return jnp.where(jnp.isnan(change) & (matrix == 0), 0.0, change)


def _mask(matrix: Array, weight: Array, key: Array, zeroed: int, chosen: bool) -> Array:
    scores = _scores(matrix, weight, key, chosen)
    least = jnp.sort(scores.reshape(-1))[zeroed] if zeroed < scores.size else jnp.inf
    return jnp.where(scores >= least, matrix, 0.0)


_masked = jax.jit(_mask, static_argnames=("zeroed", "chosen"))
