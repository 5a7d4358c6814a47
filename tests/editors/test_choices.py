"""What tells PMET, ENCORE, NSE and fine-tuning apart, each beside the same by hand in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from oracles import distance, gpt2, log_softmax
from packed import packed
from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import Moments, SecondMoment
from prunejax.editors.streams import read_facts, run_below
from prunejax.editors.value import target_values
from prunejax.models.checkpoints import Model
from prunejax.tokens import tokenize_completion
from prunejax.update import dense
from tiny import EDITS

LAYERS = (0, 1)
TENSORS = tuple(f"transformer.h.{layer}.mlp.c_proj.weight" for layer in LAYERS)
CONTEXTS = (("{}",),)
STEPS: dict[str, Any] = {"layers": LAYERS, "steps": 4, "lr": 0.5, "moment_weight": 0.5}


@pytest.fixture(scope="module")
def moments() -> Moments:
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=(200, 64)) * np.geomspace(0.1, 3, 64) for _ in LAYERS]
    matrices = [(samples.T @ samples / 200).astype(np.float32) for samples in drawn]
    return Moments({t: SecondMoment(c, 200) for t, c in zip(TENSORS, matrices, strict=True)}, "0" * 64)


def edit(name: str, model: Model, moments: Moments, base: Model | None = None, **more: Any) -> tuple[Any, Any, dict]:
    """The editor's choice, its settings and its dense updates for all requests at once, on `model`."""
    settings = settings_of(name, STEPS | more)
    editor = editor_row(name).make(settings)
    (batch,) = editor.prepare(model, EDITS, CONTEXTS, len(EDITS))
    updates, *_ = editor.step(model, editor.init(base or model, moments, 6), batch, None)
    return editor.choice, settings, {t: np.asarray(dense(u), np.float64) for t, u in updates.items()}


def seen(model: Model, overrides: dict, layer: int, site: str) -> tuple[np.ndarray, np.ndarray]:
    """The bare prompts' keys at a layer, and what stands at the site of the last one, [n, ...]."""
    found = []
    for rows in packed(model, EDITS, ("{}",), 64):
        below = run_below(model.decoder, overrides, rows, layer)
        weights = jnp.ones(1)
        found.append(read_facts(model.decoder, overrides, rows, below, weights=weights, layer=layer, last=1, site=site))
    return tuple(np.concatenate([np.asarray(part, np.float64) for part in parts]) for parts in zip(*found, strict=True))


def values(model: Model, overrides: dict, choice: Any) -> np.ndarray:
    rows = packed(model, EDITS, ("{}",), 64)
    found = [target_values(model.decoder, overrides, one, choice.value_step).value for one in rows]
    return np.concatenate([np.asarray(one, np.float64) for one in found])


@pytest.mark.parametrize(("name", "root", "ridge"), [("memit", 1.0, 0.0), ("pmet", 0.5, 0.0), ("encore", 1.0, 0.7)])
def test_a_layer_takes_its_share_of_the_residual_in_its_own_metric(tiny_model, moments, name, root, ridge):
    """PMET divides by the square root of the layers left and reads the MLP's output; ENCORE adds lambda_n I."""
    more = {"key_ridge": ridge, "patience": 0} if name == "encore" else {}
    choice, settings, updates = edit(name, tiny_model, moments, **more)
    z, overrides = values(tiny_model, {}, choice), {}
    for number, (layer, tensor) in enumerate(zip(LAYERS, TENSORS, strict=True)):
        keys, now = seen(tiny_model, overrides, layer, choice.value_step.sites[-1])
        residual = (z - now) / (2 - number) ** root
        s = settings.moment_weight * moments.of(tensor).matrix.astype(np.float64) + ridge * np.eye(64)
        exact = np.linalg.solve(s + keys.T @ keys, keys.T @ residual)
        assert distance(updates[tensor], exact) < 2e-4
        edited = np.asarray(tiny_model.weight(tensor)) + updates[tensor]
        overrides[layer, "down"] = jnp.asarray(edited, jnp.float32)


def test_nse_takes_the_values_of_the_unedited_model_and_leaves_requests_out(tiny_model, moments):
    """One pass; of three requests those whose residual lies between the bounds."""
    kernel = 1.5 * tiny_model.weight(TENSORS[0])
    edited = tiny_model.with_weights({TENSORS[0]: kernel, TENSORS[1]: tiny_model.weight(TENSORS[1])})
    free = {"passes": 1, "least": 0.0, "most": 1e9, "keep": 1.0}
    choice, settings, every = edit("nse", edited, moments, tiny_model, **free)
    overrides = dict(edited.overrides)
    z = values(tiny_model, {}, choice)
    keys, now = seen(edited, overrides, 0, "residual")
    lengths = np.linalg.norm(z - now, axis=1)
    bounds = {"least": float(np.sort(lengths)[0] * 1.01), "most": float(np.sort(lengths)[-1] * 0.99)}
    _, _, few = edit("nse", edited, moments, tiny_model, **(free | bounds))
    s = settings.moment_weight * moments.of(TENSORS[0]).matrix.astype(np.float64)
    for found, inside in ((every, lengths > 0), (few, (lengths > bounds["least"]) & (lengths < bounds["most"]))):
        k = keys[inside]
        exact = np.linalg.solve(s + k.T @ k, k.T @ (z - now)[inside] / 2)
        assert distance(found[TENSORS[0]], exact) < 2e-4
    assert distance(values(tiny_model, overrides, choice), z) > 1e-2, "on the edited weights other values are found"


def test_a_second_pass_of_nse_corrects_what_the_first_left(tiny_model, moments):
    one, two = (edit("nse", tiny_model, moments, passes=n, least=0.0, most=1e9, keep=1.0)[2] for n in (1, 2))
    choice = edit("nse", tiny_model, moments, passes=1, least=0.0, most=1e9, keep=1.0)[0]
    z, left = values(tiny_model, {}, choice), []
    for updates in (one, two):
        changed = {
            (layer, "down"): jnp.asarray(np.asarray(tiny_model.weight(t)) + updates[t], jnp.float32)
            for layer, t in zip(LAYERS, TENSORS, strict=True)
        }
        left.append(np.linalg.norm(z - seen(tiny_model, changed, 1, "residual")[1]))
    assert left[1] < left[0]


@pytest.mark.parametrize(("name", "box"), [("ft-l", 0.02), ("ft-m", 0.02), ("ft-m", 0.0)])
def test_fine_tuning_is_adam_on_the_weight_in_its_box(tiny_folder, tiny_model, name, box):
    """FT-L reads the distribution behind the prompt for every token of the target, FT-M each where it stands."""
    tensors = load_file(tiny_folder / "model.safetensors")
    editor = editor_row(name).make(settings_of(name, {"layers": 1, "steps": 3, "lr": 0.01, "box": box}))
    (batch,) = editor.prepare(tiny_model, EDITS, ("{}",), 3)
    updates, _, _, told = editor.step(tiny_model, editor.init(tiny_model, None, 3), batch, None)
    read = [tokenize_completion(tiny_model.tokenizer, r.prompt.format(r.subject), r.target_new) for r in EDITS]
    with jax.enable_x64(True):

        def loss(weight):
            total = 0.0
            for one in read:
                log_p = log_softmax(gpt2(tensors | {TENSORS[1]: weight}, one.ids, 2, xp=jnp).logits, jnp)
                places = range(one.answer_start - 1, len(one.ids) - 1)
                said = [log_p[p if name == "ft-m" else one.answer_start - 1, one.ids[p + 1]] for p in places]
                total -= sum(said) / len(said) / len(read)
            return total

        start = jnp.asarray(tensors[TENSORS[1]], jnp.float64)
        weight, first, second = start, 0.0, 0.0
        losses = []
        for t in (1, 2, 3):
            value, gradient = jax.value_and_grad(loss)(weight)
            losses.append(float(value))
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            weight = weight - 0.01 * (first / (1 - 0.9**t)) / (jnp.sqrt(second / (1 - 0.999**t)) + 1e-8)
            weight = jnp.clip(weight, start - box, start + box) if box else weight
    assert distance(dense(updates[TENSORS[1]]), np.asarray(weight - start)) < 2e-2  # Adam turns rounding into signs
    assert float(told["loss_first"]) == pytest.approx(losses[0], rel=1e-4)
    assert float(told["loss_last"]) == pytest.approx(losses[-1], rel=1e-3)
