"""MEND: one gradient step whose factors a trained hypernetwork has turned (Mitchell et al. 2022)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from prunejax.contexts import Contexts
from prunejax.editors.editor import Diagnostics, Editor, State
from prunejax.editors.gradient import Lines, gradient_factors, lines
from prunejax.editors.hypernetwork import Hypernetwork, Place, load_hypernetwork, misfit, places_of, transform
from prunejax.editors.moments import Moments
from prunejax.errors import InputError
from prunejax.files import is_file, sha256
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder, Overrides
from prunejax.requests import EditRequest
from prunejax.sources import find_network
from prunejax.tokens import tokenize_completion
from prunejax.update import LowRank


@dataclass(frozen=True)
class MendSettings:
    """Settings of MEND. `layers`: whose up and down projections are edited. `network`: the hypernetwork's file, trained
    for these layers, or "world" for the embedded model's. `scale` multiplies every step alpha (1, but 0.5 for Llama-3
    in the PRUNE repository)."""

    layers: tuple[int, ...] = (45, 46, 47)
    network: str = ""
    scale: float = 1.0

    def __post_init__(self) -> None:
        if list(self.layers) != sorted(set(self.layers)) or not self.layers:
            raise InputError(f"layers {list(self.layers)}: name each once, in order")
        if self.scale <= 0:
            raise InputError("scale must be above 0")


def mend(settings: MendSettings) -> Editor:
    """The editor dW = -scale alpha sum_i outer(u~_i, delta~_i) for each kernel (as [d_in, d_out]), over the tokens i of
    the prompt and its target; (u~, delta~) is what `transform` makes of the gradient's factors at the current weights.

    Nothing but the prompt is read: contexts and second moments do not matter. Rank at most the number of tokens.
    """
    places, file = places_of(settings.layers), find_network(settings.network)

    def tensors(model: Model) -> tuple[str, ...]:
        if strange := [layer for layer in settings.layers if not 0 <= layer < model.config.n_layers]:
            raise InputError(f"layers {strange[0]}: the model has layers 0 to {model.config.n_layers - 1}")
        return tuple(model.family.edited_tensor(*place) for place in places)

    def prepare(model: Model, requests: Sequence[EditRequest], contexts: Contexts, batch: int) -> list[Lines]:
        if batch != 1:
            raise InputError(f"batch {batch}: MEND edits one request at a time")
        asked = [tokenize_completion(model.tokenizer, r.full_prompt, r.target_new) for r in requests]
        width = max(len(one.ids) for one in asked)
        return [lines([one], width) for one in asked]

    def init(model: Model, moments: Moments | None, room: int) -> State:
        if not settings.network:
            raise InputError("network: none is named; make one with 'prunejax train-mend', then --set network=FILE")
        hypernetwork = load_hypernetwork(file)
        if tuple(hypernetwork.alpha) != places:
            trained = sorted({layer for layer, _ in hypernetwork.alpha})
            wanted = list(settings.layers)
            raise InputError(f"network {settings.network}: was trained for layers {trained}, not {wanted}")
        if wrong := misfit(hypernetwork, model.config.d_model + model.config.d_ff, len(settings.layers)):
            raise InputError(f"network {settings.network}: {wrong} has not the shape that this model needs")
        return State(hypernetwork)

    def step(model: Model, state: State, batch: Lines, rng: Any) -> tuple[dict[str, LowRank], None, State, Diagnostics]:
        del rng  # nothing is drawn
        updates, diagnostics = mend_update(model.decoder, model.overrides, state.fixed, batch, places, settings.scale)
        return dict(zip(tensors(model), updates, strict=True)), None, state, diagnostics

    return Editor(tensors, prepare, init, step, inputs={"network": sha256(file)} if is_file(file) else {})


@partial(jax.jit, static_argnames=("places", "scale"))
def mend_update(
    decoder: Decoder,
    overrides: Overrides,
    hypernetwork: Hypernetwork,
    rows: Lines,
    places: tuple[Place, ...],
    scale: float,
) -> tuple[list[LowRank], dict[str, Array]]:
    """An update a place, left [d_in, T - 1] and right [T - 1, d_out], and diagnostics; zero and flagged `finite` false
    if anything is not finite."""
    loss, factors = gradient_factors(decoder, overrides, rows, places)
    updates = list(edit_of(hypernetwork, factors, scale).values())
    finite = jnp.isfinite(loss) & jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for u in updates for p in u]))
    updates = [LowRank(*(jnp.where(finite, part, 0.0) for part in update)) for update in updates]
    sizes = [jnp.sum((u.left.T @ u.left) * (u.right @ u.right.T)) for u in updates]
    norm = jnp.sqrt(jnp.sum(jnp.stack(sizes)))
    return updates, {"loss_first": loss, "loss_last": loss, "update_norm": norm, "finite": finite}


def edit_of(
    hypernetwork: Hypernetwork, factors: Mapping[Place, tuple[Array, Array]], scale: float
) -> dict[Place, LowRank]:
    """The update of each place from its gradient's factors."""
    rows = {"up": 0, "down": 0}
    updates = {}
    for place, (u, delta) in factors.items():
        turned, written = transform(hypernetwork.networks[place[1]], rows[place[1]], u, delta)
        rows[place[1]] += 1
        updates[place] = LowRank(turned.T, -scale * hypernetwork.alpha[place] * written)
    return updates
