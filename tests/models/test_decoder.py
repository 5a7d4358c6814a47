"""The decoder against a plain numpy GPT-2, and the laws that make taps, patches, caches and overrides trustworthy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from oracles import distance, gpt2
from prunejax.models.attention import visible
from prunejax.models.checkpoints import decoder_arrays
from prunejax.models.config import DecoderConfig
from prunejax.models.decoder import Decoder, logits
from prunejax.models.families.gpt2 import GPT2
from prunejax.models.layer import Cache, Patch
from prunejax.models.tensors import checkpoint_tensors
from tiny import random_decoder

LENGTH = 48
TAPS = ("key", "value", "residual", "attention")
run = jax.jit(Decoder.run_layers, static_argnums=(3, 4), static_argnames=("taps",))


@pytest.fixture(scope="module")
def decoder(tiny_model) -> Decoder:
    return tiny_model.decoder


@pytest.fixture(scope="module")
def tensors(tiny_folder) -> dict[str, np.ndarray]:
    return load_file(tiny_folder / "model.safetensors")


@pytest.fixture(scope="module")
def tokens(decoder) -> np.ndarray:
    return np.random.default_rng(1).integers(0, decoder.config.vocab_size, (2, LENGTH), np.int32)


@pytest.fixture(scope="module")
def positions() -> np.ndarray:
    return np.tile(np.arange(LENGTH, dtype=np.int32), (2, 1))


@pytest.fixture(scope="module")
def embedded(decoder, tokens, positions) -> jax.Array:
    return decoder.embed(tokens, positions)


@pytest.fixture(scope="module")
def whole(decoder, embedded, positions):
    return run(decoder, embedded, positions, 0, 3, taps=TAPS)


def vectors(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 16)).astype(np.float32)


def test_logits_keys_values_and_residuals_are_those_of_the_plain_gpt2(decoder, tensors, tokens, whole):
    predicted = decoder.unembed(whole.residual)
    for row in range(2):
        seen = gpt2(tensors, tokens[row], 2)
        assert distance(predicted[row], seen.logits) < 1e-5
        for site, expected in zip(TAPS, seen[1:], strict=True):
            for layer in range(3):
                assert distance(whole.taps[site][layer, row], expected[layer]) < 1e-5


def test_logits_are_embed_run_unembed(decoder, tokens, positions, whole):
    np.testing.assert_allclose(
        jax.jit(logits)(decoder, tokens, positions), decoder.unembed(whole.residual), rtol=0, atol=1e-5
    )


def test_more_layers_than_one_unrolled_step():
    sizes = DecoderConfig(n_layers=6, n_heads=2, d_model=8, d_ff=16, vocab_size=20, n_positions=12)
    deep = random_decoder(sizes)
    ids = np.arange(12, dtype=np.int32)[None]
    expected = gpt2(checkpoint_tensors(GPT2, decoder_arrays(deep)), ids[0], 2)
    output = run(deep, deep.embed(ids, ids), ids, 0, 6, taps=("residual",))
    assert distance(output.taps["residual"][:, 0], np.stack(expected.residuals)) < 1e-5


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_layers_in_two_parts_are_the_layers_in_one(decoder, embedded, positions, whole, k):
    first = run(decoder, embedded, positions, 0, k, taps=TAPS)
    second = run(decoder, first.residual, positions, k, 3, taps=TAPS)
    np.testing.assert_allclose(second.residual, whole.residual, rtol=0, atol=1e-5)
    parts = [part for part, n in ((first, k), (second, 3 - k)) if n]
    for site in TAPS:
        np.testing.assert_allclose(
            np.concatenate([part.taps[site] for part in parts]), whole.taps[site], rtol=0, atol=1e-5
        )
    np.testing.assert_allclose(np.concatenate([part.keys for part in parts]), whole.keys, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([part.values for part in parts]), whole.values, rtol=0, atol=1e-5)


def test_no_layers_change_nothing(decoder, embedded, positions):
    output = run(decoder, embedded, positions, 2, 2, taps=TAPS)
    np.testing.assert_array_equal(output.residual, embedded)
    assert output.taps == {}


@pytest.mark.parametrize("site", ["value", "residual"])
def test_an_empty_patch_changes_nothing(decoder, embedded, positions, whole, site):
    nothing = Patch(jnp.zeros((2, 16)), jnp.array([5, 9]), 1, site)
    patched = run(decoder, embedded, positions, 0, 3, patches=[nothing], taps=TAPS)
    np.testing.assert_allclose(patched.residual, whole.residual, rtol=0, atol=1e-5)
    for name in TAPS:
        np.testing.assert_allclose(patched.taps[name], whole.taps[name], rtol=0, atol=1e-5)


def test_a_patch_of_a_layer_that_is_not_run_changes_nothing(decoder, embedded, positions):
    patch = Patch(jnp.ones((2, 16)), jnp.array([5, 9]), 0, "residual")
    np.testing.assert_allclose(
        run(decoder, embedded, positions, 1, 3, patches=[patch]).residual,
        run(decoder, embedded, positions, 1, 3).residual,
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("site", ["value", "residual"])
def test_a_patch_adds_at_its_layer_site_and_column_alone(
    decoder, tensors, tokens, positions, embedded, whole, layer, site
):
    columns, vector = np.array([7, 20]), vectors(2)
    patched = run(decoder, embedded, positions, 0, 3, patches=[Patch(vector, columns, layer, site)], taps=TAPS)
    for row, column in enumerate(columns):
        expected = gpt2(tensors, tokens[row], 2, (layer, site, column, vector[row]))
        assert distance(decoder.unembed(patched.residual)[row], expected.logits) < 1e-5
        for name, layers in zip(TAPS, expected[1:], strict=True):
            for number in range(3):
                assert distance(patched.taps[name][number, row], layers[number]) < 1e-5
        moved = np.abs(patched.taps["residual"][:, row] - whole.taps["residual"][:, row]).max(-1)
        assert moved[:layer].max(initial=0) < 1e-5, "layers below have not heard of it"
        assert moved[layer:, :column].max() < 1e-5, "earlier columns have not heard of it"
        assert moved[layer, column] > 0.05
        assert moved[layer, column + 1 :].max() < 1e-5, "in its own layer it is one column"
        assert layer == 2 or moved[layer + 1 :, column + 1 :].max() > 1e-3


def test_a_patch_is_adding_by_hand(decoder, embedded, positions):
    columns, vector = np.array([3, 40]), vectors(3)
    patch = Patch(vector, columns, 1, "residual")
    by_hand = run(decoder, embedded, positions, 0, 2).residual.at[jnp.arange(2), columns].add(vector)
    np.testing.assert_allclose(
        run(decoder, embedded, positions, 0, 3, patches=[patch]).residual,
        run(decoder, by_hand, positions, 2, 3).residual,
        rtol=0,
        atol=1e-5,
    )


def test_patches_add_up(decoder, embedded, positions):
    columns, one, two = np.array([3, 40]), vectors(4), vectors(5)
    both = run(
        decoder,
        embedded,
        positions,
        0,
        3,
        patches=[Patch(one, columns, 1, "value"), Patch(two, columns, 1, "residual")],
    )
    summed = run(decoder, embedded, positions, 0, 3, patches=[Patch(one + two, columns, 1, "value")])
    np.testing.assert_allclose(both.residual, summed.residual, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("start", "split"), [(0, 1), (0, 30), (1, 47)])
def test_a_cached_prefix_is_the_whole_prompt(decoder, embedded, positions, start, split):
    expected = run(decoder, embedded, positions, start, 3)
    prefix = run(decoder, embedded[:, :split], positions[:, :split], start, 3)
    cache = Cache(prefix.keys, prefix.values, positions[:, :split])
    rest = run(decoder, embedded[:, split:], positions[:, split:], start, 3, cache=cache)
    np.testing.assert_allclose(rest.residual, expected.residual[:, split:], rtol=0, atol=1e-5)
    np.testing.assert_allclose(rest.keys, expected.keys[..., split:, :], rtol=0, atol=1e-5)


def test_a_cache_is_read_by_position_not_by_place(decoder, embedded, positions):
    """A prefix padded, shuffled and with junk at position -1 is the same prefix; a later position is not yet seen."""
    expected = run(decoder, embedded, positions, 0, 3)
    prefix = run(decoder, embedded[:, :30], positions[:, :30], 0, 3)
    order = np.random.default_rng(6).permutation(34)

    def spread(x: jax.Array, axis: int, fill: float) -> np.ndarray:
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, 4)
        return np.take(np.pad(x, widths, constant_values=fill), order, axis)

    cache = Cache(spread(prefix.keys, 3, 9.0), spread(prefix.values, 3, 9.0), spread(positions[:, :30], 1, -1))
    rest = run(decoder, embedded[:, 30:], positions[:, 30:], 0, 3, cache=cache)
    np.testing.assert_allclose(rest.residual, expected.residual[:, 30:], rtol=0, atol=1e-5)

    later = run(decoder, embedded[:, 30:], positions[:, 30:], 0, 3, cache=cache)
    ahead = Cache(later.keys, later.values, positions[:, 30:])
    alone = run(decoder, embedded[:, :30], positions[:, :30], 0, 3, cache=ahead)
    np.testing.assert_allclose(alone.residual, expected.residual[:, :30], rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding_is_never_seen(decoder, tokens, positions, whole, side):
    before, after = {"left": (9, 0), "right": (0, 9), "both": (4, 5)}[side]
    padded = np.pad(tokens, ((0, 0), (before, after)), constant_values=7)
    places = np.pad(positions, ((0, 0), (before, after)), constant_values=-1)
    output = run(decoder, decoder.embed(padded, places), places, 0, 3)
    np.testing.assert_allclose(output.residual[:, before : before + LENGTH], whole.residual, rtol=0, atol=1e-5)
    assert np.isfinite(output.residual).all()


def test_visible_is_the_past_without_padding():
    mask = visible(jnp.array([[-1, 0, 1]]), jnp.array([[1, -1, 0]]))
    np.testing.assert_array_equal(mask[0], [[False, False, False], [False, False, True], [True, False, True]])


def test_a_token_hidden_from_its_successors_on_is_a_token_left_out(decoder, embedded, positions, whole):
    """In every layer; and where the last position that sees a token is the row's last, nothing changes."""
    hidden, seen = 20, np.full((3, 2, LENGTH), LENGTH)
    np.testing.assert_array_equal(run(decoder, embedded, positions, 0, 3, until=seen).residual, whole.residual)
    seen[:, :, hidden] = hidden
    rest = np.delete(np.arange(LENGTH), hidden)
    without = run(decoder, embedded[:, rest], positions[:, rest], 0, 3).residual
    output = run(decoder, embedded, positions, 0, 3, until=seen).residual
    np.testing.assert_allclose(output[:, rest], without, rtol=0, atol=1e-5)
    np.testing.assert_allclose(output[:, hidden], whole.residual[:, hidden], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", range(3))
def test_a_token_is_hidden_in_the_layers_that_say_so(decoder, embedded, positions, whole, layer):
    seen = np.full((3, 2, LENGTH), LENGTH)
    seen[layer, :, 5] = 5
    output = run(decoder, embedded, positions, 0, 3, taps=("residual",), until=seen).taps["residual"]
    moved = np.abs(output - whole.taps["residual"]).max(axis=(1, 2, 3)) > 1e-4
    assert moved.tolist() == [number >= layer for number in range(3)]


@pytest.mark.parametrize("edited", [[(0, "down")], [(1, "up")], [(0, "down"), (2, "up"), (2, "down")]])
def test_overrides_are_a_model_with_these_kernels(decoder, embedded, positions, edited):
    rng = np.random.default_rng(7)
    graph, state = nnx.split(decoder)
    other = nnx.merge(graph, jax.tree.map(lambda x: x, state))
    overrides = {}
    for layer, name in edited:
        kernel = getattr(other.blocks, name).kernel
        overrides[layer, name] = jnp.asarray(rng.normal(0, 0.3, kernel[...].shape[1:]), jnp.float32)
        kernel.set_value(kernel[...].at[layer].set(overrides[layer, name]))
    for start, stop in ((0, 3), (1, 3)):
        expected = run(other, embedded, positions, start, stop, taps=TAPS)
        output = run(decoder, embedded, positions, start, stop, taps=TAPS, overrides=overrides)
        np.testing.assert_allclose(output.residual, expected.residual, rtol=0, atol=2e-5)
        for site in TAPS:
            np.testing.assert_allclose(output.taps[site], expected.taps[site], rtol=0, atol=2e-5)
    moved = run(other, embedded, positions, 0, 3).residual - run(decoder, embedded, positions, 0, 3).residual
    assert np.abs(moved).max() > 0.1, "the other model is another model"
