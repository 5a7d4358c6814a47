"""One batch of requests edited: the one path of single, batched and sequential edits."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax import Array

from prunejax.editors.editor import Diagnostics, Editor, State
from prunejax.masking import Mask, masked
from prunejax.models.checkpoints import Model
from prunejax.update import Update, apply


class Edited(NamedTuple):
    """The edited tensors after a batch, the editor's state and memory, the updates as they were added, diagnostics."""

    weights: dict[str, Array]
    state: State
    memory: Any
    updates: Mapping[str, Update]
    diagnostics: Diagnostics


def edit_batch(
    editor: Editor,
    model: Model,
    weights: Mapping[str, Array],
    state: State,
    batch: Any,
    key: Array,
    mask: Mask | None = None,
) -> Edited:
    """A batch edited on `weights`, the edited tensors as they are now; a mask restrains each update before it is added.

    A regime is which weights and state the next batch gets: those that this one left, or those that it began with.
    """
    updates, memory, state, diagnostics = editor.step(model.with_weights(weights), state, batch, key)
    if mask is not None:
        keys = jax.random.split(jax.random.fold_in(key, 1), len(updates))
        updates = {
            tensor: masked(mask, update, weights[tensor], one)
            for (tensor, update), one in zip(updates.items(), keys, strict=True)
        }
        updates = editor.within(state, updates)
    added = {tensor: apply(weights[tensor], updates[tensor]) for tensor in weights}
    return Edited(added, state, memory, updates, diagnostics)
