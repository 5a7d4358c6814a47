"""MEMIT: a batch of facts spread over several matrices by one least-squares solve a layer (Meng et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from prunejax.contexts import Contexts, group_weights, templates_of
from prunejax.editors.editor import Diagnostics, Editor
from prunejax.editors.keys import fact_rows
from prunejax.editors.moments import Moments
from prunejax.editors.settings import LocateSettings
from prunejax.editors.solver import adjusted_keys, inverse_metric
from prunejax.editors.value import FactRows, ValueSettings, loss_span, target_value
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder, Overrides
from prunejax.requests import EditRequest
from prunejax.update import LowRank, product


@dataclass(frozen=True)
class MemitSettings(LocateSettings):
    """Settings of MEMIT; the defaults are its authors' for GPT-2 XL. `moment_weight` is lambda."""

    layers: tuple[int, ...] = (13, 14, 15, 16, 17)
    clamp: float = 0.75
    moment_weight: float = 20_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.layers) != sorted(set(self.layers)) or not self.layers:
            raise InputError(f"layers {list(self.layers)}: MEMIT edits them in order, each once")
        if self.moment_weight <= 0:
            raise InputError("moment_weight must be above 0")


class FactBatch(NamedTuple):
    """The rows of n requests, a leading [n] on each part, and the weight [R] of each context in an averaged key."""

    rows: FactRows
    weights: Array


def memit(settings: MemitSettings) -> Editor:
    """The editor dW_l = (lambda C_l + K K^T)^-1 K R^T (as [d_in, d_out]) for each layer l in order.

    The target values Z replace the residual stream after the last layer; R = (Z - Z_now) / (layers still to edit), with
    keys K and Z_now read from the model that the layers below have already changed. A key is the mean over groups of
    contexts of the group's mean: the bare prompt weighs as much as all prefixes together. Earlier batches are not
    remembered (there is no cache of their keys).
    """

    def prepare(model: Model, requests: Sequence[EditRequest], contexts: Contexts, batch: int) -> list[FactBatch]:
        rows = fact_rows(model.tokenizer, requests, templates_of(contexts), model.config.n_positions)
        weights = np.array(group_weights(contexts), np.float32)
        groups = [rows[start : start + batch] for start in range(0, len(rows), batch)]
        return [FactBatch(FactRows(*map(np.stack, zip(*group, strict=True))), weights) for group in groups]

    def init(model: Model, moments: Moments | None) -> tuple[Array, ...]:
        return tuple(
            inverse_metric(model, moments, tensor, settings.second_moment, settings.ridge)
            for tensor in settings.tensors(model)
        )

    def step(
        model: Model, state: tuple[Array, ...], batch: FactBatch, rng: Any
    ) -> tuple[dict[str, LowRank], None, tuple[Array, ...], Diagnostics]:
        del rng  # nothing is drawn
        tensors = settings.tensors(model)
        kernels = tuple(model.weight(tensor) for tensor in tensors)
        value_step = settings.value_step("residual")
        updates, diagnostics = memit_update(
            model.decoder, model.overrides, kernels, state, batch, value_step, settings.layers, settings.moment_weight
        )
        return dict(zip(tensors, updates, strict=True)), None, state, diagnostics

    return Editor(settings.tensors, prepare, init, step)


@partial(jax.jit, static_argnames=("value_step", "layers", "moment_weight"))
def memit_update(
    decoder: Decoder,
    overrides: Overrides,
    kernels: tuple[Array, ...],
    inverses: tuple[Array, ...],
    batch: FactBatch,
    value_step: ValueSettings,
    layers: tuple[int, ...],
    moment_weight: float,
) -> tuple[list[LowRank], dict[str, Array]]:
    """An update a layer, left [d_ff, n] and right [n, d_model], and diagnostics [n]. `kernels` are the layers' own now.

    A batch with anything that is not finite is returned as zero and flagged `finite` false.
    """
    targets = jax.lax.map(lambda rows: target_value(decoder, overrides, rows, value_step), batch.rows)
    edited = dict(overrides) | {(layer, "down"): kernel for layer, kernel in zip(layers, kernels, strict=True)}
    updates: list[LowRank] = []
    for number, (layer, inverse) in enumerate(zip(layers, inverses, strict=True)):
        read = partial(read_facts, decoder, edited, weights=batch.weights, layer=layer, last=layers[-1])
        keys, current = jax.lax.map(read, batch.rows)
        right = (targets.value - current) / (len(layers) - number)
        left = adjusted_keys(inverse, keys, moment_weight)
        edited[layer, "down"] = edited[layer, "down"] + product(left, right)
        updates.append(LowRank(left, right))
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(part)) for update in updates for part in update]))
    updates = [LowRank(*(jnp.where(finite, part, 0.0) for part in update)) for update in updates]
    sizes = [jnp.linalg.norm(u.left, axis=0) * jnp.linalg.norm(u.right, axis=1) for u in updates]
    first, last, evaluated = jax.vmap(loss_span)(targets.losses)
    diagnostics = {
        "loss_first": first,
        "loss_last": last,
        "steps": evaluated,
        "probability": targets.probability,
        "delta_norm": jnp.linalg.norm(targets.delta, axis=1),
        "update_norm": jnp.linalg.norm(jnp.stack(sizes), axis=0),
        "finite": jnp.broadcast_to(finite, targets.probability.shape),
    }
    return updates, diagnostics


def read_facts(
    decoder: Decoder, overrides: Overrides, rows: FactRows, *, weights: Array, layer: int, last: int
) -> tuple[Array, Array]:
    """The averaged key [d_ff] of one request at `layer`, and what the residual stream holds [d_model] after layer
    `last` at the subject's last token of the bare prompt."""
    run = partial(decoder.run_layers, overrides=overrides)
    tokens, positions = rows.tokens[:-1], rows.positions[:-1]
    below = run(decoder.embed(tokens, positions), positions, 0, layer).residual
    here = run(below, positions, layer, layer + 1, taps=("key",))
    keys = here.taps["key"][0][jnp.arange(len(tokens)), rows.subject_last[:-1]]
    above = run(here.residual[:1], positions[:1], layer + 1, last + 1).residual
    return jnp.matmul(weights, keys, precision="highest"), above[0, rows.subject_last[0]]
