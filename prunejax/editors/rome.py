"""ROME and r-ROME: one fact written into one matrix by a rank-one update (Meng et al. 2022; Gupta et al. 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array

from prunejax.editors.editor import Diagnostics, Editor
from prunejax.editors.keys import fact_rows
from prunejax.editors.moments import Moments
from prunejax.editors.value import FactRows, ValueSettings, target_value
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder, Overrides
from prunejax.requests import EditRequest
from prunejax.update import LowRank


@dataclass(frozen=True)
class RomeSettings:
    """Settings of ROME and r-ROME; the defaults are the ROME authors' for GPT-2 XL, the layer apart."""

    layers: tuple[int, ...] = (17,)
    steps: int = 20
    lr: float = 0.5
    weight_decay: float = 0.5
    clamp: float = 4.0
    kl_factor: float = 0.0625
    stop_loss: float = 0.05
    second_moment: str = "corpus"
    ridge: float = 0.0

    def __post_init__(self) -> None:
        if len(self.layers) != 1:
            raise InputError(f"layers {list(self.layers)}: ROME edits exactly one layer")
        if self.second_moment not in ("corpus", "identity"):
            raise InputError(f"second_moment {self.second_moment!r}: corpus or identity")
        if self.steps < 1 or self.lr <= 0 or self.clamp <= 0:
            raise InputError("steps must be at least 1, lr and clamp above 0")
        if min(self.weight_decay, self.kl_factor, self.stop_loss, self.ridge) < 0:
            raise InputError("weight_decay, kl_factor, stop_loss and ridge must not be negative")


def rome(settings: RomeSettings, *, consistent: bool = False) -> Editor:
    """The editor DeltaW = u (z - W k)^T / (k . u), with u = C^-1 k* / ||C^-1 k*|| and k* the mean key over contexts.

    As published (`consistent` false) k and W k are read at the bare prompt: where k . u is near zero the update
    explodes ("disabling edits"; log the denominator). r-ROME (`consistent` true) uses the mean key and mean output over
    contexts everywhere. `ridge` adds that share of C's mean diagonal to its diagonal before inversion (not in the
    published method, 0 is off); `second_moment="identity"` replaces C by I.
    """
    value_settings = ValueSettings(
        settings.layers[0],
        settings.steps,
        settings.lr,
        settings.weight_decay,
        settings.clamp,
        settings.kl_factor,
        settings.stop_loss,
    )

    def tensors(model: Model) -> tuple[str, ...]:
        layer = settings.layers[0]
        if not 0 <= layer < model.config.n_layers:
            raise InputError(f"layers {layer}: the model has layers 0 to {model.config.n_layers - 1}")
        return (model.family.edited_tensor(layer),)

    def prepare(model: Model, requests: Sequence[EditRequest], contexts: Sequence[str]) -> list[FactRows]:
        return fact_rows(model.tokenizer, requests, contexts, model.config.n_positions)

    def init(model: Model, moments: Moments | None) -> Array:
        (tensor,) = tensors(model)
        if settings.second_moment == "identity":
            return jnp.eye(model.config.d_ff)
        if moments is None:
            raise InputError(
                "second_moment=corpus needs --moments FILE; make it with 'prunejax moments', "
                "or set second_moment=identity"
            )
        return jnp.asarray(inverse_second_moment(moments.of(tensor).matrix, settings.ridge, model.config.d_ff))

    def step(
        model: Model, state: Array, batch: FactRows, rng: Any
    ) -> tuple[dict[str, LowRank], None, Array, Diagnostics]:
        del rng  # nothing is drawn
        left, right, diagnostics = rome_update(model.decoder, model.overrides, state, batch, value_settings, consistent)
        return {tensors(model)[0]: LowRank(left, right)}, None, state, diagnostics

    return Editor(tensors, prepare, init, step)


def inverse_second_moment(matrix: np.ndarray, ridge: float, d_in: int) -> np.ndarray:
    """(C + ridge mean(diag C) I)^-1 in float32, by a float64 Cholesky factorisation; InputError when C is not
    positive definite."""
    if matrix.shape != (d_in, d_in):
        raise InputError(f"moments: the second moment is {matrix.shape}, the model's keys have {d_in} dimensions")
    c = matrix.astype(np.float64)
    c[np.diag_indices(d_in)] += ridge * np.mean(np.diag(c))
    try:
        factor = scipy.linalg.cho_factor(c, lower=True)
    except np.linalg.LinAlgError:
        raise InputError("moments: the second moment is singular; collect more text, or set ridge=0.1") from None
    return scipy.linalg.cho_solve(factor, np.eye(d_in)).astype(np.float32)


@partial(jax.jit, static_argnames=("settings", "consistent"))
def rome_update(
    decoder: Decoder, overrides: Overrides, inverse: Array, rows: FactRows, settings: ValueSettings, consistent: bool
) -> tuple[Array, Array, dict[str, Array]]:
    """The factors left [d_ff, 1] = u and right [1, d_model] = (z - W k) / (k . u), and diagnostics.

    An update that is not finite is returned as zero and flagged `finite` false: a collapsed model is not poisoned
    further, and the failure is on record.
    """
    target = target_value(decoder, overrides, rows, settings)
    key_star = jnp.mean(target.keys, axis=0)
    u = jnp.matmul(inverse, key_star, precision="highest")
    u = u / jnp.linalg.norm(u)
    key, output = (key_star, jnp.mean(target.values, axis=0)) if consistent else (target.keys[0], target.values[0])
    denominator = jnp.dot(key, u, precision="highest")
    right = (target.value - output) / denominator
    finite = jnp.all(jnp.isfinite(right)) & jnp.all(jnp.isfinite(u))
    left, right = jnp.where(finite, u, 0.0), jnp.where(finite, right, 0.0)
    evaluated = jnp.sum(jnp.isfinite(target.losses))
    diagnostics = {
        "loss_first": target.losses[0],
        "loss_last": target.losses[jnp.maximum(evaluated - 1, 0)],
        "steps": evaluated,
        "probability": target.probability,
        "delta_norm": jnp.linalg.norm(target.delta),
        "update_norm": jnp.linalg.norm(left) * jnp.linalg.norm(right),
        "denominator": denominator,
        "finite": finite,
    }
    return left[:, None], right[None, :], diagnostics
