"""A layer read out of the stack: what a loop that runs it often, forwards and backwards, reads instead.

A product x W of few rows costs about what it takes to read W, and a CPU's matrix products read W [d_in, d_out] faster
in x W than in the gradient g W^T. So a layer that is differentiated again and again keeps its kernels turned, too.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from prunejax.models.block import Block


class Opened(NamedTuple):
    """The parameters of one layer, and its kernels turned [d_out, d_in] by projection, or none of them."""

    parameters: nnx.State
    turned: Mapping[str, Array]


def read_layer(stack: nnx.State, number: Array | int) -> nnx.State:
    """The parameters of one layer of the stack."""
    return jax.tree.map(lambda p: jax.lax.dynamic_index_in_dim(p, number, keepdims=False), stack)


def open_layer(stack: nnx.State, number: int, *, turned: bool) -> Opened:
    """One layer of the stack, with its kernels turned beside it or without."""
    parameters = read_layer(stack, number)
    kernels = {name: part["kernel"][...] for name, part in parameters.items() if turned and "kernel" in part}
    return Opened(parameters, {name: kernel.T for name, kernel in kernels.items()})


def layer_at(stack: nnx.State, number: Array | int, opened: Mapping[int, Opened] | None) -> Opened:
    """A layer as it was opened before, or else as it is read out of the stack now."""
    known = isinstance(number, int) and number in (opened or {})
    return opened[number] if known else Opened(read_layer(stack, number), {})


def block_of(graph: nnx.GraphDef, opened: Opened, edited: Mapping[str, Array]) -> Block:
    """The layer as a module, with `edited` kernels by projection in the place of its own."""
    block = nnx.merge(graph, jax.tree.map(lambda p: p, opened.parameters))  # never written into `opened` itself
    for name, kernel in edited.items():
        own = getattr(block, name).kernel
        own.set_value(kernel.astype(own.dtype))
    for name, kernel in opened.turned.items():
        if name not in edited:
            getattr(block, name).dot_general = partial(_dot_general, kernel)
    return block


def _dot_general(turned: Array, x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """A projection's product, in the place of `jax.lax.dot_general`."""
    return _product(x, kernel, turned)


@jax.custom_vjp
def _product(x: Array, kernel: Array, turned: Array) -> Array:
    del turned
    return jnp.matmul(x, kernel)


_product.defvjp(
    lambda x, kernel, turned: (_product(x, kernel, turned), turned),
    lambda turned, gradient: (jnp.matmul(gradient, turned), None, None),
)
