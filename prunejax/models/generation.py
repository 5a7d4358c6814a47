"""Text from a model: greedy completions and top-k samples, decoded on the device with a key and value cache.

Prompts of similar length share a batch, and weights are arguments: the loop compiles once a shape, for every edited
version of a model.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from prunejax.errors import InputError
from prunejax.mesh import on_host
from prunejax.tokens import pad_right

if TYPE_CHECKING:
    from prunejax.models.forward import Forward

STEP = 8
"""Prompts whose lengths round up to the same multiple of this share their batches, and completions are given room in
multiples of it."""

MOST_ROWS, TOKENS, CACHE = 64, 1536, 1 << 28
"""The most rows of a batch, half as many where their prompts have more than so many tokens (a processor's cache then
holds what a layer computes of them), and about how many bytes its cache takes at most."""


def greedy(
    forward: "Forward",
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Sequence[int] = (),
) -> list[list[int] | None]:
    """The arg-max continuation of every prompt, as ids: up to its first token in `stop`, that token included, or
    `max_new_tokens` of them. None where the logits became NaN: a collapsed model has no continuation.

    Ties go to the lower id. The batch a prompt falls into moves its logits by rounding alone. InputError if a prompt is
    empty, or has no room for `max_new_tokens` more in the model's positions.
    """
    return _decode(forward, prompts, max_new_tokens, stop, top_k=1, seed=0)


def sample(forward: "Forward", prompt: Sequence[int], n_tokens: int, top_k: int, seed: int) -> list[int]:
    """`n_tokens` ids that continue the prompt, each drawn from the softmax over the `top_k` likeliest.

    Reproducible by seed on one machine and jax version; store what was drawn, do not count on drawing it again.
    InputError as for `greedy`, and if the model's logits are NaN.
    """
    (drawn,) = _decode(forward, [prompt], n_tokens, (), top_k, seed)
    if drawn is None:
        raise InputError("sampling: the model's logits are NaN; sample from a model that has not collapsed")
    return drawn


def _decode(
    forward: "Forward",
    prompts: Sequence[Sequence[int]],
    n_new: int,
    stop: Sequence[int],
    top_k: int,
    seed: int,
) -> list[list[int] | None]:
    longest, shortest = max(map(len, prompts), default=0), min(map(len, prompts), default=1)
    if shortest == 0:
        raise InputError("generation: a prompt has no tokens; give it at least one")
    if longest + n_new > forward.n_positions:
        raise InputError(
            f"generation: a prompt of {longest} tokens and {n_new} more do not fit into the model's "
            f"{forward.n_positions} positions; shorten one of them"
        )
    room, limit = -(-n_new // STEP) * STEP, jnp.int32(n_new)
    stops, key = jnp.asarray(stop, jnp.int32), jax.random.key(seed)
    pending = [
        (members, decode(forward, *pad_right(chunk, width), limit, stops, key, room=room, top_k=top_k))
        for members, chunk, width in _batches(prompts, partial(_most_rows, forward, room))
    ]
    completions: dict[int, list[int] | None] = {}
    for members, result in pending:
        generated, broken = map(on_host, result)
        for b, member in enumerate(members):
            completions[member] = None if broken[b] else generated[b][generated[b] >= 0].tolist()
    return [completions[i] for i in range(len(prompts))]


def _most_rows(forward: "Forward", room: int, width: int) -> int:
    """How many rows of such a width make a batch: at least one."""
    arrays = jax.tree.leaves(jax.eval_shape(lambda: forward.new_cache(1, width + room)))
    fit = CACHE // max(sum(x.size * x.dtype.itemsize for x in arrays), 1)
    return max(1, min(max(TOKENS // width, MOST_ROWS // 2), MOST_ROWS, fit))


def _batches(
    prompts: Sequence[Sequence[int]], most_rows: Callable[[int], int]
) -> Iterator[tuple[list[int], list[Sequence[int]], int]]:
    """Which prompts, they themselves, and their common width, that of the longest, or for a prompt that is alone a
    multiple of STEP; `most_rows` of a width at most share a batch. All batches of a width have as many rows, empty ones
    among them."""
    widths: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        widths[-(-len(prompt) // STEP) * STEP].append(i)
    for rounded, members in sorted(widths.items()):
        width = max(len(prompts[i]) for i in members) if len(members) > 1 else rounded
        rows = -(-len(members) // -(-len(members) // most_rows(width)))
        for first in range(0, len(members), rows):
            chunk = members[first : first + rows]
            yield chunk, [prompts[i] for i in chunk] + [()] * (rows - len(chunk)), width


class _Loop(NamedTuple):
    """After `step` tokens: the last [B], generated ids [B, room], -1 after the end, and who is done or broken [B]."""

    step: Array
    token: Array
    cache: Any
    generated: Array
    done: Array
    broken: Array


@partial(jax.jit, static_argnames=("room", "top_k"))
def decode(
    forward: "Forward", tokens: Array, positions: Array, limit: Array, stop: Array, key: Array, *, room: int, top_k: int
) -> tuple[Array, Array]:
    """Generated ids int32 [B, room], -1 after each row's end, and bool [B]: whether NaN logits made that end.

    tokens, positions: prompts [B, T], padding (position -1) on either side; a row of padding alone generates nothing.
    """
    n_rows, width = tokens.shape
    lengths = jnp.max(positions, axis=1) + 1

    def choose(logits: Array, step: Array) -> Array:
        if top_k == 1:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        best, ids = jax.lax.top_k(logits, top_k)
        drawn = jax.random.categorical(jax.random.fold_in(key, step), best)
        return jnp.take_along_axis(ids, drawn[:, None], axis=1)[:, 0]

    def record(loop: _Loop, logits: Array) -> _Loop:
        broken = loop.broken | (~loop.done & jnp.isnan(logits).any(axis=-1))
        over = loop.done | broken
        token = choose(logits, loop.step)
        generated = loop.generated.at[:, loop.step].set(jnp.where(over, -1, token))
        done = over | jnp.isin(token, stop) | (loop.step + 1 >= limit)
        return _Loop(loop.step + 1, token, loop.cache, generated, done, broken)

    def advance(loop: _Loop) -> _Loop:
        here = jnp.where(loop.done, -1, lengths + loop.step - 1)
        logits, cache = forward(loop.token[:, None], here[:, None], loop.cache)
        return record(loop._replace(cache=cache), logits[:, 0])

    last = jnp.argmax(positions, axis=1)[:, None]
    logits, cache = forward(tokens, positions, forward.new_cache(n_rows, width + room), last)
    none = jnp.zeros(n_rows, bool)
    blank = jnp.full((n_rows, room), -1, jnp.int32)
    start = _Loop(jnp.int32(0), blank[:, 0], cache, blank, lengths == 0, none)
    end = jax.lax.while_loop(lambda loop: ~loop.done.all(), advance, record(start, logits[:, 0]))
    return end.generated, end.broken
