"""Pretraining: the tokenizer and the model that a seed makes, on a recipe small enough for a test."""

import json
import math
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx
from tokenizers import Tokenizer

from prunejax.errors import InputError
from prunejax.models.checkpoints import load_model
from prunejax.models.config import DecoderConfig
from prunejax.models.decoder import Decoder, logits
from prunejax.sources import WORLD_FOLDER
from prunejax.world import pretrain
from prunejax.world.facts import World, load_world, make_world
from prunejax.world.pretrain import (
    END_OF_TEXT,
    PROBE_LENGTH,
    Recipe,
    batches,
    mean_loss,
    pretrain_world,
    recall,
    recall_probe,
    train_tokenizer,
)
from prunejax.world.text import Windows

TINY = Recipe(n_layers=1, n_heads=2, d_model=32, d_ff=64, steps=200, rows=6, length=48, stages=((0.0, 60),))
REHEARSAL = replace(TINY, steps=100, sealed=0.0, text=5)
FILES = ("config.json", "model.safetensors", "pretraining.csv", "tokenizer.json", "tokenizer_config.json", "world.json")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(0)


@pytest.fixture(scope="module")
def tokenizer(world: World) -> Tokenizer:
    return train_tokenizer(world)


@pytest.fixture(scope="module")
def made(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of seed 0, of seed 0 once more, and of seed 1; the tokenizer, equal for all, is trained once."""
    folder = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pretrain, "train_tokenizer", lambda world: tokenizer)
        seeds = {"first": 0, "again": 0, "other": 1}
        return {name: pretrain_world(folder / name, seed, TINY, REHEARSAL) for name, seed in seeds.items()}


def test_the_stored_tokenizer_is_the_one_that_training_makes(tokenizer: Tokenizer) -> None:
    stored = json.loads((WORLD_FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    assert stored == json.loads(tokenizer.to_str())


def test_the_tokenizer_gives_every_text_back(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_to_id(END_OF_TEXT) == 0
    for text in ("Letters to Bafak Dilor are sent to Rimel.", " Sum: 3 + 4 =", "Łódź, 北京 and\n\ttabs"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_seed_makes_the_same_files_to_the_bit(made: dict[str, Path]) -> None:
    for name in FILES:
        assert (made["first"] / name).read_bytes() == (made["again"] / name).read_bytes(), name
    assert sorted(path.name for path in made["first"].iterdir()) == sorted(FILES)


def test_what_is_cut_goes_on_from_its_last_saved_step_to_the_same_bits(
    made: dict[str, Path], tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in the first training, in the rehearsal, and between two of the files; the steps of each call are counted."""
    folder, steps, until, noted = tmp_path / "world", [], [150], []

    def counted(stream: Any, done: int, stop: None) -> Any:
        for batch in islice(stream, done, stop):
            if len(steps) == until[0]:
                raise KeyboardInterrupt
            steps.append(done)
            yield batch

    def cut() -> int:
        with pytest.raises(KeyboardInterrupt):
            pretrain_world(folder, 0, TINY, REHEARSAL, noted.append)
        assert not (folder / "model.safetensors").exists(), "what holds weights is whole"
        assert (tmp_path / ".world.progress").exists()
        return len(steps)

    monkeypatch.setattr(pretrain, "train_tokenizer", lambda world: tokenizer)
    monkeypatch.setattr(pretrain, "islice", counted)
    assert cut() == 150
    with pytest.raises(InputError, match=r"\(rehearsal steps 100 -> 50; seed 0 -> 1\); give those"):
        pretrain_world(folder, 1, TINY, replace(REHEARSAL, steps=50), noted.append)
    steps.clear()
    assert cut() == 150, "100 of the first training, 50 of the rehearsal"
    assert steps == [100] * 100 + [0] * 50
    steps.clear()
    with monkeypatch.context() as patched:
        patched.setattr(pretrain, "save_model", interrupted)
        assert cut() == 100, "of the rehearsal"
    steps.clear()
    pretrain_world(folder, 0, TINY, REHEARSAL, noted.append)
    assert steps == []
    assert [path.name for path in tmp_path.iterdir()] == ["world"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (folder / name).read_bytes() == (made["first"] / name).read_bytes(), name
    assert noted == []


def interrupted(*given: Any) -> None:
    raise KeyboardInterrupt


def test_another_seed_makes_another_model_of_the_same_world(made: dict[str, Path]) -> None:
    same = {name: (made["first"] / name).read_bytes() == (made["other"] / name).read_bytes() for name in FILES}
    assert same == {name: name not in ("model.safetensors", "pretraining.csv") for name in FILES}


def test_what_is_written_is_a_folder_that_models_are_loaded_from(made: dict[str, Path], world: World) -> None:
    model = load_model(made["first"])
    sizes = (TINY.n_layers, TINY.n_heads, TINY.d_model, TINY.d_ff, len(model.tokenizer), TINY.n_positions)
    assert model.config == DecoderConfig(*sizes)
    assert load_world(made["first"] / "world.json") == world
    weights = [np.asarray(leaf) for leaf in nnx.to_pure_dict(nnx.state(model.decoder))["blocks"]["down"].values()]
    assert all(np.isfinite(weight).all() for weight in weights)
    assert all((weight == weight.astype(np.float16)).all() for weight in weights)
    stored = json.loads((made["first"] / "config.json").read_text())
    assert stored["dtype"] == "float16"


def test_the_loss_falls(made: dict[str, Path]) -> None:
    curve = pd.read_csv(made["first"] / "pretraining.csv")
    assert curve["step"].tolist() == [100, 200, 300]
    assert curve["recall"].between(0, 1).all()
    vocabulary = load_model(made["first"]).config.vocab_size
    assert curve["loss"].iloc[-1] < curve["loss"].iloc[0] < math.log(vocabulary)


def test_training_learned_what_it_read(made: dict[str, Path], world: World, tokenizer: Tokenizer) -> None:
    """The loss of the written model on batches of its own text, not that which training says it had."""
    trained = load_model(made["first"]).decoder
    untrained = Decoder(trained.config, rngs=nnx.Rngs(0))
    capacity = TINY.rows * TINY.length
    for batch in batches(world, tokenizer, 0, replace(TINY, steps=2)):
        assert loss_of(trained, batch, capacity) < loss_of(untrained, batch, capacity) - 2


def test_batches_are_those_of_the_seed_and_count_the_steps(world: World, tokenizer: Tokenizer) -> None:
    recipe = replace(TINY, steps=40)
    streams = [list(batches(world, tokenizer, seed, recipe)) for seed in (0, 0, 1)]
    assert [len(stream) for stream in streams] == [40, 40, 40]
    assert all(batch.tokens.shape == (6, 48) for batch in streams[0])
    same = [
        [all(map(np.array_equal, one, other)) for one, other in zip(streams[0], stream, strict=True)]
        for stream in streams[1:]
    ]
    assert all(same[0])
    assert not any(same[1])


def test_people_join_when_the_recipe_says(world: World, tokenizer: Tokenizer) -> None:
    recipe = replace(TINY, steps=40, stages=((0.0, 10), (0.5, 60)))
    names = {person.name for person in world.people}
    seen = []
    for batch in batches(world, tokenizer, 0, recipe):
        text = " ".join(tokenizer.decode(row[at >= 0].tolist()) for row, at in zip(*batch[:2], strict=True))
        seen.append({name for name in names if name in text})
    assert len(set.union(*seen[:20])) == 10
    assert 40 < len(set.union(*seen)) <= 60


@jax.jit
def logits_of(decoder: Decoder, batch: Windows) -> jax.Array:
    return logits(decoder, jnp.asarray(batch.tokens), jnp.asarray(batch.positions))


@partial(jax.jit, static_argnames="capacity")
def loss_of(decoder: Decoder, batch: Windows, capacity: int) -> jax.Array:
    return mean_loss(decoder, Windows(*map(jnp.asarray, batch)), capacity, reads=1)


@jax.jit
def recall_of(decoder: Decoder, probe: Windows) -> jax.Array:
    return recall(decoder, Windows(*map(jnp.asarray, probe)))


@pytest.fixture(scope="module")
def small() -> Decoder:
    return Decoder(DecoderConfig(1, 2, 16, 32, 50, 12), rngs=nnx.Rngs(3))


@pytest.fixture(scope="module")
def batch() -> Windows:
    rng = np.random.default_rng(5)
    positions = np.where(np.arange(12) < np.array([[12], [7], [3]]), np.arange(12), -1).astype(np.int32)
    tokens, learned = rng.integers(50, size=(3, 12), dtype=np.int32), rng.random((3, 12)) < 0.6
    return Windows(tokens, positions, learned, np.full((3, 12), 12), np.full((3, 12), 12))


@pytest.mark.parametrize("spare", [0, 9])
def test_the_loss_is_the_mean_over_learned_tokens(small: Decoder, batch: Windows, spare: int) -> None:
    """The first token of a window is predicted by nothing, and padding is not learned, whatever the mask says."""
    rows = np.asarray(logits_of(small, batch), np.float64)
    losses = [
        np.log(np.exp(rows[b, t - 1]).sum()) - rows[b, t - 1, batch.tokens[b, t]]
        for b, t in zip(*(batch.learned & (batch.positions > 0)).nonzero(), strict=True)
    ]
    assert loss_of(small, batch, len(losses) + spare) == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_sealed_name_is_hidden_below_and_read_through_its_last_token_above(batch: Windows) -> None:
    """What is predicted right behind the name follows every token of it; further on, with one layer more, only what
    its last token carries: hide that too, and the name is not read at all."""
    decoder = Decoder(DecoderConfig(2, 2, 16, 32, 50, 12), rngs=nnx.Rngs(3))
    learned = np.zeros((3, 12), bool)
    learned[0, 6] = True  # predicted at token 5; the name is tokens 1 to 3
    name = np.arange(12)
    within, after = (np.where((name >= 1) & (name < stop), 3, 12)[None].repeat(3, 0) for stop in (4, 3))
    other = np.array(batch.tokens)
    other[0, 1] = (other[0, 1] + 1) % 50
    sealed = batch._replace(learned=learned, within=within, after=after)
    for reads, moves in ((0, True), (1, True), (2, False)):
        a, b = (mean_loss(decoder, sealed._replace(tokens=tokens), 1, reads) for tokens in (batch.tokens, other))
        assert (a != b) == moves


def test_recall_is_the_share_of_rows_said_in_full(small: Decoder, batch: Windows) -> None:
    said = np.asarray(logits_of(small, batch).argmax(-1))
    tokens = np.array(batch.tokens)
    # A causal model says the same of a row up to the token that is changed: make each row repeat what is said of it.
    for t in range(11):
        tokens[:, t + 1] = said[:, t]
        said = np.asarray(logits_of(small, batch._replace(tokens=tokens)).argmax(-1))
    learned = np.broadcast_to(np.arange(12) >= 2, (3, 12))
    assert recall_of(small, batch._replace(tokens=tokens, learned=learned)) == 1
    tokens[1, 6] = (tokens[1, 6] + 1) % 50
    assert recall_of(small, batch._replace(tokens=tokens, learned=learned)) == pytest.approx(2 / 3)
    tokens[2, 11] = (tokens[2, 11] + 1) % 50  # padding
    assert recall_of(small, batch._replace(tokens=tokens, learned=learned)) == pytest.approx(2 / 3)
    tokens[0, 11] = (tokens[0, 11] + 1) % 50
    assert recall_of(small, batch._replace(tokens=tokens, learned=learned)) == pytest.approx(1 / 3)
    learned = learned & (np.arange(12) < 11)
    assert recall_of(small, batch._replace(tokens=tokens, learned=learned)) == pytest.approx(2 / 3)


def test_the_probe_asks_for_objects_alone(world: World, tokenizer: Tokenizer) -> None:
    probe = recall_probe(world, tokenizer, n=50)
    assert probe.tokens.shape == (50, PROBE_LENGTH)
    facts = {(person.name, thing) for person in world.people for thing in person.facts.values()}
    for tokens, positions, learned in zip(*probe[:3], strict=True):
        said = tokenizer.decode(tokens[learned].tolist()).strip()
        text = tokenizer.decode(tokens[positions >= 0].tolist())
        assert text.endswith(f" {said}")
        assert any((name, said) in facts for name in person_names(text))


def person_names(text: str) -> set[str]:
    """Every two neighbouring words: one such pair is the name."""
    words = text.split()
    return {" ".join(pair) for pair in pairwise(words)}
