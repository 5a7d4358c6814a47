"""What a machine's matrix products reach at given shapes, and which share of that a piece of work reaches."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.clock import repeated

LEAST = 0.35
"""The share of its own matrix-product rate below which the PyTorch side is not worth comparing with."""


class Work(NamedTuple):
    """Floating-point operations done in products [m, k] @ [k, n]."""

    flops: float
    shape: tuple[int, int, int]


class Reached(NamedTuple):
    """GFLOP of a piece of work, GFLOP/s of bare products of its shapes (each shape's rate weighed by the time that its
    operations take at it), and the share of that rate that was reached."""

    gflop: float
    rate_gflops: float
    fraction: float


class Refusal(Exception):
    """A comparison that would be unfair; its line says why."""


def reached(works: Sequence[Work], rate: Callable[[tuple[int, int, int]], float], seconds: float) -> Reached:
    """How a piece of work that took `seconds` compares with bare products; `rate` gives FLOP/s of a shape."""
    total = sum(work.flops for work in works)
    at_best = sum(work.flops / rate(work.shape) for work in works)
    return Reached(total / 1e9, total / at_best / 1e9, at_best / seconds)


def refuse_below(case: str, fraction: float, least: float = LEAST) -> None:
    """Refusal where the PyTorch side was slower than a comparison deserves."""
    if fraction < least:
        raise Refusal(
            f"{case}: PyTorch reached {fraction:.0%} of its own matrix-product rate, under {least:.0%}, so there is no "
            "comparison; is the machine busy?"
        )


def jax_rate(shape: tuple[int, int, int], dtype: str = "float32") -> float:
    """FLOP/s of a jitted product of this shape, in full precision."""
    import jax
    import jax.numpy as jnp

    m, k, n = shape
    left, right = (jax.random.normal(jax.random.key(i), size, dtype) for i, size in enumerate(((m, k), (k, n))))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))
    return 2 * m * k * n / repeated(lambda: product(left, right).block_until_ready())


def torch_rate(shape: tuple[int, int, int], dtype: str = "float32") -> float:
    """FLOP/s of a product of this shape in PyTorch."""
    import torch

    m, k, n = shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, dtype=getattr(torch, dtype), device=device) for size in ((m, k), (k, n)))

    def product() -> None:
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * m * k * n / repeated(product)
