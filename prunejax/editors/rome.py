"""ROME and r-ROME: one fact written into one matrix by a rank-one update (Meng et al. 2022; Gupta et al. 2024)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from prunejax.contexts import Contexts
from prunejax.editors.anchor import wanted_values
from prunejax.editors.editor import Diagnostics, Editor, State
from prunejax.editors.facts import facts_of
from prunejax.editors.metric import corpus_metric
from prunejax.editors.moments import Moments
from prunejax.editors.rows import fact_rows
from prunejax.editors.settings import LocateSettings
from prunejax.editors.shapes import few_shapes, shape_of
from prunejax.editors.value import FactRows, TargetValue, loss_span, open_from
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.opened import Opened
from prunejax.requests import EditRequest
from prunejax.update import LowRank


@dataclass(frozen=True)
class RomeSettings(LocateSettings):
    """Settings of ROME and r-ROME."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layers) != 1:
            raise InputError(f"layers {list(self.layers)}: ROME edits exactly one layer")


class Fixed(NamedTuple):
    """C^-1 [d_ff, d_ff] of the edited layer, that layer and those above it, read out of the stack once a run."""

    inverse: Array
    opened: Mapping[int, Opened]


def rome(settings: RomeSettings, *, consistent: bool = False) -> Editor:
    """The editor DeltaW = u (z - W k)^T / (k . u), with u = C^-1 k* / ||C^-1 k*|| and k* the mean key over contexts.

    As published (`consistent` false) k and W k are read at the bare prompt: where k . u is near zero the update
    explodes ("disabling edits"; log the denominator). r-ROME (`consistent` true) uses the mean key and mean output over
    contexts everywhere. `ridge` adds that share of C's mean diagonal to its diagonal before inversion (not in the
    published method, 0 is off); `second_moment="identity"` replaces C by I.
    """

    value_step = settings.value_step("value")

    def prepare(model: Model, requests: Sequence[EditRequest], contexts: Contexts, batch: int) -> list[FactRows]:
        if batch != 1:
            raise InputError(f"batch {batch}: ROME edits one request at a time")
        if not all(isinstance(template, str) for template in contexts):
            raise InputError("contexts: ROME averages over one list of templates, not over groups")
        facts = facts_of(model.tokenizer, requests, contexts, model.config.n_positions)
        shapes = few_shapes([shape_of([fact]) for fact in facts], model.config, value_step)
        return [fact_rows([fact], shape) for fact, shape in zip(facts, shapes, strict=True)]

    def init(model: Model, moments: Moments | None, room: int) -> State:
        del room  # no edit is remembered
        (tensor,) = settings.tensors(model)
        inverse = corpus_metric(model, moments, tensor, settings).inverse
        return State(Fixed(inverse, open_from(model.decoder, value_step.layer)))

    def step(
        model: Model, state: State, batch: FactRows, rng: Any
    ) -> tuple[dict[str, LowRank], None, State, Diagnostics]:
        del rng  # nothing is drawn
        target = wanted_values(model.decoder, model.overrides, batch, value_step, state.fixed.opened)
        left, right, diagnostics = rank_one(state.fixed.inverse, target, consistent)
        return {settings.tensors(model)[0]: LowRank(left, right)}, None, state, diagnostics

    return Editor(settings.tensors, prepare, init, step)


@partial(jax.jit, static_argnames=("consistent",))
def rank_one(inverse: Array, target: TargetValue, consistent: bool) -> tuple[Array, Array, dict[str, Array]]:
    """The factors left [d_ff, 1] = u and right [1, d_model] = (z - W k) / (k . u) of the one request there is a target
    value for, and diagnostics.

    An update that is not finite is returned as zero and flagged `finite` false: a collapsed model is not poisoned
    further, and the failure is on record.
    """
    target = jax.tree.map(lambda part: part[0], target)
    key_star = jnp.mean(target.keys, axis=0)
    u = jnp.matmul(inverse, key_star, precision="highest")
    u = u / jnp.linalg.norm(u)
    key, output = (key_star, jnp.mean(target.values, axis=0)) if consistent else (target.keys[0], target.values[0])
    denominator = jnp.dot(key, u, precision="highest")
    right = (target.value - output) / denominator
    finite = jnp.all(jnp.isfinite(right)) & jnp.all(jnp.isfinite(u))
    left, right = jnp.where(finite, u, 0.0), jnp.where(finite, right, 0.0)
    first, last, evaluated = loss_span(target.losses)
    diagnostics = {
        "loss_first": first,
        "loss_last": last,
        "steps": evaluated,
        "probability": target.probability,
        "delta_norm": jnp.linalg.norm(target.delta),
        "update_norm": jnp.linalg.norm(left) * jnp.linalg.norm(right),
        "denominator": denominator,
        "finite": finite,
    }
    return left[:, None], right[None, :], diagnostics
