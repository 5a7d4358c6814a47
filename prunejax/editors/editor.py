"""What an editor is: pure functions in a NamedTuple, its settings closed over by a factory."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from prunejax.contexts import Contexts
from prunejax.editors.moments import Moments
from prunejax.models.checkpoints import Model
from prunejax.requests import EditRequest
from prunejax.update import Update

Diagnostics = Mapping[str, Any]
"""What an editor reports of each edit of a batch, scalars or [n]: losses in nats, norms, the denominator, whether all
was finite."""


class Editor(NamedTuple):
    """An editing method with its settings.

    `tensors(model)`: the names of the tensors it writes. `prepare(model, requests, contexts, size)`: the batches of so
    many requests, the last one perhaps smaller, tokenised ahead and of few shapes. `init(model, moments)`:
    its state. `step(model, state, batch, rng)`: updates by tensor name (a batch of n has rank n, a request a column),
    an optional memory, the next state, diagnostics. `inputs`: SHA-256 of further files that it reads, by what they are.
    """

    tensors: Callable[[Model], tuple[str, ...]]
    prepare: Callable[[Model, Sequence[EditRequest], Contexts, int], list[Any]]
    init: Callable[[Model, Moments | None], Any]
    step: Callable[[Model, Any, Any, Any], tuple[Mapping[str, Update], Any, Any, Diagnostics]]
    inputs: Mapping[str, str] = MappingProxyType({})
