"""MEND: gradients and their transform against float64, what an edit does, and the hypernetwork's file."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from oracles import distance, gpt2, log_softmax
from prunejax.editors.gradient import Lines, gradient_factors, lines
from prunejax.editors.hypernetwork import (
    Hypernetwork,
    Network,
    Residual,
    identity_network,
    load_hypernetwork,
    places_of,
    save_hypernetwork,
    transform,
)
from prunejax.editors.mend import MendSettings, mend
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import logits
from prunejax.tokens import tokenize_completion
from prunejax.update import apply, dense
from tiny import EDITS

LAYERS = (0, 2)
PLACES = places_of(LAYERS)
D = 16 + 64


def rows_of(model: Model, number: int, width: int | None = None) -> Lines:
    edit = EDITS[number]
    one = tokenize_completion(model.tokenizer, edit.prompt.format(edit.subject), edit.target_new)
    return lines([one], width or len(one.ids))


def random_network(seed: int) -> Network:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    layers = [Residual(draw(D, 5), draw(5, D), draw(D), draw(2, D), draw(2, D)) for _ in range(2)]
    return Network(*layers, draw(2, D), jnp.abs(draw(2, D)) + 0.5)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    networks = {kernel: random_network(seed) for seed, kernel in enumerate(("up", "down"))}
    alpha = {place: jnp.asarray(0.001 * (i + 1)) for i, place in enumerate(PLACES)}
    return save_hypernetwork(Hypernetwork(networks, alpha), tmp_path_factory.mktemp("mend") / "network.safetensors")


@pytest.mark.parametrize("number", range(3))
def test_gradients_are_those_of_the_plain_model_in_float64(tiny_model, tiny_folder, number):
    edit = EDITS[number]
    one = tokenize_completion(tiny_model.tokenizer, edit.prompt.format(edit.subject), edit.target_new)
    tensors = load_file(tiny_folder / "model.safetensors")
    names = {place: tiny_model.family.edited_tensor(*place) for place in PLACES}
    with jax.enable_x64(True):
        fixed = {name: jnp.asarray(array, jnp.float64) for name, array in tensors.items()}

        def loss_of(kernels: dict) -> jax.Array:
            log_p = log_softmax(gpt2(fixed | kernels, one.ids, 2, xp=jnp).logits, jnp)
            at = jnp.arange(one.answer_start, len(one.ids))
            return -log_p[at - 1, jnp.asarray(one.ids)[at]].mean()

        loss, exact = jax.value_and_grad(loss_of)({name: fixed[name] for name in names.values()})
        loss, exact = float(loss), {name: np.asarray(gradient) for name, gradient in exact.items()}
    found, factors = gradient_factors(tiny_model.decoder, {}, rows_of(tiny_model, number, 20), PLACES)
    assert float(found) == pytest.approx(loss, rel=1e-5)
    for place, name in names.items():
        u, delta = factors[place]
        assert u.shape[0] == delta.shape[0] == 19
        assert distance(u.T @ delta, exact[name]) < 1e-4, place


@pytest.mark.parametrize("row", [0, 1])
def test_the_transform_is_its_formula_in_float64(row):
    network = random_network(3)
    n = jax.tree.map(lambda array: np.asarray(array, np.float64), network)
    rng = np.random.default_rng(4)
    u, delta = rng.normal(size=(6, 16)), rng.normal(size=(6, 64))
    delta[2] = 0
    turned, written = transform(network, row, jnp.asarray(u, jnp.float32), jnp.asarray(delta, jnp.float32))
    for i in range(6):
        x = (np.concatenate([u[i], delta[i]]) - n.mean[row]) / n.deviation[row]
        inner = n.hidden.scale[row] * (n.hidden.second.T @ (n.hidden.first.T @ x) + n.hidden.bias)
        x = x + np.maximum(inner + n.hidden.shift[row], 0)
        inner = n.output.scale[row] * (n.output.second.T @ (n.output.first.T @ x) + n.output.bias)
        x = x + inner + n.output.shift[row]
        if i == 2:
            assert not np.any(np.concatenate([turned[i], written[i]])), "a token that the loss does not read"
        else:
            assert distance(turned[i], x[:16]) < 1e-5
            assert distance(written[i], x[16:]) < 1e-5


def test_an_untrained_network_normalises_and_no_more():
    mean, deviation = jnp.full((1, D), 0.1), jnp.full((1, D), 2.0)
    network = identity_network(jax.random.key(0), D, 4, mean, deviation)
    u, delta = jnp.ones((3, 16)), jnp.full((3, 64), 0.5)
    turned, written = transform(network, 0, u, delta)
    np.testing.assert_allclose(turned, 0.45, rtol=1e-6)
    np.testing.assert_allclose(written, 0.2, rtol=1e-6)


def test_an_update_is_the_scaled_sum_of_the_tokens(tiny_model, file):
    """dW = -scale alpha sum_i outer(u~_i, delta~_i), each place with its own row of the network of its kernel."""
    editor = mend(MendSettings(LAYERS, str(file), 0.5))
    state, batch = editor.init(tiny_model, None, 8), rows_of(tiny_model, 1)
    updates, _, _, diagnostics = editor.step(tiny_model, state, batch, None)
    _, factors = gradient_factors(tiny_model.decoder, {}, batch, PLACES)
    assert list(updates) == [tiny_model.family.edited_tensor(*place) for place in PLACES]
    total = 0.0
    for (layer, kernel), update in zip(PLACES, updates.values(), strict=True):
        row = LAYERS.index(layer)
        turned, written = transform(state.fixed.networks[kernel], row, *factors[layer, kernel])
        expected = np.zeros(update.left.shape[:1] + update.right.shape[1:])
        for one, other in zip(turned, written, strict=True):
            expected -= 0.5 * float(state.fixed.alpha[layer, kernel]) * np.outer(one, other)
        assert distance(dense(update), expected) < 1e-4
        total += np.sum(expected**2)
    np.testing.assert_allclose(diagnostics["update_norm"], np.sqrt(total), rtol=1e-4)


def test_a_gradient_step_makes_the_target_likelier(tiny_model, tmp_path):
    """An identity network without normalisation is plain gradient descent."""
    plain = {k: identity_network(jax.random.key(0), D, 2, jnp.zeros((2, D)), jnp.ones((2, D))) for k in ("up", "down")}
    path = save_hypernetwork(
        Hypernetwork(plain, dict.fromkeys(PLACES, jnp.asarray(0.05))), tmp_path / "plain.safetensors"
    )
    editor = mend(MendSettings(LAYERS, str(path)))
    batch = rows_of(tiny_model, 0)
    updates, _, _, diagnostics = editor.step(tiny_model, editor.init(tiny_model, None, 8), batch, None)
    edited = {tiny_model.family.kernel_of(t): apply(tiny_model.weight(t), u) for t, u in updates.items()}
    log_p = jax.nn.log_softmax(logits(tiny_model.decoder, batch.tokens, batch.positions, edited))[0]
    at = np.flatnonzero(batch.learned[0])
    after = -np.mean([log_p[i - 1, batch.tokens[0, i]] for i in at])
    assert after < float(diagnostics["loss_first"]) - 0.01


def test_a_file_is_read_as_it_was_written_but_for_half_precision(file):
    read = load_hypernetwork(file)
    assert tuple(read.alpha) == PLACES
    np.testing.assert_allclose([read.alpha[place] for place in PLACES], [0.001, 0.002, 0.003, 0.004])
    for seed, kernel in enumerate(("up", "down")):
        for one, other in zip(
            jax.tree.leaves(read.networks[kernel]), jax.tree.leaves(random_network(seed)), strict=True
        ):
            assert distance(one, other) < 1e-3
    np.testing.assert_array_equal(read.networks["up"].mean, random_network(0).mean)


def test_what_cannot_be_edited_is_named(tiny_model, file, tmp_path):
    with pytest.raises(InputError, match="network: none is named; make one with"):
        mend(MendSettings(LAYERS)).init(tiny_model, None, 8)
    with pytest.raises(InputError, match="no such file; make it with 'prunejax train-mend'"):
        mend(MendSettings(LAYERS, str(tmp_path / "none"))).init(tiny_model, None, 8)
    with pytest.raises(InputError, match=r"was trained for layers \[0, 2\], not \[1\]"):
        mend(MendSettings((1,), str(file))).init(tiny_model, None, 8)
    with pytest.raises(InputError, match="batch 2: MEND edits one request at a time"):
        mend(MendSettings(LAYERS, str(file))).prepare(tiny_model, EDITS, ("{}",), 2)
    with pytest.raises(InputError, match="layers 9: the model has layers 0 to 2"):
        mend(MendSettings((9,), str(file))).tensors(tiny_model)
    (tmp_path / "half").write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="not a hypernetwork that"):
        load_hypernetwork(tmp_path / "half")
    with pytest.raises(InputError, match=r"has \d+ tokens, 3 were foreseen"):
        rows_of(tiny_model, 0, 3)


def test_a_collapsed_model_is_not_edited_and_says_so(tiny_model, file):
    name = tiny_model.family.edited_tensor(1)
    broken = tiny_model.with_weights({name: jnp.full_like(tiny_model.weight(name), jnp.nan)})
    editor = mend(MendSettings(LAYERS, str(file)))
    updates, _, _, diagnostics = editor.step(broken, editor.init(tiny_model, None, 8), rows_of(tiny_model, 0), None)
    assert not diagnostics["finite"]
    assert not any(np.any(dense(update)) for update in updates.values())
