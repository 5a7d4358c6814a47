"""Generation: a batch with cache and padding says what one prompt at a time says without either."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.errors import InputError
from prunejax.evaluate.forward import Forward, forward_of
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import logits
from prunejax.models.generation import decode, greedy, sample

PROMPTS = ([5], [30, 31, 32, 33, 34, 35, 36, 37, 38], [7, 9, 7], list(range(40, 56)), [30, 31, 32])


def rerun(model: Model, prompt: list[int], n_new: int, stop: tuple[int, ...] = ()) -> list[int]:
    """Greedy decoding with nothing remembered: the whole text again for every token."""
    ids = list(prompt)
    while len(ids) < len(prompt) + n_new and (len(ids) == len(prompt) or ids[-1] not in stop):
        padded = jnp.array([ids + [0] * (32 - len(ids))])
        positions = jnp.where(jnp.arange(32) < len(ids), jnp.arange(32), -1)[None]
        ids.append(int(jnp.argmax(logits(model.decoder, padded, positions)[0, len(ids) - 1])))
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def expected(tiny_model: Model) -> list[list[int]]:
    return [rerun(tiny_model, prompt, 10) for prompt in PROMPTS]


@pytest.mark.parametrize("rows", [1, 4])
def test_greedy_is_rerunning_the_whole_text(tiny_model: Model, expected: list[list[int]], rows: int) -> None:
    assert len({tuple(ids) for ids in expected}) > 2, "a model that always says the same tests nothing"
    assert greedy(forward_of(tiny_model), PROMPTS, 10, rows=rows) == expected


def test_a_completion_ends_with_its_first_stop(tiny_model: Model, expected: list[list[int]]) -> None:
    stop = (expected[1][3], expected[3][0])
    wanted = [rerun(tiny_model, prompt, 10, stop) for prompt in PROMPTS]
    assert {len(ids) for ids in wanted} > {1}, "no completion is cut at once"
    assert greedy(forward_of(tiny_model), PROMPTS, 10, stop, rows=4) == wanted


def test_padding_may_stand_on_the_left(tiny_model: Model, expected: list[list[int]]) -> None:
    tokens, positions = np.zeros((2, 16), np.int32), np.full((2, 16), -1, np.int32)
    for b, prompt in enumerate(PROMPTS[1:3]):
        tokens[b, 16 - len(prompt) :] = prompt
        positions[b, 16 - len(prompt) :] = np.arange(len(prompt))
    none = jnp.zeros(0, jnp.int32)
    found, _ = decode(
        forward_of(tiny_model), tokens, positions, jnp.int32(10), none, jax.random.key(0), room=16, top_k=1
    )
    assert np.asarray(found)[:, :10].tolist() == expected[1:3]
    assert (np.asarray(found)[:, 10:] == -1).all()


def test_other_weights_do_not_compile_again(tiny_model: Model) -> None:
    name = "transformer.h.1.mlp.c_proj.weight"
    versions = [tiny_model.with_weights({name: tiny_model.weight(name) * scale}) for scale in (1.0, 5.0)]
    first = greedy(forward_of(versions[0]), PROMPTS, 8, rows=4)
    compiled = decode._cache_size()
    second = greedy(forward_of(versions[1]), PROMPTS, 8, rows=4)
    assert decode._cache_size() == compiled
    assert first != second, "the override must count"


def test_samples_repeat_by_seed_and_stay_in_the_top_k(tiny_model: Model, expected: list[list[int]]) -> None:
    forward = forward_of(tiny_model)
    drawn = [sample(forward, PROMPTS[1], 8, top_k=5, seed=seed) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({tuple(ids) for ids in drawn}) == 3
    assert sample(forward, PROMPTS[1], 8, top_k=1, seed=1) == expected[1][:8]
    for ids in drawn:
        assert len(ids) == 8
        text = jnp.array([[*PROMPTS[1], *ids]])
        seen = logits(tiny_model.decoder, text, jnp.arange(text.shape[1])[None])[0, len(PROMPTS[1]) - 1 : -1]
        best = np.argsort(-np.asarray(seen), axis=1)[:, :5]
        assert all(token in allowed for token, allowed in zip(ids, best, strict=True))


def test_samples_follow_the_softmax_over_the_top_k() -> None:
    bias = jnp.log(jnp.array([0.01, 0.5, 0.2, 0.25, 0.04]))
    drawn = np.array(sample(constant(bias, 4096), [0], 4000, top_k=3, seed=0))
    assert [np.mean(drawn == token).round(2) for token in range(5)] == pytest.approx(
        [0, 0.5 / 0.95, 0.2 / 0.95, 0.25 / 0.95, 0], abs=0.03
    )


def test_a_collapsed_model_has_no_continuation() -> None:
    collapsed = constant(jnp.array([0.0, jnp.nan, 1.0]), 32)
    assert greedy(collapsed, [[1], [2]], 3, rows=2) == [None, None]
    with pytest.raises(InputError, match="NaN"):
        sample(collapsed, [1], 3, top_k=2, seed=0)


def test_prompts_without_tokens_or_room_are_refused(tiny_model: Model) -> None:
    forward = forward_of(tiny_model)
    with pytest.raises(InputError, match="no tokens"):
        greedy(forward, [[1], []], 3)
    with pytest.raises(InputError, match="a prompt of 60 tokens and 5 more do not fit into the model's 64 positions"):
        greedy(forward, [[1], [1] * 60], 5)
    assert greedy(forward, [], 3) == []


def constant(bias: jax.Array, n_positions: int) -> Forward:
    """A model that says the same whatever it reads."""
    return Forward(always, nothing, n_positions, bias)


def always(bias, tokens, positions, cache, columns):
    seen = tokens if columns is None else columns
    return jnp.broadcast_to(bias, (*seen.shape, len(bias))), cache


def nothing(bias, rows, capacity):
    return jnp.zeros(0)
