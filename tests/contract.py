"""The contract that every editor keeps: what each test of `test_contract` does with one editor, given as a case.

A case is a row of the table (or one that stands in none), settings for an edit of the tiny model's layer 1, and for the
embedded world with how many requests it edits there at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prunejax.course import Plan
from prunejax.editing import edit_batch
from prunejax.editors import EditorRow, parsed_settings
from prunejax.editors.editor import Editor, anywhere
from prunejax.editors.hypernetwork import Hypernetwork, identity_network, places_of, save_hypernetwork
from prunejax.editors.moments import Moments
from prunejax.evaluate.likelihood import lay_out, likelihoods
from prunejax.events import Event
from prunejax.fold import accumulated
from prunejax.models.checkpoints import Model
from prunejax.models.forward import Forward
from prunejax.models.presets import preset_settings
from prunejax.requests import EditRequest
from prunejax.run import create_run
from prunejax.sequence import edit_sequence
from prunejax.stored import read_carried, record_event
from prunejax.tokens import tokenize_completion
from prunejax.update import dense, shape
from tiny import EDITS, TEMPLATES

STEPS = {"layers": "1", "steps": 6, "lr": 0.5, "weight_decay": 0.05, "ridge": 0.1, "moment_weight": 0.1}
OWN: Mapping[str, Mapping[str, Any]] = {
    "ft-l": {"lr": 0.01, "box": 0.05},
    "ft-m": {"lr": 0.01, "box": 0.05},
    "alphaedit": {"ridge": 0.0, "cut": "energy", "threshold": 0.2, "key_ridge": 0.1},
    "nse": {"least": 0.0, "keep": 0.8},
    "encore": {"key_ridge": 0.1, "patience": 2},
    "ultraedit": {"lr": 0.01},
}
"""What an editor needs on the tiny model beyond STEPS."""


class Case(NamedTuple):
    """An editor under test; without settings for the world those of its preset."""

    name: str
    row: EditorRow
    tiny: Mapping[str, Any]
    world: Mapping[str, Any] | None = None
    at_once: int = 1

    def editor(self, settings: Mapping[str, Any] | None = None) -> Editor:
        """The editor with these settings, or those for the tiny model."""
        return self.row.make(parsed_settings(self.name, self.row, self.tiny if settings is None else settings))


def case_of(name: str, row: EditorRow, network: Path) -> Case:
    """The case of a row of the table; `network` is a hypernetwork of the tiny model."""
    known = {field.name for field in fields(row.settings)}
    tiny = {key: value for key, value in (STEPS | OWN.get(name, {})).items() if key in known}
    tiny |= {"network": str(network)} if "network" in known else {}
    return Case(name, row, tiny, at_once=20 if row.refused("single") else 1)


def tiny_network(folder: Path) -> Path:
    """A hypernetwork that changes nothing but the scale of its inputs, for both kernels of the tiny model's layer 1."""
    places = places_of([1])
    networks = {
        kernel: identity_network(jax.random.key(0), 80, 4, jnp.zeros((1, 80)), jnp.full((1, 80), 0.5))
        for kernel in ("up", "down")
    }
    made = Hypernetwork(networks, {place: jnp.asarray(0.01) for place in places})
    return save_hypernetwork(made, folder / "network.safetensors")


class Sequence3(NamedTuple):
    """What three edits, one after another, gave: updates, diagnostics, the weights, the last memory."""

    updates: list[Any]
    diagnostics: list[Any]
    weights: dict
    memory: Any


def edit_all(editor: Editor, model: Model, moments: Moments) -> Sequence3:
    """The tiny model's requests in order, each on what the earlier ones left."""
    state, batches = editor.init(model, moments, len(EDITS)), editor.prepare(model, EDITS, TEMPLATES, 1)
    weights = {tensor: model.weight(tensor) for tensor in editor.tensors(model)}
    found = Sequence3([], [], weights, None)
    for number, batch in enumerate(batches):
        key = jax.random.fold_in(jax.random.key(0), number)
        weights, state, memory, updates, diagnostics = edit_batch(editor, model, weights, state, batch, key)
        found.updates.append(updates)
        found.diagnostics.append(diagnostics)
    return found._replace(weights=weights, memory=memory)


def bits(tree: Any) -> list[bytes]:
    """Every array of a tree to the bit."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def model_bits(model: Model) -> list[bytes]:
    return bits((nnx.state(model.decoder), dict(model.overrides)))


def mutates_nothing_and_writes_declared_tensors_alone(case: Case, model: Model, moments: Moments) -> None:
    before, of_moments = model_bits(model), [m.matrix.copy() for m in moments.by_tensor.values()]
    editor = case.editor()
    found = edit_all(editor, model, moments)
    assert model_bits(model) == before
    for moment, old in zip(moments.by_tensor.values(), of_moments, strict=True):
        np.testing.assert_array_equal(moment.matrix, old)
    for updates in found.updates:
        assert set(updates) == set(editor.tensors(model))
        for tensor, change in updates.items():
            assert shape(change) == model.weight(tensor).shape
    for tensor in editor.tensors(model):
        assert np.linalg.norm(dense(found.updates[-1][tensor])) > 0


def gives_the_same_bits(case: Case, model: Model, moments: Moments) -> None:
    first, second = (edit_all(case.editor(), model, moments) for _ in range(2))
    assert bits(first) == bits(second)


def compiles_nothing_the_second_time(case: Case, model: Model, moments: Moments) -> None:
    """Weights and requests are arguments: nothing is traced again, neither for the next edit nor for the next run."""
    edit_all(case.editor(), model, moments)
    traced = []

    def listener(event: str, duration: float, **details: Any) -> None:
        if event.endswith("jaxpr_trace_duration"):
            traced.append(details)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.jit(lambda x: x + 1)(1)
        assert traced, "the listener hears of tracing"
        traced.clear()
        edit_all(case.editor(), model, moments)
        assert traced == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


def edits_on_what_the_earlier_left(case: Case, model: Model, moments: Moments) -> None:
    editor = case.editor()
    found = edit_all(editor, model, moments)
    batch = editor.prepare(model, EDITS, TEMPLATES, 1)[2]
    weights = {tensor: model.weight(tensor) for tensor in editor.tensors(model)}
    fresh = edit_batch(editor, model, weights, editor.init(model, moments, 3), batch, jax.random.key(0))
    for tensor, change in fresh.updates.items():
        assert not np.allclose(dense(change), dense(found.updates[2][tensor]), rtol=1e-3, atol=0)


def tells_numbers_of_one_kind(case: Case, model: Model, moments: Moments) -> None:
    found = edit_all(case.editor(), model, moments)
    for row in found.diagnostics:
        assert set(row) == set(found.diagnostics[0])
        assert all(np.size(value) == 1 for value in row.values())
        assert {"loss_first", "loss_last", "finite"} <= set(row)
        assert case.row.divides == ("denominator" in row)
        assert bool(np.all(row["finite"]))


def edits_a_batch_of_one_as_a_single_request(case: Case, model: Model, moments: Moments) -> None:
    """Whether one request was asked for or several were, of which there is one."""
    editor, size = case.editor(), 1 if case.row.refused("batched") else len(EDITS)
    weights = {tensor: model.weight(tensor) for tensor in editor.tensors(model)}
    one, other = (
        edit_batch(
            *(editor, model, weights, editor.init(model, moments, 3)),
            *(editor.prepare(model, EDITS[1:2], TEMPLATES, asked)[0], jax.random.key(0)),
        )
        for asked in (1, size)
    )
    assert bits(one) == bits(other)


def keeps_the_models_dtype(case: Case, model: Model, moments: Moments) -> None:
    """Edits of half-precision weights are float32 and leave the stack as it was."""
    graph, state = nnx.split(model.decoder)
    half = nnx.merge(graph, jax.tree.map(lambda x: x.astype(jnp.bfloat16), state))
    loaded = Model(**{f.name: getattr(model, f.name) for f in fields(model)} | {"decoder": half})
    before = model_bits(loaded)
    found = edit_all(case.editor(), loaded, moments)
    assert model_bits(loaded) == before
    assert {leaf.dtype for leaf in jax.tree.leaves((found.updates, found.weights))} <= {jnp.dtype("float32")}
    assert all(bool(np.all(row["finite"])) for row in found.diagnostics)


def flags_what_is_not_finite(case: Case, model: Model, moments: Moments) -> None:
    """On a collapsed weight nothing is added, the flag says so, and the editor remembers nothing of it."""
    editor = case.editor()
    state, batch = editor.init(model, moments, 3), editor.prepare(model, EDITS, TEMPLATES, 1)[1]
    broken = {tensor: jnp.full_like(model.weight(tensor), jnp.nan) for tensor in editor.tensors(model)}
    if not broken:
        return
    found = edit_batch(editor, model, broken, state, batch, jax.random.key(0))
    assert not np.any(found.diagnostics["finite"])
    assert all(not np.any(dense(update)) for update in found.updates.values())
    assert bits(found.state.carried) == bits(state.carried)


def goes_on_from_its_stored_state(case: Case, model: Model, moments: Moments, folder: Path) -> None:
    """Written after two edits and read back, by a process that has made its state anew, the third is the same."""
    editor = case.editor()
    whole = edit_all(editor, model, moments)
    batches, state = editor.prepare(model, EDITS, TEMPLATES, 1), editor.init(model, moments, 3)
    weights = {tensor: model.weight(tensor) for tensor in editor.tensors(model)}
    for number in (0, 1):
        key = jax.random.fold_in(jax.random.key(0), number)
        weights, state, *_ = edit_batch(editor, model, weights, state, batches[number], key)
    run = create_run(folder / "run", {"tensors": list(weights)}, EDITS, TEMPLATES)
    record_event(run, Event(0, "edit", 1, 2), weights, editor.stored(state.carried))
    fresh = case.editor().init(model, moments, 3)
    again = fresh._replace(carried=read_carried(run, 2, fresh.carried, editor.stored))
    key = jax.random.fold_in(jax.random.key(0), 2)
    third = edit_batch(editor, model, weights, again, batches[2], key)
    assert bits((third.weights, third.memory)) == bits((whole.weights, whole.memory))


def is_restrained_on_each_update_their_sum_and_the_weight(
    case: Case, model: Model, moments: Moments, folder: Path
) -> None:
    """A fifth of each update is written, unless the editor brings it back where it may write; after two edits what
    accumulated is restrained so that sigma_max is at most W_0's, and the third edit goes on from there."""
    settings = parsed_settings(case.name, case.row, case.tiny)
    plan = Plan(case.name, settings, restrain="rect:20+log:e+cap:1@2")
    run = edit_sequence(folder / "run", model, EDITS, plan, TEMPLATES, moments)
    original = {tensor: model.weight(tensor) for tensor in run.tensors}
    two, three = (
        {tensor: np.asarray(dense(update)) for tensor, update in accumulated(run, n, original).items()} for n in (2, 3)
    )
    for tensor, weight in original.items():
        assert np.linalg.norm(weight + two[tensor], 2) <= np.linalg.norm(weight, 2) * (1 + 1e-5)
        written = np.count_nonzero(three[tensor] - two[tensor]) / weight.size
        assert 0 < written <= (0.21 if case.row.make(settings).within is anywhere else 1)


def target_nll(forward: Forward, tokenizer: Any, requests: Sequence[EditRequest]) -> np.ndarray:
    """-log p of each request's target, nats a token."""
    asked = [tokenize_completion(tokenizer, r.prompt.format(r.subject), r.target_new) for r in requests]
    return likelihoods(forward, lay_out(asked)).nll


def raises_the_targets_probability(case: Case, model: Model, moments: Moments, requests: Sequence[EditRequest]) -> None:
    """On the embedded world: of each request's target, after the batch that it was edited in."""
    editor = case.editor(preset_settings("world", case.name) if case.world is None else case.world)
    contexts = case.row.contexts(model, 0)
    before = target_nll(editor.answer(model, None), model.tokenizer, requests)
    weights = {tensor: model.weight(tensor) for tensor in editor.tensors(model)}
    state, after = editor.init(model, moments, len(requests)), []
    for number, batch in enumerate(editor.prepare(model, requests, contexts, case.at_once)):
        found = edit_batch(editor, model, weights, state, batch, jax.random.key(number))
        mine = requests[number * case.at_once : (number + 1) * case.at_once]
        forward = editor.answer(model.with_weights(found.weights), found.memory)
        after += list(target_nll(forward, model.tokenizer, mine))
    assert np.mean(np.asarray(after) < before) >= 0.9
    assert np.mean(after) < np.mean(before) - 1


CONTRACT = (
    mutates_nothing_and_writes_declared_tensors_alone,
    gives_the_same_bits,
    compiles_nothing_the_second_time,
    tells_numbers_of_one_kind,
    edits_a_batch_of_one_as_a_single_request,
    keeps_the_models_dtype,
    flags_what_is_not_finite,
)
"""What is asked of an editor, a model and second moments alone."""
