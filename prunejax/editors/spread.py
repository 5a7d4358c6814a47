"""The one step of every method that spreads a batch of facts over several layers: target values, then layer by layer
keys, residuals and the solve. A method is a `Choice`, and what its state holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from prunejax.contexts import Contexts, group_weights, templates_of
from prunejax.editors.anchor import wanted_values
from prunejax.editors.editor import Diagnostics, Editor, State
from prunejax.editors.facts import facts_of
from prunejax.editors.moments import Moments
from prunejax.editors.neurons import solve_within
from prunejax.editors.rows import grouped, stacked_rows
from prunejax.editors.settings import LocateSettings
from prunejax.editors.shapes import covering, few_shapes, shape_of
from prunejax.editors.solve import KeyCache, Metric, filled, no_keys, remember, solve
from prunejax.editors.streams import read_facts, run_below, run_streams
from prunejax.editors.value import FactRows, TargetValue, loss_span, open_from
from prunejax.editors.value_settings import ValueSettings
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder, Overrides
from prunejax.models.opened import Opened
from prunejax.requests import EditRequest
from prunejax.update import LowRank, product

TOKENS = 1024
"""About how many suffix tokens are worked on at once: matrices are multiplied at full speed from some hundreds on, and
what a gradient keeps of each token, 1 MB of an 8B model, has to fit beside the weights."""


@dataclass(frozen=True)
class Choice:
    """What tells the methods apart.

    `slack` of the solve for a batch of several requests, `slack_alone` for one. `remembers` earlier keys in S. A layer
    takes the residual over (layers left) ** `share` (PMET: 0.5). `rewound`: target values are those of the unedited
    model. The batch is gone through `passes` times, each time for requests whose residual is longer than `least` and
    shorter than `most`, and of each key only the loudest neurons are written that hold `keep` of what all hold (NSE).
    """

    layers: tuple[int, ...]
    value_step: ValueSettings
    slack: float = 1.0
    slack_alone: float = 1.0
    remembers: bool = False
    share: float = 1.0
    rewound: bool = False
    passes: int = 1
    least: float = 0.0
    most: float = float("inf")
    keep: float = 1.0


class FactBatch(NamedTuple):
    """The rows of a batch in groups that are worked on one after the other, a leading [groups] on each part; place [n]
    of each request among those of all groups; and the weight [R] of each context in an averaged key."""

    rows: FactRows
    place: Array
    weights: Array


class Fixed(NamedTuple):
    """S_0 of each edited layer, and the last of them and the layers above it, read out of the stack once a run."""

    metrics: tuple[Metric, ...]
    opened: Mapping[int, Opened]


Metrics = Callable[[Model, Moments | None, str], Metric]


def spread(settings: LocateSettings, choice: Choice, metric: Metrics) -> Editor:
    """The editor of a choice; `metric` makes S_0 of a tensor."""

    def prepare(model: Model, requests: Sequence[EditRequest], contexts: Contexts, batch: int) -> list[FactBatch]:
        facts = facts_of(model.tokenizer, requests, templates_of(contexts), model.config.n_positions)
        weights = np.array(group_weights(contexts), np.float32)
        batches = [grouped(facts[start : start + batch], TOKENS) for start in range(0, len(facts), batch)]
        wanted = [covering(list(map(shape_of, groups))) for groups, _ in batches]
        shapes = few_shapes(wanted, model.config, choice.value_step)
        return [
            FactBatch(stacked_rows(groups, shape), place, weights)
            for (groups, place), shape in zip(batches, shapes, strict=True)
        ]

    def init(model: Model, moments: Moments | None, room: int) -> State:
        metrics = tuple(metric(model, moments, tensor) for tensor in settings.tensors(model))
        caches = tuple(no_keys(room, model.config.d_ff) for _ in metrics) if choice.remembers else ()
        return State(Fixed(metrics, open_from(model.decoder, choice.value_step.layer)), caches)

    def step(
        model: Model, state: State, batch: FactBatch, rng: Any
    ) -> tuple[dict[str, LowRank], None, State, Diagnostics]:
        del rng  # nothing is drawn
        tensors = settings.tensors(model)
        kernels = tuple(model.weight(tensor) for tensor in tensors)
        searched = {} if choice.rewound else model.overrides
        targets = values_of_groups(model.decoder, searched, batch, choice.value_step, state.fixed.opened)
        updates, caches, diagnostics = spread_update(
            model.decoder, model.overrides, kernels, state.fixed.metrics, state.carried, batch, targets, choice
        )
        return dict(zip(tensors, updates, strict=True)), None, state._replace(carried=caches), diagnostics

    return Editor(
        settings.tensors, prepare, init, step, choice=choice, stored=lambda caches: tuple(map(filled, caches))
    )


@partial(jax.jit, static_argnames=("settings",))
def values_of_groups(
    decoder: Decoder, overrides: Overrides, batch: FactBatch, settings: ValueSettings, opened: Mapping[int, Opened]
) -> TargetValue:
    """The target values of a batch, a leading [n] in the order of the requests. It is a program of its own, the longest
    to compile, which methods share that differ in their solve alone."""
    found = partial(wanted_values, decoder, overrides, settings=settings, opened=opened)
    return in_order(over_groups(found, batch.rows), batch)


@partial(jax.jit, static_argnames=("choice",))
def spread_update(
    decoder: Decoder,
    overrides: Overrides,
    kernels: tuple[Array, ...],
    metrics: tuple[Metric, ...],
    caches: tuple[KeyCache, ...],
    batch: FactBatch,
    targets: TargetValue,
    choice: Choice,
) -> tuple[list[LowRank], tuple[KeyCache, ...], dict[str, Array]]:
    """An update a layer, left [d_ff, n passes] and right [n passes, d_model], the caches with the batch's keys, and
    diagnostics [n]. `kernels` are the layers' own now.

    A batch with anything that is not finite is returned as zero, flagged `finite` false and not remembered.
    """
    n = len(batch.place)
    edited = dict(overrides) | dict(zip([(layer, "down") for layer in choice.layers], kernels, strict=True))
    slack = choice.slack if n > 1 else choice.slack_alone
    factors: list[list[LowRank]] = [[] for _ in choice.layers]
    kept = list(caches)
    for _ in range(choice.passes):
        streams = over_groups(partial(run_below, decoder, edited, layer=choice.layers[0]), batch.rows)
        chosen = jnp.ones(n, bool)
        for number, (layer, metric) in enumerate(zip(choice.layers, metrics, strict=True)):
            read = partial(
                read_facts,
                decoder,
                edited,
                weights=batch.weights,
                layer=layer,
                last=choice.layers[-1],
                site=choice.value_step.sites[-1],
            )
            keys, current = in_order(over_groups(read, batch.rows, streams), batch)
            away = targets.value - current
            if number == 0 and (choice.least > 0 or choice.most < float("inf")):
                length = jnp.linalg.norm(away, axis=1)
                chosen = ~((length <= choice.least) | (length >= choice.most))  # what is NaN stays, and is flagged
            written = jnp.where(chosen[:, None], keys, 0.0)
            cache = caches[number] if choice.remembers else None
            if choice.keep < 1:
                left = solve_within(metric, written, choice.keep, cache)
            else:
                left = solve(metric, written, slack, cache)
            right = jnp.where(chosen[:, None], away, 0.0) / (len(choice.layers) - number) ** choice.share
            edited[layer, "down"] = edited[layer, "down"] + product(left, right)
            factors[number].append(LowRank(left, right))
            if choice.remembers:
                kept[number] = remember(metric, keys, cache)
            if layer != choice.layers[-1]:
                run = partial(run_streams, decoder, edited, start=layer, stop=choice.layers[number + 1])
                streams = over_groups(run, batch.rows, streams)
    updates = [joined(parts) for parts in factors]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(part)) for update in updates for part in update]))
    updates = [LowRank(*(jnp.where(finite, part, 0.0) for part in update)) for update in updates]
    caches = jax.tree.map(lambda new, old: jnp.where(finite, new, old), tuple(kept), caches)
    first, last, evaluated = jax.vmap(loss_span)(targets.losses)
    diagnostics = {
        "loss_first": first,
        "loss_last": last,
        "steps": evaluated,
        "probability": targets.probability,
        "delta_norm": jnp.linalg.norm(targets.delta, axis=1),
        "update_norm": norm_of_each(updates, n),
        "finite": jnp.broadcast_to(finite, (n,)),
    }
    return updates, caches, diagnostics


def joined(parts: Sequence[LowRank]) -> LowRank:
    """The updates of several passes as one, each request's columns together."""
    if len(parts) == 1:
        return parts[0]
    left = jnp.stack([part.left for part in parts], axis=2).reshape(parts[0].left.shape[0], -1)
    right = jnp.stack([part.right for part in parts], axis=1).reshape(-1, parts[0].right.shape[1])
    return LowRank(left, right)


def norm_of_each(updates: Sequence[LowRank], n: int) -> Array:
    """The Frobenius norm [n] over all tensors of what each of n requests adds."""
    squares = []
    for update in updates:
        left = update.left.reshape(len(update.left), n, -1)
        right = update.right.reshape(n, -1, update.right.shape[1])
        grams = jnp.einsum("inr,ins->nrs", left, left), jnp.einsum("nrj,nsj->nrs", right, right)
        squares.append(jnp.sum(grams[0] * grams[1], axis=(1, 2)))
    return jnp.sqrt(jnp.sum(jnp.stack(squares), axis=0))


def over_groups(function: Callable, *groups: Any) -> Any:
    """The function of each group, one after the other, of arrays with a leading [groups]."""
    return jax.lax.map(lambda group: function(*group), groups)


def in_order(groups: Any, batch: FactBatch) -> Any:
    """Results [groups, n', ...] as [n, ...], in the order of the requests."""
    return jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:])[batch.place], groups)
