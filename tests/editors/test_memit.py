"""MEMIT: the solve in float64, batches, groups of contexts, and its limits."""

from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracles import distance
from packed import packed, unpacked
from prunejax.contexts import group_weights, templates_of
from prunejax.editors.memit import MemitSettings, memit
from prunejax.editors.moments import Moments, SecondMoment
from prunejax.editors.rome import RomeSettings, rome
from prunejax.editors.spread import FactBatch
from prunejax.editors.value import FactRows, target_values
from prunejax.editors.value_settings import ValueSettings
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder
from prunejax.update import apply, dense
from tiny import EDITS, TEMPLATES

LAYERS = (0, 1)
TENSORS = tuple(f"transformer.h.{layer}.mlp.c_proj.weight" for layer in LAYERS)
"""A layer is above them: of the last layer only a subject that is last would have a gradient that is not rounding."""
COMMON: dict[str, Any] = {"steps": 6, "lr": 0.5, "weight_decay": 0.05, "clamp": 4.0, "kl_factor": 0.0625}
GROUPS = (("{}",), TEMPLATES[1:])


@pytest.fixture(scope="module")
def moments() -> Moments:
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=(200, 64)) * np.geomspace(0.1, 3, 64) for _ in LAYERS]
    matrices = [(samples.T @ samples / 200).astype(np.float32) for samples in drawn]
    return Moments({t: SecondMoment(c, 200) for t, c in zip(TENSORS, matrices, strict=True)}, "0" * 64)


def settings(**changed: Any) -> MemitSettings:
    return MemitSettings(**{"layers": LAYERS, "moment_weight": 0.5, **COMMON, **changed})


def edit(model: Model, moments: Moments | None, chosen: MemitSettings, size: int = 3, contexts=GROUPS, number: int = 0):
    editor = memit(chosen)
    batch = editor.prepare(model, EDITS, contexts, size)[number]
    updates, _, _, diagnostics = editor.step(model, editor.init(model, moments, 8), batch, None)
    return updates, diagnostics, batch


def seen(decoder: Decoder, overrides: dict, rows: FactRows, site: str, layer: int) -> np.ndarray:
    """What stands at a site of a layer at the subject's last token of every context [R, ...], by a whole forward."""
    tokens, positions, subject_last, *_ = unpacked(rows)
    run = decoder.run_layers(decoder.embed(tokens, positions), positions, 0, 3, taps=(site,), overrides=overrides)
    found = run.taps[site][layer][jnp.arange(len(tokens)), subject_last]
    return np.asarray(found, np.float64)[:-1]


def groups_of(batch: FactBatch) -> list[FactRows]:
    return [jax.tree.map(lambda part, i=i: part[i], batch.rows) for i in range(len(batch.rows.tail))]


def ids_of(rows: FactRows) -> list[list[int]]:
    tokens, positions, *_ = unpacked(rows)
    return [ids[at >= 0].tolist() for ids, at in zip(tokens, positions, strict=True)]


def test_each_layer_is_the_dense_float64_solve(tiny_model, moments):
    """dW_l = (lambda C + K K^T)^-1 K R^T, keys and residuals read after the layers below have changed."""
    updates, diagnostics, _ = edit(tiny_model, moments, settings())
    each = packed(tiny_model, EDITS, templates_of(GROUPS), 64)
    value_step = ValueSettings(layer=1, stop_loss=0.05, sites=("residual",), **COMMON)
    targets = [target_values(tiny_model.decoder, {}, rows, value_step) for rows in each]
    z = np.concatenate([np.asarray(target.value) for target in targets])
    overrides: dict = {}
    for number, (layer, tensor) in enumerate(zip(LAYERS, TENSORS, strict=True)):
        keys = [seen(tiny_model.decoder, overrides, rows, "key", layer) for rows in each]
        k = np.stack([key[0] / 2 + key[1:].mean(0) / 2 for key in keys])
        now = np.stack([seen(tiny_model.decoder, overrides, rows, "residual", 1)[0] for rows in each])
        residual = (z - now) / (2 - number)
        c = moments.of(tensor).matrix.astype(np.float64)
        exact = np.linalg.solve(0.5 * c + k.T @ k, k.T @ residual)
        assert distance(dense(updates[tensor]), exact) < 1e-4
        overrides[layer, "down"] = apply(tiny_model.weight(tensor), updates[tensor])
    assert np.asarray(diagnostics["finite"]).all()
    lengths = [np.linalg.norm(target.delta) for target in targets]
    np.testing.assert_allclose(diagnostics["delta_norm"], lengths, rtol=1e-4)  # in the order of the requests
    assert {np.shape(value) for value in diagnostics.values()} == {(3,)}


def test_the_edit_reaches_its_target_value_where_the_metric_lets_it(tiny_model, moments):
    """With lambda near 0 a single fact is stored exactly: W k = what makes the residual stream z (one layer)."""
    chosen = settings(layers=(1,), moment_weight=1e-6)
    updates, _, _ = edit(tiny_model, moments, chosen, size=1, contexts=("{}",))
    rows = packed(tiny_model, EDITS, ("{}",), 64)[0]
    value_step = ValueSettings(layer=1, stop_loss=0.05, sites=("residual",), **COMMON)
    wanted = target_values(tiny_model.decoder, {}, rows, value_step).value[0]
    overrides = {(1, "down"): apply(tiny_model.weight(TENSORS[1]), updates[TENSORS[1]])}
    assert distance(seen(tiny_model.decoder, overrides, rows, "residual", 1)[0], wanted) < 1e-4


def test_one_layer_and_lambda_to_0_is_rome_with_one_key(tiny_model, moments):
    """ROME is the limit n = 1, lambda -> 0, where both read one bare context; clamp and decay, which know other norms,
    are off."""
    free = COMMON | {"clamp": 1e6, "weight_decay": 0.0}
    one, _, _ = edit(tiny_model, moments, settings(layers=(1,), moment_weight=1e-6, **free), 1, ("{}",))
    editor = rome(RomeSettings(layers=(1,), **free))
    rows = editor.prepare(tiny_model, EDITS, ("{}",), 1)[0]
    other, *_ = editor.step(tiny_model, editor.init(tiny_model, moments, 8), rows, None)
    assert distance(dense(one[TENSORS[1]]), dense(other[TENSORS[1]])) < 1e-3


def test_batches_are_cut_in_order_and_the_last_may_be_smaller(tiny_model):
    editor = memit(settings())
    batches = editor.prepare(tiny_model, EDITS, GROUPS, 2)
    alone = editor.prepare(tiny_model, EDITS, GROUPS, 1)
    assert [len(batch.place) for batch in batches] == [2, 1]
    rows = len(templates_of(GROUPS)) + 1
    for number, batch in enumerate(alone):
        (mine,) = groups_of(batch)
        group, at = divmod(int(batches[number // 2].place[number % 2]), batches[number // 2].rows.tail.shape[1])
        other = groups_of(batches[number // 2])[group]
        assert ids_of(mine) == ids_of(other)[at * rows : (at + 1) * rows]


@pytest.mark.parametrize("groups", [2, 3])
def test_groups_of_a_batch_change_nothing(tiny_model, moments, monkeypatch, groups):
    """Two groups of which one has a request twice, or a request at a time."""
    expected, told, batch = edit(tiny_model, moments, settings())
    assert len(groups_of(batch)) == 1
    tokens = batch.rows.suffix.ids.size // groups
    monkeypatch.setattr(import_module("prunejax.editors.spread"), "TOKENS", tokens)
    updates, diagnostics, batch = edit(tiny_model, moments, settings())
    assert len(groups_of(batch)) == groups
    for tensor, update in updates.items():
        assert distance(update.left, expected[tensor].left) < 1e-4
        assert distance(update.right, expected[tensor].right) < 1e-4
    for name, values in diagnostics.items():
        np.testing.assert_allclose(values, told[name], rtol=1e-4)


def test_groups_weigh_alike_and_templates_within_them():
    assert group_weights(GROUPS) == (0.5, 0.25, 0.25)
    assert group_weights(TEMPLATES) == (1 / 3, 1 / 3, 1 / 3)


def test_a_batch_that_is_not_finite_changes_nothing_and_says_so(tiny_model, moments):
    broken = tiny_model.with_weights({TENSORS[1]: jnp.full_like(tiny_model.weight(TENSORS[1]), jnp.nan)})
    updates, diagnostics, _ = edit(broken, moments, settings())
    assert not np.asarray(diagnostics["finite"]).any()
    for update in updates.values():
        assert not np.asarray(dense(update)).any()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"layers": (2, 0)}, "they are edited in order"),
        ({"layers": (1, 1)}, "they are edited in order"),
        ({"layers": ()}, "they are edited in order"),
        ({"moment_weight": 0.0}, "moment_weight must be above 0"),
        ({"steps": 0}, "steps must be at least 1"),
    ],
)
def test_settings_that_cannot_be(changed, complaint):
    with pytest.raises(InputError, match=complaint):
        settings(**changed)


def test_a_layer_without_a_second_moment_is_named(tiny_model, moments):
    with pytest.raises(InputError, match=r"moments: none for transformer\.h\.2"):
        memit(settings(layers=(1, 2))).init(tiny_model, moments, 8)


def test_rome_takes_neither_batches_nor_groups(tiny_model):
    editor = rome(RomeSettings(layers=(1,)))
    with pytest.raises(InputError, match="batch 2: ROME edits one request at a time"):
        editor.prepare(tiny_model, EDITS, TEMPLATES, 2)
    with pytest.raises(InputError, match="not over groups"):
        editor.prepare(tiny_model, EDITS, GROUPS, 1)
