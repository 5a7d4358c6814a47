"""MEMIT: a batch of facts spread over several matrices by one least-squares solve a layer (Meng et al. 2023)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from prunejax.contexts import Contexts, group_weights, templates_of
from prunejax.editors.editor import Diagnostics, Editor
from prunejax.editors.facts import facts_of
from prunejax.editors.moments import Moments
from prunejax.editors.rows import grouped, stacked_rows
from prunejax.editors.settings import LocateSettings
from prunejax.editors.shapes import covering, few_shapes, shape_of
from prunejax.editors.solver import adjusted_keys, inverse_metric
from prunejax.editors.value import FactRows, ValueSettings, loss_span, open_from, target_values
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder, Overrides
from prunejax.models.layer import Cache
from prunejax.models.opened import Opened
from prunejax.models.packing import positions_on_grid
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
    """The rows of a batch in groups that are worked on one after the other, a leading [groups] on each part; place [n]
    of each request among those of all groups; and the weight [R] of each context in an averaged key."""

    rows: FactRows
    place: Array
    weights: Array


TOKENS = 1024
"""About how many suffix tokens are worked on at once: matrices are multiplied at full speed from some hundreds on, and
what a gradient keeps of each token, 1 MB of an 8B model, has to fit beside the weights."""


class MemitState(NamedTuple):
    """C^-1 [d_ff, d_ff] of each edited layer, the last of them and the layers above it, read out of the stack
    once a run."""

    inverses: tuple[Array, ...]
    opened: Mapping[int, Opened]


def memit(settings: MemitSettings) -> Editor:
    """The editor dW_l = (lambda C_l + K K^T)^-1 K R^T (as [d_in, d_out]) for each layer l in order.

    The target values Z replace the residual stream after the last layer; R = (Z - Z_now) / (layers still to edit), with
    keys K and Z_now read from the model that the layers below have already changed. A key is the mean over groups of
    contexts of the group's mean: the bare prompt weighs as much as all prefixes together. Earlier batches are not
    remembered (there is no cache of their keys).
    """

    value_step = settings.value_step("residual")

    def prepare(model: Model, requests: Sequence[EditRequest], contexts: Contexts, batch: int) -> list[FactBatch]:
        facts = facts_of(model.tokenizer, requests, templates_of(contexts), model.config.n_positions)
        weights = np.array(group_weights(contexts), np.float32)
        batches = [grouped(facts[start : start + batch], TOKENS) for start in range(0, len(facts), batch)]
        shapes = few_shapes([covering(list(map(shape_of, groups))) for groups, _ in batches], model.config, value_step)
        return [
            FactBatch(stacked_rows(groups, shape), place, weights)
            for (groups, place), shape in zip(batches, shapes, strict=True)
        ]

    def init(model: Model, moments: Moments | None) -> MemitState:
        inverses = tuple(
            inverse_metric(model, moments, tensor, settings.second_moment, settings.ridge)
            for tensor in settings.tensors(model)
        )
        return MemitState(inverses, open_from(model.decoder, value_step.layer))

    def step(
        model: Model, state: MemitState, batch: FactBatch, rng: Any
    ) -> tuple[dict[str, LowRank], None, MemitState, Diagnostics]:
        del rng  # nothing is drawn
        tensors = settings.tensors(model)
        kernels = tuple(model.weight(tensor) for tensor in tensors)
        updates, diagnostics = memit_update(
            *(model.decoder, model.overrides, kernels, state.inverses, batch),
            *(value_step, settings.layers, settings.moment_weight, state.opened),
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
    opened: Mapping[int, Opened] | None = None,
) -> tuple[list[LowRank], dict[str, Array]]:
    """An update a layer, left [d_ff, n] and right [n, d_model], and diagnostics [n]. `kernels` are the layers' own now.

    A batch with anything that is not finite is returned as zero and flagged `finite` false.
    """
    targets = in_order(
        over_groups(partial(target_values, decoder, overrides, settings=value_step, opened=opened), batch.rows), batch
    )
    edited = dict(overrides) | {(layer, "down"): kernel for layer, kernel in zip(layers, kernels, strict=True)}
    streams = over_groups(partial(run_below, decoder, edited, layer=layers[0]), batch.rows)
    updates: list[LowRank] = []
    for number, (layer, inverse) in enumerate(zip(layers, inverses, strict=True)):
        read = partial(read_facts, decoder, edited, weights=batch.weights, layer=layer, last=layers[-1])
        keys, current = in_order(over_groups(read, batch.rows, streams), batch)
        right = (targets.value - current) / (len(layers) - number)
        left = adjusted_keys(inverse, keys, moment_weight)
        edited[layer, "down"] = edited[layer, "down"] + product(left, right)
        updates.append(LowRank(left, right))
        if layer != layers[-1]:
            run = partial(run_streams, decoder, edited, start=layer, stop=layers[number + 1])
            streams = over_groups(run, batch.rows, streams)
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


class Streams(NamedTuple):
    """The residual stream of a group's rows before some layer: prefix [N, d_model] of the packed prefixes, and tip [B,
    1, d_model] of the subjects' last tokens."""

    prefix: Array
    tip: Array


def over_groups(function: Callable, *groups: Any) -> Any:
    """The function of each group, one after the other, of arrays with a leading [groups]."""
    return jax.lax.map(lambda group: function(*group), groups)


def in_order(groups: Any, batch: FactBatch) -> Any:
    """Results [groups, n', ...] as [n, ...], in the order of the requests."""
    return jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:])[batch.place], groups)


def run_below(decoder: Decoder, overrides: Overrides, rows: FactRows, layer: int) -> Streams:
    """The streams before `layer`."""
    tokens, positions = rows.suffix.ids[rows.first][:, None], rows.suffix.positions[rows.first][:, None]
    prefix = decoder.embed(rows.prefix.ids, rows.prefix.positions)
    return run_streams(decoder, overrides, rows, Streams(prefix, decoder.embed(tokens, positions)), 0, layer)


def run_streams(
    decoder: Decoder, overrides: Overrides, rows: FactRows, streams: Streams, start: int, stop: int
) -> Streams:
    """The streams before layer `stop`, from those before `start`."""
    return run_tapped(decoder, overrides, rows, streams, start, stop)[0] if start < stop else streams


def run_tapped(
    decoder: Decoder, overrides: Overrides, rows: FactRows, streams: Streams, start: int, stop: int
) -> tuple[Streams, Array]:
    """The streams before layer `stop`, and the keys [layers, B, d_ff] of the subjects' last tokens on the way."""
    run = partial(decoder.run_layers, start=start, stop=stop, overrides=overrides)
    past = run(streams.prefix, rows.prefix.positions, packing=rows.prefix.packing)
    grid = positions_on_grid(rows.prefix.positions, rows.prefix.packing)
    positions = rows.suffix.positions[rows.first][:, None]
    tip = run(streams.tip, positions, cache=Cache(past.keys, past.values, grid), taps=("key",))
    return Streams(past.residual, tip.residual), tip.taps["key"][:, :, 0]


def read_facts(
    decoder: Decoder, overrides: Overrides, rows: FactRows, streams: Streams, *, weights: Array, layer: int, last: int
) -> tuple[Array, Array]:
    """The averaged keys [n, d_ff] of a group's requests at `layer`, from the streams before it, and what the residual
    stream holds [n, d_model] after layer `last` at the subject's last token of the bare prompt."""
    after, keys = run_tapped(decoder, overrides, rows, streams, layer, last + 1)
    n = rows.tail.shape[0]
    by_request = keys[0].reshape(n, -1, keys.shape[-1])[:, :-1]
    bare = after.tip.reshape(n, -1, after.tip.shape[-1])[:, 0]
    return jnp.einsum("r,nrk->nk", weights, by_request, precision="highest"), bare
