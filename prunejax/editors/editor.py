"""What an editor is: pure functions in a NamedTuple, its settings closed over by a factory."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from prunejax.contexts import Contexts
from prunejax.editors.moments import Moments
from prunejax.models.checkpoints import Model
from prunejax.models.forward import Forward, forward_of
from prunejax.requests import EditRequest
from prunejax.update import Update

Diagnostics = Mapping[str, Any]
"""What an editor reports of each edit of a batch, scalars or [n]: losses in nats, norms, the denominator, whether all
was finite."""


class State(NamedTuple):
    """What an editor's steps read: `fixed`, made once a run, and `carried`, what each edit leaves for the next, a
    pytree of arrays that is stored with a run; () for an editor that remembers nothing."""

    fixed: Any
    carried: Any = ()


def model_alone(model: Model, memory: Any) -> Forward:
    """Answers that come from the weights."""
    del memory
    return forward_of(model)


def anywhere(state: State, updates: Mapping[str, Update]) -> Mapping[str, Update]:
    """Updates that may write in any direction."""
    del state
    return updates


def as_it_is(carried: Any) -> Any:
    """All that an editor carries."""
    return carried


class Editor(NamedTuple):
    """An editing method with its settings.

    `tensors(model)`: the names of the tensors it writes. `prepare(model, requests, contexts, size)`: the batches of so
    many requests, the last one perhaps smaller, tokenised ahead and of few shapes. `init(model, moments, room)`: its
    state, with room for what so many edits leave. `step(model, state, batch, rng)`: updates by tensor name (a LowRank
    of a batch of n has n times as many columns as one edit, in the order of the requests), a memory or None, the next
    state, diagnostics. `answer(model, memory)`: the forward pass of a model that was edited so. `within(state,
    updates)`: updates that something changed, brought back to the directions that the editor writes in. `summed`:
    updates are matrices, of which a run keeps sums. `stored(carried)`: what it carries as it is stored, arrays perhaps
    cut to the leading part that differs from what `init` made. `choice`: what tells it from others of its kind, where a
    kind shares one step. `inputs`: SHA-256 of further files that it reads, by what they are.
    """

    tensors: Callable[[Model], tuple[str, ...]]
    prepare: Callable[[Model, Sequence[EditRequest], Contexts, int], list[Any]]
    init: Callable[[Model, Moments | None, int], State]
    step: Callable[[Model, State, Any, Any], tuple[Mapping[str, Update], Any, State, Diagnostics]]
    answer: Callable[[Model, Any], Forward] = model_alone
    within: Callable[[State, Mapping[str, Update]], Mapping[str, Update]] = anywhere
    summed: bool = False
    stored: Callable[[Any], Any] = as_it_is
    choice: Any = None
    inputs: Mapping[str, str] = MappingProxyType({})
