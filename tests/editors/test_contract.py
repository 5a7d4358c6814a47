"""What holds for every editor of the table, and how settings are read."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prunejax.editors import EDITORS, editor_row, settings_of
from prunejax.editors.hypernetwork import Hypernetwork, identity_network, places_of, save_hypernetwork
from prunejax.editors.moments import Moments, second_moments
from prunejax.editors.settings import LocateSettings
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.presets import PRESETS, preset_settings
from prunejax.update import apply, dense, shape
from tiny import EDITS, TEMPLATES, TEXTS

every_editor = pytest.mark.parametrize("name", EDITORS)
LOCATE = [name for name, row in EDITORS.items() if issubclass(row.settings, LocateSettings)]
every_locating = pytest.mark.parametrize("name", LOCATE)
SETTINGS = {"layers": "1", "steps": 6, "lr": 0.5, "weight_decay": 0.05, "ridge": 0.1}


@pytest.fixture(scope="module")
def moments(tiny_model) -> Moments:
    return Moments(second_moments(tiny_model, TEXTS, range(3)), "0" * 64)


@pytest.fixture(scope="module")
def hypernetwork(tmp_path_factory) -> Path:
    """One that changes nothing but the scale of its inputs, for both kernels of layer 1 of the tiny model."""
    places = places_of([1])
    networks = {
        kernel: identity_network(jax.random.key(0), 80, 4, jnp.zeros((1, 80)), jnp.full((1, 80), 0.5))
        for kernel in ("up", "down")
    }
    made = Hypernetwork(networks, {place: jnp.asarray(0.01) for place in places})
    return save_hypernetwork(made, tmp_path_factory.mktemp("mend") / "network.safetensors")


@pytest.fixture
def chosen(hypernetwork) -> Callable[[str], Any]:
    """Settings for an edit of layer 1 by the editor of a name."""
    mend = {"layers": "1", "network": str(hypernetwork)}
    return lambda name: settings_of(name, mend if name == "mend" else SETTINGS)


def bits(model: Model) -> list[bytes]:
    leaves = [*jax.tree.leaves(nnx.state(model.decoder)), *jax.tree.leaves(dict(model.overrides))]
    return [np.asarray(leaf).tobytes() for leaf in leaves]


def edit_all(name: str, settings: Any, model: Model, moments: Moments) -> tuple[list[Any], list[Any], dict]:
    """Updates and diagnostics of the requests in order, and the weights after them."""
    editor = editor_row(name).make(settings)
    state, batches = editor.init(model, moments), editor.prepare(model, EDITS, TEMPLATES, 1)
    weights = {tensor: model.weight(tensor) for tensor in editor.tensors(model)}
    all_updates, all_diagnostics = [], []
    for number, batch in enumerate(batches):
        key = jax.random.fold_in(jax.random.key(0), number)
        updates, _, state, diagnostics = editor.step(model.with_weights(weights), state, batch, key)
        weights = weights | {tensor: apply(weights[tensor], update) for tensor, update in updates.items()}
        all_updates.append(updates)
        all_diagnostics.append(diagnostics)
    return all_updates, all_diagnostics, weights


@every_editor
def test_it_mutates_nothing_and_writes_declared_tensors_alone(name, chosen, tiny_model, moments):
    before, moments_before = bits(tiny_model), [m.matrix.copy() for m in moments.by_tensor.values()]
    updates, _, _ = edit_all(name, chosen(name), tiny_model, moments)
    assert bits(tiny_model) == before
    for moment, old in zip(moments.by_tensor.values(), moments_before, strict=True):
        np.testing.assert_array_equal(moment.matrix, old)
    declared = editor_row(name).make(chosen(name)).tensors(tiny_model)
    for update in updates:
        assert set(update) == set(declared)
        for tensor, change in update.items():
            assert shape(change) == tiny_model.weight(tensor).shape
            assert np.linalg.norm(dense(change)) > 0


@every_editor
def test_the_same_seed_gives_the_same_bits(name, chosen, tiny_model, moments):
    first, second = (edit_all(name, chosen(name), tiny_model, moments) for _ in range(2))
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@every_editor
def test_the_second_call_compiles_nothing(name, chosen, tiny_model, moments):
    """Weights and requests are arguments: nothing is traced again, neither for the next edit nor for the next run."""
    edit_all(name, chosen(name), tiny_model, moments)
    traced = []

    def listener(event: str, duration: float, **details: Any) -> None:
        if event.endswith("jaxpr_trace_duration"):
            traced.append(details)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.jit(lambda x: x + 1)(1)
        assert traced, "the listener hears of tracing"
        traced.clear()
        edit_all(name, chosen(name), tiny_model, moments)
        assert traced == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


@every_editor
def test_later_requests_are_edited_on_what_the_earlier_left(name, chosen, tiny_model, moments):
    updates, _, _ = edit_all(name, chosen(name), tiny_model, moments)
    editor = editor_row(name).make(chosen(name))
    batch = editor.prepare(tiny_model, EDITS, TEMPLATES, 1)[2]
    weights = {tensor: tiny_model.weight(tensor) for tensor in editor.tensors(tiny_model)}
    fresh, *_ = editor.step(
        tiny_model.with_weights(weights), editor.init(tiny_model, moments), batch, jax.random.key(0)
    )
    for tensor, change in fresh.items():
        assert not np.allclose(dense(change), dense(updates[2][tensor]), rtol=1e-3, atol=0)


@every_editor
def test_diagnostics_are_numbers_of_one_kind(name, chosen, tiny_model, moments):
    _, diagnostics, _ = edit_all(name, chosen(name), tiny_model, moments)
    for row in diagnostics:
        assert set(row) == set(diagnostics[0])
        assert all(np.size(value) == 1 for value in row.values())
        assert {"loss_first", "loss_last", "finite"} <= set(row)
        assert bool(row["finite"])


def test_an_editor_that_does_not_exist():
    with pytest.raises(InputError, match="editor 'memory': there are rome, r-rome"):
        editor_row("memory")


@every_locating
def test_settings_from_text_are_those_from_values(name):
    text = {"layers": "1", "steps": "7", "lr": "0.25", "clamp": "3", "second_moment": "identity"}
    values = {"layers": [1], "steps": 7.0, "lr": 0.25, "clamp": 3, "second_moment": "identity"}
    settings = settings_of(name, text)
    assert settings == settings_of(name, values) == settings_of(name, values | {"layers": 1})
    assert settings.layers == (1,)
    for key, kind in (("steps", int), ("clamp", float), ("layers", tuple)):
        assert type(getattr(settings, key)) is kind
    assert hash(settings) == hash(settings_of(name, text)), "settings are static arguments"


@every_locating
@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": "many"},
        {"steps": "7.5"},
        {"steps": 7.5},
        {"steps": True},
        {"steps": None},
        {"steps": float("inf")},
        {"lr": "fast"},
        {"lr": "nan"},
        {"lr": [0.5]},
        {"layers": "one"},
        {"layers": ""},
        {"layers": 1.5},
        {"layers": [1.5]},
        {"layers": [True]},
        {"layers": None},
    ],
)
def test_a_value_of_the_wrong_type(name, wrong):
    ((key, _),) = wrong.items()
    with pytest.raises(InputError, match=f"hyper-parameter {key}="):
        settings_of(name, wrong)


@every_locating
def test_a_hyper_parameter_that_the_editor_has_not(name):
    with pytest.raises(InputError, match=f"hyper-parameter 'learning_rate': {name} has layers"):
        settings_of(name, {"learning_rate": 0.5})


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: f"{preset.name}-{preset.editors[0]}")
def test_every_preset_is_whole_and_says_where_it_is_from(preset):
    assert preset.origin
    for editor in preset.editors:
        values = preset_settings(preset.name, editor)
        assert values == preset.settings
        settings = settings_of(editor, values)
        assert {key: getattr(settings, key) for key in values} == dict(values)
        assert set(values) <= {field.name for field in fields(settings)}


def test_an_editor_has_one_preset_of_a_name():
    named = [(preset.name, editor) for preset in PRESETS for editor in preset.editors]
    assert len(named) == len(set(named))


def test_a_preset_that_does_not_exist_or_is_for_others():
    with pytest.raises(InputError, match=r"preset 'gpt5': there are .*gpt2-xl, gpt-j-6b"):
        preset_settings("gpt5", "rome")
    with pytest.raises(InputError, match="preset 'llama-3-8b-alphaedit': is for memit, not for rome"):
        preset_settings("llama-3-8b-alphaedit", "rome")
