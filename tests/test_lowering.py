"""What runs on a device lowers for GPUs and TPUs, which nobody needs to have for that; and the editing mathematics asks
for full float32 there, where a product is otherwise taken in fewer bits."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import ShapeDtypeStruct

from prunejax.abstract import Facts, abstract_mesh, abstract_model, edit_arguments
from prunejax.editors import editor_row, settings_of
from prunejax.editors.anchor import wanted_values
from prunejax.editors.rome import rank_one
from prunejax.editors.spread import Choice, spread_update, values_of_groups
from prunejax.plan import trace_edit
from prunejax.restraint import random_directions
from prunejax.spectra import thin_qr
from prunejax.update import LowRank, apply, product, total
from tiny_plans import model_of, on_one_device

PLATFORMS = ("cuda", "tpu")
FACTS = Facts(contexts=3, tokens=16, suffix=8, labels=2)
LAYERS = {"rome": (1,), "memit": (0, 1), "mend": (1, 2)}
HIGHEST = "precision = [HIGHEST, HIGHEST]"
PRODUCT = re.compile(r"stablehlo\.dot_general (.*) : \(tensor<(.*?)>, tensor<(.*?)>\)")


def lowered(traced: jax.stages.Traced, platform: str) -> str:
    return traced.lower(lowering_platforms=(platform,)).as_text()


def prepared(kind: str, name: str, dtype: str = "float32"):
    """A tiny model, an editor of it with its settings, and its arguments, as shapes on one device."""
    mesh = abstract_mesh(None)
    model = model_of(kind, n_layers=4, d_model=64, vocab_size=300, dtype=dtype)
    settings = settings_of(name, {"layers": LAYERS[name]})
    editor, facts = editor_row(name).make(settings), FACTS._replace(batch=2 if name == "memit" else 1)
    return model, editor, settings, on_one_device(edit_arguments(model, name, editor, settings, facts, mesh))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_an_edit_lowers_and_every_product_in_it_asks_for_full_precision(kind, name, dtype, platform):
    model, editor, _, arguments = prepared(kind, name, dtype)
    text = lowered(trace_edit(model, editor, arguments, abstract_mesh(None)), platform)
    products = PRODUCT.findall(text)
    assert len(products) > 20
    assert all(HIGHEST in options for options, _, _ in products)


def operands_at_full_precision(text: str) -> set[tuple[str, str]]:
    return {(left, right) for options, left, right in PRODUCT.findall(text) if HIGHEST in options}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_of_rome_the_solve_asks_for_full_precision_whatever_the_default_is(platform):
    model, _, settings, (decoder, weights, state, rows) = prepared("llama", "rome")
    searched = partial(wanted_values, settings=settings.value_step("value"))
    target = jax.eval_shape(searched, decoder, {(1, "down"): next(iter(weights.values()))}, rows)
    traced = rank_one.trace(state.fixed.inverse, target, False)
    key, square = f"{model.config.d_ff}xf32", f"{model.config.d_ff}x{model.config.d_ff}xf32"
    assert operands_at_full_precision(lowered(traced, platform)) == {
        (square, key),  # C^-1 k
        (key, key),  # k . u
    }


@pytest.mark.parametrize("platform", PLATFORMS)
def test_of_memit_keys_solve_and_weights_ask_for_full_precision_whatever_the_default_is(platform):
    model, _, settings, (decoder, weights, state, batch) = prepared("llama", "memit")
    kernels = tuple(weights.values())
    overrides = {(layer, "down"): kernel for layer, kernel in zip(settings.layers, kernels, strict=True)}
    choice = Choice(settings.layers, settings.value_step("residual"))
    searched = partial(values_of_groups, settings=choice.value_step, opened=state.fixed.opened)
    targets = jax.eval_shape(searched, decoder, overrides, batch)
    traced = spread_update.trace(decoder, overrides, kernels, state.fixed.metrics, (), batch, targets, choice)
    d_ff, d = model.config.d_ff, model.config.d_model
    assert operands_at_full_precision(lowered(traced, platform)) == {
        ("3xf32", f"2x3x{d_ff}xf32"),  # the mean keys over contexts
        (f"2x{d_ff}xf32", f"{d_ff}x{d_ff}xf32"),  # B = C^-1 K
        (f"2x{d_ff}xf32", f"{d_ff}x2xf32"),  # K^T B
        (f"{d_ff}x2xf32", f"2x{d}xf32"),  # the weights that the next layer is read with
    }


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_edit_divided_on_eight_devices_lowers(platform):
    mesh = abstract_mesh("data=2,model=4")
    model, settings = abstract_model("llama-3-8b", "bfloat16", mesh), settings_of("memit", {"layers": (4, 5)})
    editor = editor_row("memit").make(settings)
    arguments = edit_arguments(model, "memit", editor, settings, Facts(contexts=6, batch=2), mesh)
    text = lowered(trace_edit(model, editor, arguments, mesh), platform)
    assert "mhlo.num_partitions = 8" in text
    assert "sharding_constraint" in text


DEVICE_PARTS = {
    "thin_qr": (thin_qr, [(96, 3), (3, 64)]),
    "product": (product, [(96, 3), (3, 64)]),
    "apply": (lambda weight, left, right: apply(weight, LowRank(left, right)), [(96, 64), (96, 3), (3, 64)]),
    "total": (lambda left, right: total([LowRank(left, right)] * 2), [(96, 3), (3, 64)]),
    "random directions": (lambda left, right: random_directions(0, left, right), [(96, 3), (3, 64)]),
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("part", DEVICE_PARTS)
def test_what_a_restraint_does_on_a_device_lowers(part, platform):
    function, shapes = DEVICE_PARTS[part]
    text = lowered(jax.jit(function).trace(*(ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)), platform)
    assert all(HIGHEST in options for options, _, _ in PRODUCT.findall(text))
    assert bool(PRODUCT.findall(text)) == (part in ("product", "apply"))
