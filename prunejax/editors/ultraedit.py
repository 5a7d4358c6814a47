"""UltraEdit: one backward pass a batch, features normalised over the run so far, one ridge solve a matrix (Gu et al.
2025)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from prunejax.contexts import Contexts
from prunejax.editors.editor import Diagnostics, Editor, State
from prunejax.editors.gradient import Lines, gradient_factors, lines, token_nll
from prunejax.editors.hypernetwork import Place
from prunejax.editors.moments import Moments
from prunejax.editors.settings import edited_tensors
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder, Overrides
from prunejax.requests import EditRequest
from prunejax.tokens import tokenize_completion
from prunejax.update import LowRank

TINY = 1e-7
"""Kept from the released code: what a divisor is raised by."""


@dataclass(frozen=True)
class UltraEditSettings:
    """Settings of UltraEdit: `lr` scales the values that are written (their 1e-6), `key_ridge` is the ridge of the
    solve. The default layers are its authors' for GPT-J."""

    layers: tuple[int, ...] = (18, 19, 20, 21, 22, 23, 24, 25, 26)
    lr: float = 1e-6
    key_ridge: float = 1.0

    def __post_init__(self) -> None:
        if list(self.layers) != sorted(set(self.layers)) or not self.layers:
            raise InputError(f"layers {list(self.layers)}: name each once, in order")
        if self.lr <= 0 or self.key_ridge <= 0:
            raise InputError("lr and key_ridge must be above 0")


class Normal(NamedTuple):
    """Running statistics of the features of all matrices, which share a shape: how many tokens (each matrix counts its
    own), their mean [d_in + d_out], and the sum of squares about it as the released code adds it up."""

    count: Array
    mean: Array
    squares: Array


class Answers(NamedTuple):
    """A batch: its lines, and which of the n (T - 1) tokens predict one of the answers', [N], those in `real`."""

    rows: Lines
    index: Array
    real: Array


def ultraedit(settings: UltraEditSettings) -> Editor:
    """The editor dW = H^T (H H^T + a I)^-1 V for each matrix, all at once: N answer tokens, not d_in, are solved for.

    H [N, d_in] are the keys at the tokens that predict an answer's, G [N, d_out] the gradients of the loss in what the
    matrix says there, v_i = -lr ||h^_i||^2 g^_i, with h^ and g^ standardised by the mean and deviation over all tokens
    and matrices of the run so far, this batch included. The loss is the mean over the batch's answer tokens; the
    deviation takes its scale out again. No subject, no contexts, no second moment.

    Misleads: the statistics of a few tokens say little, and of a single one nothing: the first edit of a run that edits
    one by one does nothing where its answer is one token. Published with batches of 100.
    """
    places = tuple((layer, "down") for layer in settings.layers)

    def tensors(model: Model) -> tuple[str, ...]:
        return edited_tensors(model, settings.layers)

    def prepare(model: Model, requests: Sequence[EditRequest], contexts: Contexts, batch: int) -> list[Answers]:
        read = [tokenize_completion(model.tokenizer, r.full_prompt, r.target_new) for r in requests]
        width, most = max(len(one.ids) for one in read), max(len(one.ids) - one.answer_start for one in read)
        parts = [lines(read[start : start + batch], width) for start in range(0, len(read), batch)]
        return [answers(rows, most) for rows in parts]

    def init(model: Model, moments: Moments | None, room: int) -> State:
        del moments, room
        zeros = jnp.zeros(model.config.d_ff + model.config.d_model)
        tensors(model)
        return State(None, Normal(jnp.float32(0), zeros, zeros))

    def step(
        model: Model, state: State, batch: Answers, rng: Any
    ) -> tuple[dict[str, LowRank], None, State, Diagnostics]:
        del rng  # nothing is drawn
        updates, normal, diagnostics = ultraedit_update(
            model.decoder, model.overrides, state.carried, batch, places, settings
        )
        return dict(zip(tensors(model), updates, strict=True)), None, State(None, normal), diagnostics

    return Editor(tensors, prepare, init, step)


def answers(rows: Lines, most: int) -> Answers:
    """The tokens that predict an answer's, `most` a line, those that a line lacks not real."""
    learned = np.asarray(rows.learned[:, 1:])
    columns = np.argsort(~learned, axis=1, kind="stable")[:, :most]
    index = columns + np.arange(len(learned))[:, None] * learned.shape[1]
    return Answers(rows, index.reshape(-1).astype(np.int32), np.take_along_axis(learned, columns, axis=1).reshape(-1))


@partial(jax.jit, static_argnames=("places", "settings"))
def ultraedit_update(
    decoder: Decoder,
    overrides: Overrides,
    normal: Normal,
    batch: Answers,
    places: tuple[Place, ...],
    settings: UltraEditSettings,
) -> tuple[list[LowRank], Normal, dict[str, Array]]:
    """An update a matrix, left [d_in, N] and right [N, d_out], the statistics with the batch in them, and diagnostics;
    zero, not counted and flagged `finite` false if anything is not finite."""
    loss, factors = gradient_factors(decoder, overrides, batch.rows, places, token_nll)
    each = [[jnp.where(batch.real[:, None], part[batch.index], 0.0) for part in factors[place]] for place in places]
    counted = normal
    for features in each:
        counted = normal_with(counted, jnp.concatenate(features, axis=1), batch.real)
    updates = [ridge_update(*features, counted, batch.real, settings) for features in each]
    finite = jnp.isfinite(loss) & jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for u in updates for p in u]))
    updates = [LowRank(*(jnp.where(finite, part, 0.0) for part in update)) for update in updates]
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), counted, normal)
    sizes = [jnp.sum((u.left.T @ u.left) * (u.right @ u.right.T)) for u in updates]
    norm = jnp.sqrt(jnp.sum(jnp.stack(sizes)) / len(batch.rows.tokens))
    return updates, kept, {"loss_first": loss, "loss_last": loss, "update_norm": norm, "finite": finite}


def normal_with(normal: Normal, features: Array, real: Array) -> Normal:
    """The statistics with the real rows of features [N, d_in + d_out]. As released, a batch of n adds n times its
    unbiased variance, and n n_before / n_now times the square of how far its mean is off."""
    n = jnp.sum(real)
    mean = jnp.sum(jnp.where(real[:, None], features, 0.0), axis=0) / n
    about = jnp.where(real[:, None], features - mean, 0.0)
    variance = jnp.sum(about**2, axis=0) / jnp.maximum(n - 1, 1)
    count = normal.count + n
    away = mean - normal.mean
    squares = normal.squares + n * variance + away**2 * normal.count * n / count
    return Normal(count, normal.mean + away * n / count, squares)


def ridge_update(keys: Array, gradients: Array, normal: Normal, real: Array, settings: UltraEditSettings) -> LowRank:
    """H^T (H H^T + a I)^-1 V, in its dual form; rows that are not real are 0."""
    with jax.default_matmul_precision("highest"):
        deviation = jnp.sqrt(normal.squares / (normal.count - 1 + TINY))
        both = (jnp.concatenate([keys, gradients], axis=1) - normal.mean) / (deviation + TINY)
        hats = jnp.where(real[:, None], both, 0.0)
        key_hats, gradient_hats = hats[:, : keys.shape[1]], hats[:, keys.shape[1] :]
        values = -settings.lr * jnp.sum(key_hats**2, axis=1, keepdims=True) * gradient_hats
        left = jnp.linalg.solve(keys @ keys.T + settings.key_ridge * jnp.eye(len(keys)), keys)
        return LowRank(left.T, values)
