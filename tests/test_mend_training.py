"""The training of MEND's hypernetwork, on the tiny model: what it learns from, what it keeps, and its loss."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from prunejax import mend_training
from prunejax.editors import settings_of
from prunejax.editors.hypernetwork import load_hypernetwork, places_of
from prunejax.errors import InputError
from prunejax.mend_training import Training, draw_batch, initial, labels, material, outer_loss, pick, train_mend
from prunejax.models.decoder import logits
from prunejax.models.presets import preset_settings
from prunejax.requests import EditRequest
from prunejax.single import single_edits
from prunejax.sources import WORLD_NETWORK, find_model, find_requests
from prunejax.update import apply, dense

PEOPLE = ("Ada Lovelace", "Alan Turing", "Marie Curie", "Grace Hopper", "Spain", "Chad", "France", "Rome")
TRAINING = Training((1,), rank=2, steps=20, edits=2, others=2, held_out=3, lr=1e-2, alpha=1e-2, alpha_lr=1e-2)


def request(name: str, number: int) -> EditRequest:
    new, true = ("Madrid", "Paris") if number % 2 else ("English", "Polish")
    return EditRequest(str(number), "{} lives in", name, new, true, (f"I think that {name} is", f"{name} is"))


REQUESTS = [request(name, number) for number, name in enumerate(PEOPLE)]


class Trained(NamedTuple):
    """A training that was not cut: its file and course, and from which numbers its batches came."""

    file: Path
    course: pd.DataFrame
    drawn: list[tuple[set[int], set[int]]]


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory) -> Trained:
    folder, drawn = tmp_path_factory.mktemp("trained"), []

    def noting(everything, edits, others, rng, training, n):
        drawn.append((set(edits), set(others)))
        return draw_batch(everything, edits, others, rng, training, n)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mend_training, "draw_batch", noting)
        patched.setattr(mend_training, "material", lambda model, requests: material(model, requests, 2))
        made = train_mend(tiny_model, REQUESTS, TRAINING, 0, folder / "network.safetensors")
    return Trained(*made, drawn)


def test_it_learns_and_its_course_is_written(trained):
    course, file = trained.course, trained.file
    assert list(course.columns) == ["step", "loss", "held_out_loss", "held_out_top1"]
    assert course["loss"].iloc[-5:].mean() < course["loss"].iloc[:5].mean()
    pd.testing.assert_frame_equal(pd.read_csv(file.with_suffix(".csv")), course, rtol=1e-2, check_dtype=False)
    assert tuple(load_hypernetwork(file).alpha) == places_of([1])


def test_a_training_that_is_cut_goes_on_from_its_last_check_to_the_same_bits(
    trained, tiny_model, tmp_path, monkeypatch
):
    """Cut at the eighth step; what is asked for with other words meanwhile is refused."""
    drawn, file, noted, save = [], tmp_path / "network.safetensors", [], mend_training.save_hypernetwork

    def cutting(*given: Any) -> tuple:
        drawn.append(given[-1])
        if len(drawn) == 1 + 8:
            raise KeyboardInterrupt
        return draw_batch(*given)

    def train(training: Training = TRAINING, seed: int = 0) -> pd.DataFrame:
        return train_mend(tiny_model, REQUESTS, training, seed, file, noted.append)[1]

    def saving(network: Any, path: Path) -> Path:
        assert path.with_suffix(".csv").exists(), "whoever sees the network has the course, too"
        return save(network, path)

    monkeypatch.setattr(mend_training, "material", lambda model, requests: material(model, requests, 2))
    with monkeypatch.context() as patched:
        patched.setattr(mend_training, "draw_batch", cutting)
        with pytest.raises(KeyboardInterrupt):
            train()
    assert [path.name for path in tmp_path.iterdir()] == [".network.safetensors.progress"]
    with pytest.raises(InputError, match=r"\(edits 2 -> 1; seed 0 -> 1\); give those, remove this file, or choose"):
        train(replace(TRAINING, edits=1), 1)
    drawn.clear()
    monkeypatch.setattr(mend_training, "draw_batch", lambda *given: (drawn.append(given[-1]), draw_batch(*given))[1])
    monkeypatch.setattr(mend_training, "save_hypernetwork", saving)
    pd.testing.assert_frame_equal(train(), trained.course)
    assert drawn == [3, *[2] * 13], "the trial and the 13 steps that were not done"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["network.csv", "network.safetensors"]
    assert file.read_bytes() == trained.file.read_bytes()
    assert file.with_suffix(".csv").read_bytes() == trained.file.with_suffix(".csv").read_bytes()
    assert noted == []


def test_held_out_requests_are_never_trained_on(trained):
    held, *learned = trained.drawn
    assert len(held[0]) == 3
    assert len(learned) == TRAINING.steps
    for edits, others in learned:
        assert len(edits) == 5
        assert not (edits | others) & held[0]


def test_a_batch_holds_an_edit_its_paraphrase_and_facts_of_others(tiny_model):
    everything = material(tiny_model, REQUESTS, 2)
    rng = np.random.default_rng(0)
    edit, rephrased, others = draw_batch(everything, np.arange(6), np.arange(6), rng, TRAINING, 4)
    assert [part.tokens.shape[:2] for part in (edit, rephrased, others)] == [(4, 1), (4, 1), (4, 2)]
    decode = tiny_model.tokenizer.decode
    for i in range(4):
        (said,), (again,) = ([decode(row) for row in part.tokens[i]] for part in (edit, rephrased))
        name = next(name for name in PEOPLE if said.startswith(name))
        number = PEOPLE.index(name)
        assert said.split("<")[0].strip().endswith(REQUESTS[number].target_new)
        assert name in again
        assert not any(decode(row).startswith(name) for row in others.tokens[i])


def test_half_of_the_facts_to_leave_alone_share_the_relation():
    relation = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    for seed in range(5):
        rng = np.random.default_rng(seed)
        drawn = mend_training.draw_others(relation, np.arange(1, 9), 0, rng, replace(TRAINING, others=4))
        assert len(set(drawn)) == 4
        assert sum(relation[drawn[:2]] == 0) == 2
        few = mend_training.draw_others(relation, np.arange(8), 8, rng, replace(TRAINING, others=4))
        assert len(set(few)) == 4, "none shares it, others fill up"


def test_the_first_networks_normalise_what_the_gradients_are(tiny_model):
    places = places_of([1])
    first = initial(tiny_model, material(tiny_model, REQUESTS, 2), TRAINING, places, 0)
    for network in first.networks.values():
        assert network.mean.shape == (1, 80)
        assert not np.any(network.hidden.second)
    named = labels(first)
    assert named.networks["up"].mean == named.networks["down"].deviation == "fixed"
    assert named.networks["up"].hidden.first == "network"
    assert set(named.alpha.values()) == {"alpha"}


def test_the_loss_is_what_it_says(tiny_model):
    """0.1 NLL of the edit in other words + 5 KL(unedited || edited) on others' answers, for one written-out edit."""
    places = places_of([1])
    everything = material(tiny_model, REQUESTS, 2)
    network = initial(tiny_model, everything, TRAINING, places, 0)
    batch = draw_batch(everything, np.arange(6), np.arange(6), np.random.default_rng(1), TRAINING, 1)
    kernels = {place: tiny_model.weight(tiny_model.family.edited_tensor(*place)) for place in places}
    compiled = jax.jit(partial(outer_loss, tiny_model.decoder, kernels, training=TRAINING, places=places))
    loss, _ = compiled(network, batch)
    edit, rephrased, others = (pick(part, 0) for part in batch)
    _, factors = mend_training.gradient_factors(tiny_model.decoder, {}, edit, places)
    updates = mend_training.edit_of(network, factors, 1.0)
    assert all(np.any(dense(update)) for update in updates.values())
    edited = {place: apply(kernels[place], update) for place, update in updates.items()}

    def log_p(rows, overrides):
        return np.asarray(jax.nn.log_softmax(logits(tiny_model.decoder, rows.tokens, rows.positions, overrides)))

    said = log_p(rephrased, edited)[0]
    nll = -np.mean([said[at - 1, rephrased.tokens[0, at]] for at in np.flatnonzero(rephrased.learned[0])])
    before, after = log_p(others, {}), log_p(others, edited)
    divergence = [
        np.sum(np.exp(before[row, at - 1]) * (before[row, at - 1] - after[row, at - 1]))
        for row, at in zip(*np.nonzero(others.learned), strict=True)
    ]
    assert float(loss) == pytest.approx(0.1 * nll + 5 * np.mean(divergence), rel=1e-4)


def test_requests_without_what_training_asks_for_are_named(tiny_model):
    with pytest.raises(InputError, match="requests: 0 has no true answer or fewer than 3 paraphrases"):
        material(tiny_model, REQUESTS, 3)
    with pytest.raises(InputError, match="requests: 0 has no true answer"):
        material(tiny_model, [replace(REQUESTS[0], target_true=None)], 2)


def test_picking_rows_keeps_the_kind_of_tuple():
    pair = mend_training.Material(*(jnp.arange(3) + i for i in range(4)))
    assert [int(part) for part in pick(pair, 1)] == [1, 2, 3, 4]
    assert isinstance(pick(pair, 1), mend_training.Material)


def test_the_committed_network_is_small_and_its_course_is_beside_it():
    assert WORLD_NETWORK.stat().st_size <= 4_000_000
    course = pd.read_csv(WORLD_NETWORK.with_suffix(".csv"))
    assert course["step"].iloc[-1] == Training((0, 1, 2)).steps
    assert tuple(load_hypernetwork(WORLD_NETWORK).alpha) == places_of([0, 1, 2])


def test_the_committed_network_edits_people_that_it_has_not_seen():
    """A few of the `tune` pool; data/mend/README.md tells the counts on 200 of `report`."""
    model, requests = find_model("world"), find_requests("world/tune:12", 1)
    settings = settings_of("mend", preset_settings("world", "mend"))
    rows = single_edits(model, requests, "mend", settings, ("{}",), None)
    means = rows.groupby("metric")["after"].mean()
    assert means["efficacy_top1"] >= 0.8
    assert means["locality_top1"] >= 0.8
