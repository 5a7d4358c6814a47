"""Forward: the model behind one callable, the same with a cache, with padding, and at chosen columns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.models.checkpoints import Model
from prunejax.models.decoder import logits
from prunejax.models.forward import forward_of, run_decoder
from prunejax.tokens import pad_right

ROWS = ([5, 6, 7, 8, 9, 10], [30, 31, 32], [40, 41, 42, 43])
TENSOR = "transformer.h.1.mlp.c_proj.weight"

whole_logits = jax.jit(logits)


@pytest.fixture(scope="module")
def whole(tiny_model: Model) -> list[np.ndarray]:
    """Logits of each row on its own, without padding."""
    alone = (whole_logits(tiny_model.decoder, jnp.array([row]), jnp.arange(len(row))[None])[0] for row in ROWS)
    return [np.asarray(found) for found in alone]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_is_alone(tiny_model: Model, whole: list[np.ndarray], side: str) -> None:
    tokens, positions = pad_right(ROWS, 8)
    if side == "left":
        tokens, positions = (
            np.stack([np.roll(padded, 8 - len(row)) for padded, row in zip(array, ROWS, strict=True)])
            for array in (tokens, positions)
        )
    found, cache = forward_of(tiny_model)(tokens, positions)
    assert cache is None
    for b, row in enumerate(whole):
        np.testing.assert_allclose(found[b][positions[b] >= 0], row, atol=1e-5)


def test_a_cached_beginning_is_the_whole_row(tiny_model: Model, whole: list[np.ndarray]) -> None:
    forward = forward_of(tiny_model)
    tokens, positions = pad_right(ROWS, 6)
    cache = forward.new_cache(rows=3, capacity=8)
    pieces = []
    for part in (slice(0, 2), slice(2, 3), slice(3, 6)):
        found, cache = forward(tokens[:, part], positions[:, part], cache)
        pieces.append(found)
    for b, row in enumerate(whole):
        np.testing.assert_allclose(jnp.concatenate(pieces, 1)[b][: len(row)], row, atol=1e-5)


def test_columns_are_those_of_all_logits(tiny_model: Model) -> None:
    forward = forward_of(tiny_model)
    tokens, positions = pad_right(ROWS, 6)
    columns = np.array([[5, 0], [1, 1], [2, 3]], np.int32)
    everywhere, _ = forward(tokens, positions)
    chosen, _ = forward(tokens, positions, None, columns)
    np.testing.assert_allclose(chosen, jnp.take_along_axis(everywhere, columns[..., None], 1), atol=1e-6)


def test_an_edited_model_is_another_forward_and_the_same_program(tiny_model: Model) -> None:
    tokens, positions = pad_right(ROWS, 6)
    edited = [tiny_model.with_weights({TENSOR: tiny_model.weight(TENSOR) * scale}) for scale in (1.0, 3.0)]
    first, _ = forward_of(edited[0])(tokens, positions)
    compiled = run_decoder._cache_size()
    second, _ = forward_of(edited[1])(tokens, positions)
    assert run_decoder._cache_size() == compiled
    assert not np.allclose(first, second)
    plain, _ = forward_of(tiny_model)(tokens, positions)
    np.testing.assert_allclose(first, plain, atol=1e-5)
