"""Generation: a batch with cache and padding says what one prompt at a time says without either."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.errors import InputError
from prunejax.models import generation
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import logits
from prunejax.models.forward import Forward, forward_of
from prunejax.models.generation import decode, greedy, sample

PROMPTS = ([5], [30, 31, 32, 33, 34, 35, 36, 37, 38], [7, 9, 7], list(range(40, 56)), [30, 31, 32])
N_NEW = 8
TENSOR = "transformer.h.1.mlp.c_proj.weight"


def rerun(model: Model, prompt: list[int]) -> list[int]:
    """Greedy decoding with nothing remembered: the whole text again for every token."""
    ids = list(prompt)
    for _ in range(N_NEW):
        padded = jnp.array([ids + [0] * (24 - len(ids))])
        positions = jnp.where(jnp.arange(24) < len(ids), jnp.arange(24), -1)[None]
        ids.append(int(jnp.argmax(whole_logits(model.decoder, padded, positions)[0, len(ids) - 1])))
    return ids[len(prompt) :]


whole_logits = jax.jit(logits)


@pytest.fixture(scope="module")
def expected(tiny_model: Model) -> list[list[int]]:
    """What follows each prompt, nothing stopping it."""
    found = [rerun(tiny_model, prompt) for prompt in PROMPTS]
    assert len(set(map(tuple, found))) > 2, "a model that always says the same tests nothing"
    return found


@pytest.fixture(scope="module")
def stop(expected: list[list[int]]) -> list[int]:
    """Two tokens that end some of the completions, at different places."""
    return [expected[1][3], expected[3][0]]


def cut(ids: list[int], stop: list[int]) -> list[int]:
    return ids[: next((i + 1 for i, token in enumerate(ids) if token in stop), None)]


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_greedy_is_rerunning_the_whole_text(
    tiny_model: Model, expected: list[list[int]], stop: list[int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "MOST_ROWS", rows)
    wanted = [cut(ids, stop) for ids in expected]
    assert {1, N_NEW} < {len(ids) for ids in wanted}
    assert greedy(forward_of(tiny_model), PROMPTS, N_NEW, stop) == wanted


def test_a_limit_below_the_room_is_kept(tiny_model: Model, expected: list[list[int]]) -> None:
    found = greedy(forward_of(tiny_model), PROMPTS, 3, [-2, -2])
    assert found == [ids[:3] for ids in expected]


def test_padding_may_stand_on_the_left(tiny_model: Model, expected: list[list[int]]) -> None:
    tokens, positions = np.zeros((4, 16), np.int32), np.full((4, 16), -1, np.int32)
    for b, prompt in enumerate(PROMPTS[:3]):
        tokens[b, 16 - len(prompt) :] = prompt
        positions[b, 16 - len(prompt) :] = np.arange(len(prompt))
    never, key = jnp.array([-2, -2], jnp.int32), jax.random.key(0)
    found, broken = decode(forward_of(tiny_model), tokens, positions, jnp.int32(N_NEW), never, key, room=N_NEW, top_k=1)
    assert found.tolist() == [*expected[:3], [-1] * N_NEW]
    assert not broken.any()


def test_other_weights_do_not_compile_again(tiny_model: Model) -> None:
    weight = tiny_model.weight(TENSOR)
    versions = [forward_of(tiny_model.with_weights({TENSOR: weight * scale})) for scale in (1.0, 5.0)]
    first = greedy(versions[0], PROMPTS[:1], N_NEW)
    compiled = decode._cache_size()
    assert greedy(versions[1], PROMPTS[:1], N_NEW) != first, "the override must count"
    assert decode._cache_size() == compiled


def test_samples_repeat_by_seed_and_stay_in_the_top_k(tiny_model: Model, expected: list[list[int]]) -> None:
    forward = forward_of(tiny_model)
    prompt, best = PROMPTS[1], expected[1]
    drawn = [sample(forward, prompt, N_NEW, top_k=5, seed=seed) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(map(tuple, drawn))) == 3
    for ids in drawn:
        assert len(ids) == N_NEW
        text = jnp.array([[*prompt, *ids]])
        seen = whole_logits(tiny_model.decoder, text, jnp.arange(text.shape[1])[None])[0, len(prompt) - 1 : -1]
        allowed = np.argsort(-np.asarray(seen), axis=1)[:, :5]
        assert all(token in row for token, row in zip(ids, allowed, strict=True))
    assert sample(forward, prompt, N_NEW, top_k=1, seed=1) == best


def test_samples_follow_the_softmax_over_the_top_k() -> None:
    probabilities = np.array([0.01, 0.5, 0.2, 0.25, 0.04])
    drawn = sample(constant(jnp.log(probabilities), 4096), [0], 4000, top_k=3, seed=0)
    shares = np.bincount(drawn, minlength=5) / 4000
    np.testing.assert_allclose(shares, probabilities * [0, 1, 1, 1, 0] / 0.95, atol=0.03)


def test_a_collapsed_model_has_no_continuation() -> None:
    collapsed = constant(jnp.array([0.0, jnp.nan, 1.0]), 32)
    assert greedy(collapsed, [[1], [2]], 3) == [None, None]
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
