"""What holds for every editor of the table, for a toy that answers from memory, and for the worked example of
CONTRIBUTING.md; and how settings are read."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import jax
import pytest
from jax.tree_util import keystr, tree_leaves_with_path

from contract import (
    CONTRACT,
    Case,
    case_of,
    edits_on_what_the_earlier_left,
    goes_on_from_its_stored_state,
    is_restrained_on_each_update_their_sum_and_the_weight,
    raises_the_targets_probability,
    tiny_network,
)
from prunejax.abstract import Facts, abstract_mesh, abstract_model, edit_arguments
from prunejax.editors import EDITORS, EditorRow, editor_row, parsed_settings, settings_of
from prunejax.editors.moments import Moments, load_moments, second_moments
from prunejax.editors.settings import LocateSettings
from prunejax.errors import InputError
from prunejax.models.presets import PRESETS, preset_settings
from prunejax.sources import WORLD_MOMENTS, find_model, find_requests
from tiny import EDITS, TEMPLATES, TEXTS
from toy_memory import TOY

LOCATE = [name for name, row in EDITORS.items() if issubclass(row.settings, LocateSettings)]
every_locating = pytest.mark.parametrize("name", LOCATE)
TOY_CASE = Case("toy", TOY, {}, {})
EXAMPLE = "sgd"
"""The editor of the worked example."""


def worked_example() -> EditorRow:
    """The row that the text of CONTRIBUTING.md makes: its only block of Python, run as it stands, and the row in it."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    row = text.partition("`EditorRow(")[2].partition("`")[0]
    (block,) = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    assert len(block.splitlines()) <= 40
    found: dict = {"__name__": "prunejax.editors.sgd"}
    exec(compile(block, "CONTRIBUTING.md", "exec"), found)
    return eval(f"EditorRow({row}", found)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Case]:
    network = tiny_network(tmp_path_factory.mktemp("mend"))
    example = Case(EXAMPLE, worked_example(), {"layer": 1, "lr": 0.1}, {"layer": 0, "lr": 0.5})
    made = {name: case_of(name, row, network) for name, row in EDITORS.items()}
    return made | {"toy": TOY_CASE, EXAMPLE: example}


every_editor = pytest.mark.parametrize("name", [*EDITORS, "toy", EXAMPLE])


@pytest.fixture(scope="module")
def moments(tiny_model) -> Moments:
    return Moments(second_moments(tiny_model, TEXTS, range(3)), "0" * 64)


@every_editor
@pytest.mark.parametrize("law", CONTRACT, ids=lambda law: law.__name__)
def test_every_editor(name, law, cases, tiny_model, moments):
    law(cases[name], tiny_model, moments)


@every_editor
def test_what_an_editor_carries_can_be_stored(name, cases, tiny_model, moments, tmp_path):
    goes_on_from_its_stored_state(cases[name], tiny_model, moments, tmp_path)


@pytest.mark.parametrize("name", [*EDITORS, EXAMPLE])
def test_later_requests_are_edited_on_what_the_earlier_left(name, cases, tiny_model, moments):
    edits_on_what_the_earlier_left(cases[name], tiny_model, moments)


@pytest.mark.parametrize("name", EDITORS)
def test_restraints_at_three_points_compose_with_every_editor(name, cases, tiny_model, moments, tmp_path):
    is_restrained_on_each_update_their_sum_and_the_weight(cases[name], tiny_model, moments, tmp_path)


@every_editor
def test_an_edit_makes_the_target_likelier_in_the_world(name, cases):
    model = find_model("world")
    moments = load_moments(WORLD_MOMENTS, [model.family.edited_tensor(layer) for layer in (0, 1)])
    raises_the_targets_probability(cases[name], model, moments, find_requests("world/tune:20", 1))


@pytest.mark.parametrize("name", EDITORS)
def test_a_plan_gives_an_edit_what_a_run_gives_it(name, cases, tiny_model, tiny_folder, moments):
    """The same tree of arrays, of as many dimensions and of the same dtypes."""
    editor, devices = cases[name].editor(), abstract_mesh(None)
    given = (editor.init(tiny_model, moments, 3), editor.prepare(tiny_model, EDITS, TEMPLATES, 1)[0])
    settings = parsed_settings(name, EDITORS[name], cases[name].tiny)
    shapes = abstract_model(str(tiny_folder), "float32", devices)
    planned = edit_arguments(shapes, name, editor, settings, Facts(len(TEMPLATES), room=3), devices)
    assert kinds((planned.state, planned.batch)) == kinds(jax.eval_shape(lambda: given))


def kinds(tree):
    """The dimensions and dtype of every array of a tree, by where it stands."""
    return {keystr(at): (leaf.ndim, leaf.dtype) for at, leaf in tree_leaves_with_path(tree)}


def test_an_editor_that_does_not_exist():
    with pytest.raises(InputError, match="editor 'memory': there are ft-l, ft-m, rome, r-rome"):
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


@pytest.mark.parametrize(
    ("editor", "setting", "reason"),
    [
        ("ft-l", "patience", "it searches no target value, so nothing can be restrained there"),
        ("mend", "anchor", "it searches no target value"),
        ("ultraedit", "clamp", "it searches no target value"),
        ("ft-m", "ridge", "it solves for no keys, so there is no metric to change"),
        ("mend", "cut", "it solves for no keys"),
        ("rome", "cut", "its solve has another metric"),
        ("alphaedit", "moment_weight", "its solve has another metric"),
    ],
)
def test_a_restraint_of_the_value_or_the_solve_that_means_nothing_is_refused_with_the_reason(editor, setting, reason):
    with pytest.raises(InputError, match=f"hyper-parameter '{setting}': {editor} has .*; {reason}"):
        settings_of(editor, {setting: "1"})


@pytest.mark.parametrize(
    "editor", ["rome", "r-rome", "memit", "memit-seq", "emmet", "alphaedit", "nse", "encore", "pmet"]
)
def test_every_editor_that_searches_a_value_can_stop_early_and_anchor_it(editor):
    settings = settings_of(editor, {"patience": "2", "anchor": "true", "clamp": "0.5"})
    assert (settings.patience, settings.anchor, settings.clamp) == (2, True, 0.5)
    with pytest.raises(InputError, match="hyper-parameter anchor=perhaps: a value of type bool"):
        settings_of(editor, {"anchor": "perhaps"})


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
    with pytest.raises(InputError, match="preset 'llama-3-8b-alphaedit': is for memit, memit-seq, not for rome"):
        preset_settings("llama-3-8b-alphaedit", "rome")
