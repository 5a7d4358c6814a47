"""The distance of two models: none to itself, and what one shifted logit makes of it."""

import numpy as np
import pytest

from prunejax.evaluate.difference import difference
from prunejax.models.checkpoints import load_model
from prunejax.models.decoder import logits
from tiny import TEXTS


def test_a_model_is_not_apart_from_itself(tiny_model, tiny_folder):
    found = difference(tiny_model, load_model(tiny_folder), TEXTS)
    assert (found.logits, found.argmax) == (0, 1)
    assert found.positions == sum(len(tiny_model.tokenizer(text)["input_ids"]) for text in TEXTS)


def test_an_edit_is_measured_against_the_largest_logit(tiny_model):
    tensor = tiny_model.family.edited_tensor(1)
    noise = np.random.default_rng(0).normal(0, 0.1, tiny_model.weight(tensor).shape).astype(np.float32)
    other = tiny_model.with_weights({tensor: tiny_model.weight(tensor) + noise})
    found = difference(tiny_model, other, TEXTS[:2])
    apart, largest, same = 0.0, 0.0, []
    for text in TEXTS[:2]:
        ids = np.array([tiny_model.tokenizer(text)["input_ids"]])
        a, b = (np.asarray(logits(m.decoder, ids, np.arange(ids.size)[None], m.overrides)) for m in (tiny_model, other))
        apart, largest = max(apart, np.abs(a - b).max()), max(largest, np.abs(a).max())
        same += list((a.argmax(-1) == b.argmax(-1)).ravel())
    assert apart > 0.01 * largest
    assert found.logits == pytest.approx(apart / largest, rel=1e-4)
    assert 0 < found.argmax == pytest.approx(np.mean(same))
