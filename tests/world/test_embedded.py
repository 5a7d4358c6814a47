"""The committed model: what it knows and can do unedited, what lies beside it, and the words that name all this."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer

from prunejax.editors.moments import load_moments, second_moments
from prunejax.errors import InputError
from prunejax.evaluate import abilities, perplexity
from prunejax.evaluate.interchange import interchange
from prunejax.evaluate.likelihood import lay_out, likelihoods
from prunejax.models.checkpoints import Model
from prunejax.models.forward import Forward, forward_of
from prunejax.models.presets import preset_settings
from prunejax.requests import EditRequest, write_requests
from prunejax.sources import (
    WORLD_FOLDER,
    WORLD_MOMENTS,
    find_model,
    find_requests,
    find_text,
    find_world,
)
from prunejax.tokens import tokenize_completion
from prunejax.world.facts import World, edit_requests
from prunejax.world.phrasing import CITY_IN_COUNTRY, COUNTRY, PHRASINGS
from prunejax.world.pretrain import REHEARSAL, Recipe
from prunejax.world.tasks import evaluation_items, held_out_text
from prunejax.world.text import TOLD


@pytest.fixture(scope="module")
def model() -> Model:
    return find_model("world")


@pytest.fixture(scope="module")
def forward(model: Model) -> Forward:
    return forward_of(model)


@pytest.fixture(scope="module")
def world() -> World:
    return find_world()


def trained_questions(world: World) -> list[tuple[str, str]]:
    """Every (prompt, object) that training states: no question about control people, no country that is not told."""
    asked = []
    for person in world.people:
        for relation, thing in person.facts.items():
            if relation == COUNTRY and person.pool not in TOLD:
                continue
            forms = PHRASINGS[relation].statements + (PHRASINGS[relation].question,) * (person.pool != "control")
            asked += [(form.format(person.name), thing) for form in forms]
    return asked + [
        (form.format(city), country) for city, country in world.country_of.items() for form in CITY_IN_COUNTRY
    ]


def test_the_folder_is_an_ordinary_one_of_at_most_8_mb(model: Model) -> None:
    assert sum(path.stat().st_size for path in WORLD_FOLDER.iterdir()) <= 8_000_000
    config = json.loads((WORLD_FOLDER / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("gpt2", ["GPT2LMHeadModel"])
    recipe, sizes = Recipe(), model.config
    wanted = (recipe.n_layers, recipe.n_heads, recipe.d_model, recipe.d_ff, recipe.n_positions)
    assert (sizes.n_layers, sizes.n_heads, sizes.d_model, sizes.d_ff, sizes.n_positions) == wanted
    assert sizes.vocab_size == len(model.tokenizer)


def test_pretraining_is_on_record() -> None:
    curve = pd.read_csv(WORLD_FOLDER / "pretraining.csv")
    assert list(curve.columns) == ["step", "loss", "recall"]
    assert curve["step"].iloc[-1] == Recipe().steps + REHEARSAL.steps
    assert curve["recall"].iloc[-1] >= 0.99


def test_the_tokenizer_that_is_loaded_is_the_one_that_was_trained(model: Model) -> None:
    """Training reads tokenizer.json alone; what transformers makes of the folder must not differ."""
    stored = Tokenizer.from_file(str(WORLD_FOLDER / "tokenizer.json"))
    texts = [space + text for text in find_text("world")[:300] for space in ("", " ")]
    assert model.tokenizer(texts)["input_ids"] == [row.ids for row in stored.encode_batch(texts)]
    assert model.tokenizer.decode([model.tokenizer.eos_token_id]) == "<|endoftext|>"


def test_facts_are_recalled_in_every_trained_phrasing(world: World, model: Model, forward: Forward) -> None:
    """A fixed sample; the count over all pairs is told in data/world/README.md."""
    asked = trained_questions(world)
    sample = [asked[i] for i in np.random.default_rng(2024).choice(len(asked), 1500, replace=False)]
    tokenized = [tokenize_completion(model.tokenizer, *pair) for pair in sample]
    assert likelihoods(forward, lay_out(tokenized)).top1.mean() >= 0.99


def test_countries_of_cities_are_recalled_in_every_phrasing(world: World, model: Model, forward: Forward) -> None:
    """Training meets them seldom, and at the start of a line, without a space before the city, most seldom."""
    asked = {form: [(form.format(c), country) for c, country in world.country_of.items()] for form in CITY_IN_COUNTRY}
    for form, pairs in asked.items():
        tokenized = [tokenize_completion(model.tokenizer, *pair) for pair in pairs]
        assert likelihoods(forward, lay_out(tokenized)).top1.mean() >= 0.99, form


def test_the_model_has_its_abilities(world: World, model: Model, forward: Forward) -> None:
    """60 items a task; the counts over all items are on record."""
    items = {task: of_task[:60] for task, of_task in evaluation_items(world).items()}
    rows = abilities.ability_scores(forward, abilities.prepare(model.tokenizer, items))
    scores = rows.groupby("metric")["value"].mean()
    assert scores.size == 4
    for metric, score in scores.items():
        assert score >= (0.9 if metric == "ability:arithmetic" else 0.95), f"{metric} {score}"


def test_facts_are_read_through_the_subjects_last_token(model: Model) -> None:
    """After the layer that is edited; else locate-then-edit methods could not work on this model. Some answers do not
    follow: later layers of the name's own tokens still add to it. Hardly one stays."""
    found = interchange(model, find_requests("world/tune:200", 0)).set_index("layer")
    (layer,) = preset_settings("world", "rome")["layers"]
    assert found.loc[layer, "n"] > 100
    assert found.loc[layer, "follows"] >= 0.8
    assert found.loc[layer, "stays"] <= 0.02


def test_held_out_text_does_not_surprise_it(model: Model, forward: Forward) -> None:
    assert 1 < perplexity.perplexity(forward, perplexity.prepare(model.tokenizer, held_out_text(60))) < 20


def test_the_second_moment_is_that_of_this_model(model: Model) -> None:
    """Of the layer that is edited, over enough tokens; a file made with other weights would be far off."""
    layers = preset_settings("world", "rome")["layers"]
    moments = load_moments(WORLD_MOMENTS, [model.family.edited_tensor(layer) for layer in layers])
    for layer in layers:
        moment = moments.of(model.family.edited_tensor(layer))
        d_in = model.config.d_ff
        assert moment.matrix.shape == (d_in, d_in)
        assert moment.count > 10 * d_in
        np.testing.assert_allclose(moment.matrix, moment.matrix.T, atol=1e-5)
    texts = find_text("world")
    assert moment.count == sum(map(len, model.tokenizer(texts)["input_ids"]))
    some = second_moments(model, texts[::20], layers)
    for tensor, sampled in some.items():
        whole = moments.of(tensor).matrix
        assert np.linalg.norm(sampled.matrix - whole) < 0.1 * np.linalg.norm(whole)


def test_requests_of_the_world_are_shuffled_by_the_seed(world: World) -> None:
    pool = edit_requests(world, "tune")
    drawn = find_requests("world/tune", 0)
    assert drawn != pool
    assert sorted(drawn, key=pool.index) == list(pool)
    assert find_requests("world/tune:7", 0) == drawn[:7]
    assert find_requests("world/tune:7", 1) != drawn[:7]


def test_report_is_the_pool_that_is_meant_without_a_name() -> None:
    assert find_requests("world:5", 2) == find_requests("world/report:5", 2)
    assert len(find_requests("world", 2)) == 1000


def test_requests_of_a_file_keep_their_order(tmp_path: Path) -> None:
    wanted = [EditRequest(name, "The capital of {} is", name, "Rome") for name in ("Spain", "Chad", "France")]
    assert find_requests(str(write_requests(tmp_path / "world.jsonl", wanted)), 5) == tuple(wanted)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("world/swimming", "pool 'swimming': the world has report, tune, train, control"),
        ("world/swimming:3", "pool 'swimming'"),
        ("world/control:3", "pool 'control': is never edited"),
        ("world:many", "'many' is not a number of requests"),
        ("world:", "'' is not a number of requests"),
        ("world/tune:-3", "'-3' is not a number of requests"),
        ("world/tune:2.5", "'2.5' is not a number of requests"),
        ("world/tune:4:5", "'4:5' is not a number of requests"),
        ("world/tune:0", "cannot draw 0 requests; ask for 1 to 400"),
        ("world/tune:401", "cannot draw 401 requests; ask for 1 to 400"),
        ("worlds.jsonl", "requests worlds.jsonl: no such file"),
    ],
)
def test_a_source_without_requests_is_named_in_one_line(source: str, complaint: str) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)) as error:
        find_requests(source, 0)
    assert "\n" not in str(error.value)


def test_a_model_that_is_nowhere_is_named() -> None:
    with pytest.raises(InputError, match="model 'gpt9': neither 'world' nor a folder"):
        find_model("gpt9")


def test_texts_of_a_file_are_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("One sentence.\n\n  \nAnother.\n", encoding="utf-8")
    assert list(find_text(str(path))) == ["One sentence.", "Another."]
    with pytest.raises(InputError, match=r"text nowhere\.txt: no such file"):
        list(find_text("nowhere.txt"))
