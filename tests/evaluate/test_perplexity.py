"""Perplexity: tokens weigh equally, a model that knows nothing scores V, a collapsed one NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.errors import InputError
from prunejax.evaluate.perplexity import perplexity, prepare
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import logits
from prunejax.models.forward import Forward, forward_of
from prunejax.tokens import pad_right
from tiny import TEXTS


def test_perplexity_by_hand(tiny_model: Model) -> None:
    texts = [TEXTS[0][:30], TEXTS[1][:12], "A", TEXTS[2]]
    rows = [tiny_model.tokenizer(text)["input_ids"] for text in texts]
    assert len(rows[2]) == 1
    tokens, positions = pad_right(rows)
    seen = np.asarray(jax.jit(logits)(tiny_model.decoder, tokens, positions), np.float64)
    total, count = 0.0, 0
    for b, row in enumerate(rows):
        for i in range(1, len(row)):
            total -= np.log(np.exp(seen[b, i - 1, row[i]]) / np.exp(seen[b, i - 1]).sum())
            count += 1
    found = perplexity(forward_of(tiny_model), prepare(tiny_model.tokenizer, texts, reads=16))
    assert found == pytest.approx(np.exp(total / count), rel=1e-4)


def always(bias, tokens, positions, cache, columns):
    seen = tokens if columns is None else columns
    return jnp.broadcast_to(bias, (*seen.shape, len(bias))), cache


@pytest.mark.parametrize(("bias", "expected"), [(0.0, None), (jnp.nan, jnp.nan), (1e4, jnp.inf)])
def test_a_model_that_knows_nothing(tiny_model: Model, bias: float, expected: float | None) -> None:
    size = len(tiny_model.tokenizer)
    forward = Forward(always, None, 64, jnp.zeros(size).at[0].set(bias))
    found = perplexity(forward, prepare(tiny_model.tokenizer, TEXTS[:1]))
    assert found == pytest.approx(size if expected is None else expected, nan_ok=True)


def test_texts_too_short_or_too_long_are_refused(tiny_model: Model) -> None:
    texts = prepare(tiny_model.tokenizer, [" ".join(TEXTS)])
    with pytest.raises(InputError, match="no text of two tokens"):
        prepare(tiny_model.tokenizer, ["A", ""])
    with pytest.raises(InputError, match="does not fit into the model's 64 positions"):
        perplexity(forward_of(tiny_model), texts)
