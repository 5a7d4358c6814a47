"""Log-probabilities at few places of a large vocabulary, and their gradient, in one pass over the output matrix.

The gradient of log sum_v exp(x . w_v) is sum_v p_v w_v: it needs the matrix W again, weighed by probabilities. Summed
up beside the exponentials, part by part of the vocabulary and rescaled whenever a larger logit turns up, it needs each
part only while that is at hand, and no [C, V] array of logits is ever made.

Dimensions: C places, n of them compared with another distribution q, V words, P words of a part.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

PART = 1024
"""Words of a part on a CPU, whose caches hold so many; elsewhere, and on a mesh, the whole vocabulary is one part."""


class Output(NamedTuple):
    """The output matrix [V, d_model], or [d_model, V] where `axis`, its axis of words, is 1, and its bias [V]."""

    kernel: Array
    bias: Array | None
    axis: int


class Said(NamedTuple):
    """normalizer [C] = log sum_v exp(l_v) in nats; of the compared places cross [n] = sum_v p_v (l_v - log q_v), and
    logits [n, V] l_v; top [C] = max_v l_v. No gradient goes through the last two. KL(p || q) = cross - normalizer."""

    normalizer: Array
    cross: Array
    logits: Array
    top: Array


def said(x: Array, output: Output, compared: Array, log_q: Array) -> Said:
    """What the normalised streams x [C, d_model] say: float32. `compared` int32 [n] are places, log_q [n, V]."""
    return _said(x, output.kernel, output.bias, compared, log_q, output.axis)


def logit_of(x: Array, output: Output, words: Array) -> Array:
    """The logits [C] of one word [C] each at x [C, d_model], float32."""
    kernel, bias, axis = output
    rows = jnp.moveaxis(jnp.take(kernel, words, axis=axis), axis, 0)
    logits = jnp.sum(x.astype(jnp.float32) * rows.astype(jnp.float32), axis=1)
    return logits if bias is None else logits + bias[words]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _said(x: Array, kernel: Array, bias: Array | None, compared: Array, log_q: Array, axis: int) -> Said:
    return _pass(x, kernel, bias, compared, log_q, axis)[0]


def _part(size: int) -> int:
    alone = jax.default_backend() == "cpu" and jax.sharding.get_abstract_mesh().empty
    return min(PART, size) if alone else size


def _pass(
    x: Array, kernel: Array, bias: Array | None, compared: Array, log_q: Array, axis: int
) -> tuple[Said, tuple[Array, ...]]:
    """What is said, and what its gradient in x is made of: sum_v p_v w_v [C, d_model], the gradient of cross [n,
    d_model], `compared`, and x for its dtype."""
    size = kernel.shape[axis]
    part = _part(size)
    count = -(-size // part)
    across, back = (((1,), (1 - axis,)), ((), ())), (((1,), (axis,)), ((), ()))

    def cut(array: Array, start: Array, axis: int) -> Array:
        return array if part == size else jax.lax.dynamic_slice_in_dim(array, start, part, axis)

    def step(carry: tuple, number: Array) -> tuple[tuple, Array]:
        top, total, cross, mean, weighed = carry
        start = jnp.minimum(number * part, size - part)  # the last part reaches back into the one before
        words = cut(kernel, start, axis)
        logits = jax.lax.dot_general(x, words, across, preferred_element_type=jnp.float32)
        if bias is not None:
            logits = logits + cut(bias, start, 0)
        mine = logits[compared]
        new = start + jnp.arange(part) >= number * part
        logits = jnp.where(new, logits, -jnp.inf)
        above = jnp.maximum(top, logits.max(axis=1))
        shrink, mass = jnp.exp(top - above), jnp.exp(logits - above[:, None])
        other = cut(log_q, start, 1)
        apart = jnp.where(new, mass[compared] * (mine - other), 0.0)
        both = jax.lax.dot_general(
            jnp.concatenate([mass, apart]).astype(words.dtype), words, back, preferred_element_type=jnp.float32
        )
        mean = mean * shrink[:, None] + both[: len(x)]
        weighed = weighed * shrink[compared][:, None] + both[len(x) :]
        cross = cross * shrink[compared] + apart.sum(axis=1)
        return (above, total * shrink + mass.sum(axis=1), cross, mean, weighed), mine

    c, n, d = len(x), len(compared), x.shape[1]
    zero = (jnp.full(c, -jnp.inf), jnp.zeros(c), jnp.zeros(n), jnp.zeros((c, d)), jnp.zeros((n, d)))
    (top, total, cross, mean, weighed), logits = jax.lax.scan(step, zero, jnp.arange(count))
    whole = jnp.swapaxes(logits[:-1], 0, 1).reshape(n, -1)
    logits = jnp.concatenate([whole, logits[-1][:, count * part - size :]], axis=1)
    mean, weighed, cross = mean / total[:, None], weighed / total[compared][:, None], cross / total[compared]
    slope = weighed + (1 - cross)[:, None] * mean[compared]
    return Said(top + jnp.log(total), cross, logits, top), (mean, slope, compared, x)


def _backward(axis: int, kept: tuple[Array, ...], gradient: Said) -> tuple[Array, None, None, None, None]:
    mean, slope, compared, x = kept
    dx = gradient.normalizer[:, None] * mean
    dx = dx.at[compared].add(gradient.cross[:, None] * slope)
    return dx.astype(x.dtype), None, None, None, None


_said.defvjp(_pass, _backward)
