"""What the output matrix says, part by part, against the softmax of all logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracles import distance
from prunejax.models import vocabulary
from prunejax.models.vocabulary import Output, logit_of, said

C, D, V = 5, 8, 20
COMPARED = np.array([4, 1], np.int32)
WORDS = np.array([3, 19, 0, 13, 14], np.int32)


@pytest.fixture(params=["tied", "apart", "with bias"])
def output(request: pytest.FixtureRequest) -> Output:
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(V, D)).astype(np.float32), rng.normal(size=V).astype(np.float32)
    if request.param == "tied":
        return Output(jnp.asarray(kernel), None, 0)
    return Output(jnp.asarray(kernel.T), jnp.asarray(bias) if request.param == "with bias" else None, 1)


@pytest.fixture
def x() -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(C, D)), jnp.float32)


@pytest.fixture
def log_q() -> jax.Array:
    return jax.nn.log_softmax(jnp.asarray(np.random.default_rng(2).normal(size=(2, V)), jnp.float32))


def all_logits(x: jax.Array, output: Output) -> jax.Array:
    logits = x @ (output.kernel.T if output.axis == 0 else output.kernel)
    return logits if output.bias is None else logits + output.bias


def whole(x: jax.Array, output: Output, log_q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log p of the words, and KL(p || q)."""
    log_p = jax.nn.log_softmax(all_logits(x, output))
    mine = log_p[COMPARED]
    return log_p[jnp.arange(C), WORDS], jnp.sum(jnp.exp(mine) * (mine - log_q), axis=1)


def in_parts(x: jax.Array, output: Output, log_q: jax.Array) -> tuple[jax.Array, jax.Array]:
    found = said(x, output, COMPARED, log_q)
    return logit_of(x, output, WORDS) - found.normalizer, found.cross - found.normalizer[COMPARED]


def slope(function: Callable, x: jax.Array, *given: object) -> jax.Array:
    """The gradient of a sum in which every number has a weight of its own."""

    def weighed(x: jax.Array) -> jax.Array:
        log_p, kl = function(x, *given)
        return log_p @ jnp.arange(1.0, C + 1) + kl @ jnp.array([-2.0, 5.0])

    return jax.grad(weighed)(x)


@pytest.mark.parametrize("part", [1, 7, 10, 20, 1024])
def test_parts_are_the_whole(output, x, log_q, part, monkeypatch):
    """Values, logits and gradient; parts that divide the vocabulary, that do not, and that are longer."""
    monkeypatch.setattr(vocabulary, "PART", part)
    for found, expected in zip(in_parts(x, output, log_q), whole(x, output, log_q), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    logits = said(x, output, COMPARED, log_q).logits
    np.testing.assert_allclose(logits, all_logits(x, output)[COMPARED], rtol=1e-5, atol=1e-6)
    assert distance(slope(in_parts, x, output, log_q), slope(whole, x, output, log_q)) < 1e-5


def test_large_logits_lose_nothing(output, x, log_q, monkeypatch):
    """In parts of which the later ones have the larger logits, or the smaller."""
    monkeypatch.setattr(vocabulary, "PART", 4)
    for order in (np.arange(V), np.arange(V)[::-1]):
        sizes = np.sign(order - V / 2) * 100.0 * (1 + order)
        loud = output._replace(kernel=output.kernel * (sizes[:, None] if output.axis == 0 else sizes))
        found, expected = in_parts(x, loud, log_q)[0], whole(x, loud, log_q)[0]
        assert np.isfinite(np.asarray(found)).all()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


def test_a_broken_place_breaks_itself_alone(output, x, log_q, monkeypatch):
    monkeypatch.setattr(vocabulary, "PART", 6)
    found = said(x.at[2].set(jnp.nan), output, COMPARED, log_q)
    assert np.isnan(found.normalizer).tolist() == [False, False, True, False, False]
    assert np.isfinite(found.cross).all()


def test_half_precision_is_read_in_float32(output, x, log_q):
    """Streams and matrix in bfloat16: what is said of them is that of their float32 copies, to rounding."""
    half = output._replace(kernel=output.kernel.astype(jnp.bfloat16))
    again = half._replace(kernel=half.kernel.astype(jnp.float32))
    short = x.astype(jnp.bfloat16)
    found = in_parts(short, half, log_q)
    assert {part.dtype for part in found} == {np.dtype("float32")}
    for part, expected in zip(found, whole(short.astype(jnp.float32), again, log_q), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-3, atol=1e-3)
    assert slope(in_parts, short, half, log_q).dtype == jnp.bfloat16
