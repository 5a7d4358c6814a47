"""The fullest moment of small programs, counted by hand."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from prunejax.liveness import temporary_bytes

N = 100
ONE = 4 * N * N
"""Bytes of a float32 [N, N]."""


def fullest(function: Callable, *shapes: tuple[int, ...]) -> float:
    """In units of ONE, beside the arguments."""
    arguments = [jax.ShapeDtypeStruct(shape or (N, N), jnp.float32) for shape in shapes]
    program = jax.jit(function).trace(*arguments).jaxpr.jaxpr
    return temporary_bytes(program, [(None,) * v.aval.ndim for v in program.invars], {}) / ONE


def chain(a):
    return a @ a @ a @ a


def all_kept(a):
    first = a @ a
    second = first @ a
    return first + second @ a


def written_over(a):
    return jnp.tanh(jnp.exp(a @ a) + 1) * 2


def transposed(a):
    return (a @ a).T


def viewed(a):
    return (a @ a).reshape(N * N)[None].reshape(N, N) @ a


def unused(a):
    _ = (a @ a) @ a
    return a @ a


def broadcast(a):
    return a @ jnp.zeros((N, N))


def scanned(a):
    return jax.lax.scan(lambda c, _: (c @ c, None), a, None, length=7)[0]


def stacked(a):
    return jax.lax.scan(lambda c, _: (c @ c, c), a, None, length=7)[1]


def stack_unused(a):
    return jax.lax.scan(lambda c, _: (c @ c, c), a, None, length=7)[0]


def read_by_two(a, stack):
    return jax.lax.scan(lambda c, x: (c @ x, None), a, stack, unroll=2)[0]


def joined(a):
    return jax.lax.scan(lambda c, _: (c @ c, c), a, None, length=7, unroll=2)[1]


def half_unused(a):
    return jax.lax.while_loop(lambda c: c[0][0, 0] < 1, lambda c: (c[0] @ c[1], c[1] @ c[0]), (a, a))[0]


def looped(a):
    return jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: (c @ c) @ c, a)


def branched(a):
    return jax.lax.cond(a[0, 0] < 1, lambda a: a @ a @ a, lambda a: a + 1, a)


def called(a):
    return jax.jit(all_kept)(a) @ a


@pytest.mark.parametrize(
    ("function", "shapes", "matrices"),
    [
        (chain, [()], 2),
        (all_kept, [()], 3),
        (written_over, [()], 1),
        (transposed, [()], 2),
        (viewed, [()], 2),
        (unused, [()], 1),
        (broadcast, [()], 1),
        (scanned, [()], 2),
        (stacked, [()], 1 + 7 + 1),
        (stack_unused, [()], 2),
        (read_by_two, [(), (8, N, N)], 1 + 2 + 1),
        (joined, [()], 1 + 7 + 7),
        (looped, [()], 1 + 2),
        (half_unused, [()], 2 + 2),
        (branched, [()], 2),
        (called, [()], 3),
    ],
)
def test_what_is_live_at_the_fullest_moment(function, shapes, matrices):
    assert fullest(function, *shapes) == pytest.approx(matrices, abs=0.01)


def test_half_precision_takes_half():
    half = jax.ShapeDtypeStruct((N, N), jnp.bfloat16)
    program = jax.jit(chain).trace(half).jaxpr.jaxpr
    assert temporary_bytes(program, [(None, None)], {}) == ONE


def test_on_a_mesh_a_device_holds_its_part():
    program = jax.jit(lambda a, b: a @ b).trace(*[jax.ShapeDtypeStruct((N, N), jnp.float32)] * 2).jaxpr.jaxpr
    assert temporary_bytes(program, [(None, None), (None, "model")], {"data": 1, "model": 4}) == ONE // 4
    assert temporary_bytes(program, [("data", None), (None, "model")], {"data": 5, "model": 4}) == ONE // 20
    assert temporary_bytes(program, [(None, "model"), ("model", None)], {"data": 1, "model": 4}) == ONE
