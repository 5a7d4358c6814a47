"""How values are divided: by hand for each kind of equation, and against what XLA's partitioner made of a model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from prunejax.division import layouts, layouts_of

TESTS = Path(__file__).parent


def results(function, *operands):
    """The layouts of a function's outputs; an operand is a shape and its layout."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape, _ in operands]
    program = jax.jit(function).trace(*shapes).jaxpr.jaxpr
    return layouts_of(program.outvars, layouts(program, [layout for _, layout in operands]))


def attention(query, key):
    return jnp.einsum("bthd,bshd->bhts", query.reshape(2, 3, 4, 8), key.reshape(2, 5, 4, 8))


def loop(x, stack):
    return jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), c[0]), x, stack)


def twice(x, up, down):
    return jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: (c @ up) @ down, x) @ up


D, M = "data", "model"


@pytest.mark.parametrize(
    ("function", "operands", "expected"),
    [
        (jnp.matmul, [((6, 4), (D, None)), ((4, 8), (None, M))], [(D, M)]),
        (jnp.matmul, [((6, 4), (D, M)), ((4, 8), (M, None))], [(D, None)]),
        (lambda a, b: a @ b.T, [((6, 4), (M, None)), ((8, 4), (M, None))], [(M, None)]),  # one axis, one division
        (attention, [((2, 3, 32), (D, None, M)), ((2, 5, 32), (D, None, M))], [(D, M, None, None)]),
        (lambda a, b: jnp.tanh(a) * b + 1, [((6, 4), (D, None)), ((6, 4), (None, M))], [(D, M)]),
        (lambda a: jnp.sum(a, axis=0), [((6, 4), (D, M))], [(M,)]),
        (lambda a: a[None].transpose(2, 0, 1)[:, 0], [((6, 4), (D, M))], [(M, D)]),
        (lambda a: a[:3], [((6, 4), (D, M))], [(None, M)]),
        (lambda a: a.reshape(2, 3, 4), [((6, 4), (D, M))], [(D, None, M)]),
        (lambda a: a.reshape(24), [((6, 4), (D, M))], [(D,)]),
        (lambda a: jnp.broadcast_to(a[:, None], (4, 6, 2)), [((6,), (M,))], [(None, M, None)]),
        (lambda a: a[jnp.array([1, 2])], [((6, 4), (M, None))], [(None, None)]),
        (lambda a: a[jnp.array([1, 2])], [((6, 4), (None, M))], [(None, M)]),
        (lambda a: a.at[1].add(1.0), [((6, 4), (None, M))], [(None, M)]),
        (loop, [((6, 4), (None, None)), ((3, 4, 4), (None, None, M))], [(None, M), (None, M)]),
        (twice, [((6, 4), (D, None)), ((4, 8), (None, M)), ((8, 4), (M, None))], [(D, M)]),
    ],
)
def test_each_kind_of_equation_hands_divisions_on(function, operands, expected):
    assert results(function, *operands) == expected


@pytest.mark.parametrize("mesh", ["data=1,model=4", "data=2,model=2", "data=4,model=1"])
def test_a_forward_pass_on_four_devices_takes_what_xlas_partitioner_gives_each(mesh):
    environment = os.environ | {
        "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    words = [sys.executable, TESTS / "plan_program.py", "forward", mesh]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout).values():
        assert found["arguments planned"] == pytest.approx(found["arguments"], rel=1e-3)
        assert found["planned"] == pytest.approx(found["xla"], rel=0.2)
