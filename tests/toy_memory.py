"""A toy editor that answers from memory: the least that shows what such an editor is, for the contract suite."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from prunejax.contexts import Contexts, no_contexts
from prunejax.editors import EditorRow
from prunejax.editors.editor import Editor, State
from prunejax.editors.moments import Moments
from prunejax.models.checkpoints import Model
from prunejax.models.forward import Forward, forward_of
from prunejax.requests import EditRequest
from prunejax.tokens import tokenize_completion


@dataclass(frozen=True)
class ToySettings:
    """`push`: what is added to the logit of a remembered token, in nats."""

    push: float = 20.0


def toy(settings: ToySettings) -> Editor:
    """After a token it has seen before in a target or right before one, it says what followed: the memory is a matrix
    [V, V] of what is added to logits, by token."""

    def prepare(model: Model, requests: Sequence[EditRequest], contexts: Contexts, batch: int) -> list[Array]:
        pairs = []
        for request in requests:
            read = tokenize_completion(model.tokenizer, request.prompt.format(request.subject), request.target_new)
            places = range(read.answer_start, len(read.ids))
            pairs.append([(read.ids[place - 1], read.ids[place]) for place in places])
        longest = max(map(len, pairs))
        padded = jnp.array([[*pair, *[pair[0]] * (longest - len(pair))] for pair in pairs])
        return [padded[start : start + batch] for start in range(0, len(padded), batch)]

    def init(model: Model, moments: Moments | None, room: int) -> State:
        size = model.config.vocab_size
        return State(None, jnp.zeros((size, size)))

    def step(model: Model, state: State, batch: Array, rng: Any) -> tuple[dict, Array, State, dict]:
        memory = state.carried.at[batch[..., 0], batch[..., 1]].set(settings.push)
        return {}, memory, State(None, memory), {"loss_first": 0.0, "loss_last": 0.0, "finite": True}

    def answer(model: Model, memory: Array | None) -> Forward:
        inner = forward_of(model)
        return inner if memory is None else Forward(run, empty_cache, inner.n_positions, (inner, memory))

    return Editor(lambda model: (), prepare, init, step, answer=answer)


def run(weights: tuple[Forward, Array], tokens: Array, positions: Array, cache: Any, columns: Array | None) -> tuple:
    """The model's logits, and what memory adds to them."""
    inner, memory = weights
    logits, cache = inner(tokens, positions, cache, columns)
    return logits + memory[tokens if columns is None else jnp.take_along_axis(tokens, columns, axis=1)], cache


def empty_cache(weights: tuple[Forward, Array], rows: int, capacity: int) -> Any:
    """The model's own."""
    return weights[0].new_cache(rows, capacity)


TOY = EditorRow("remembers which token follows which", ToySettings, toy, no_contexts)
