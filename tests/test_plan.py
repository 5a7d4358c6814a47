"""Plans against published sizes, arithmetic, the compiled program and a process; the verb and its errors."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prunejax.abstract import Facts, abstract_mesh, abstract_model, default_contexts
from prunejax.cli import main
from prunejax.cli_planning import scaled
from prunejax.editors import settings_of
from prunejax.errors import InputError
from prunejax.models.presets import preset_settings
from prunejax.models.published import PUBLISHED
from prunejax.plan import Forecast, forecast
from tiny_plans import config_of, model_of

TESTS = Path(__file__).parent
PARAMETERS = {
    "gpt2-xl": 1_557_611_200,
    "gpt-j-6b": 6_050_882_784,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
}
"""As the publishers' checkpoints hold them."""


@functools.cache
def plan_of(model: str, editor: str, dtype: str = "float32", mesh: str | None = None, **facts: int) -> Forecast:
    """The plan of a published model with its own preset."""
    devices, settings = abstract_mesh(mesh), settings_of(editor, preset_settings(model, editor))
    shapes = Facts(**{"contexts": default_contexts(editor)} | facts)
    return forecast(abstract_model(model, dtype, devices), editor, settings, shapes, devices)


def tiny_plan(editor: str = "rome", *, n_layers: int = 6, mesh: str | None = None, **settings: object) -> Forecast:
    devices = abstract_mesh(mesh)
    model = model_of("llama", n_layers=n_layers, d_model=64, vocab_size=300, mesh=devices)
    return forecast(model, editor, settings_of(editor, {"layers": (2,)} | settings), Facts(5, 24, 12, 3), devices)


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_models_have_the_parameters_of_their_checkpoints(model):
    found = plan_of(model, "rome")
    assert sum(found.parameters.values()) == PARAMETERS[model]
    assert ("output matrix" in found.parameters) == (model != "gpt2-xl")
    assert found.weights == 4 * PARAMETERS[model]


def test_parts_of_llama_3_are_what_its_config_gives():
    assert plan_of("llama-3-8b", "rome").parameters == {
        "embedding": 128256 * 4096,
        "attention": 32 * 2 * (4096 * 4096 + 4096 * 1024),
        "MLP": 32 * 3 * 4096 * 14336,
        "norms": (2 * 32 + 1) * 4096,
        "output matrix": 128256 * 4096,
    }


@pytest.mark.parametrize(("editor", "n_layers"), [("rome", 1), ("r-rome", 1), ("memit", 6)])
def test_what_an_edit_adds_is_two_float32_kernels_and_a_metric_a_layer(editor, n_layers):
    found, half = plan_of("gpt-j-6b", editor), plan_of("gpt-j-6b", editor, "bfloat16")
    assert found.kernels == half.kernels == n_layers * 2 * 4 * 16384 * 4096
    weights = 0 if n_layers == 1 else 4 * n_layers  # of C, a number a layer
    assert found.state == half.state == n_layers * 4 * 16384**2 + weights
    assert half.weights == 2 * PARAMETERS["gpt-j-6b"] == found.weights // 2
    assert (
        found.at_peak == found.at_rest + found.temporary > found.at_rest == found.weights + found.kernels + found.state
    )


@pytest.mark.parametrize(("editor", "room"), [("memit-seq", 1000), ("alphaedit", 1000), ("encore", 200), ("nse", 1000)])
def test_what_remembers_keys_has_room_for_those_of_the_run(editor, room):
    """Keys, keys turned by the metric, a factor, and how many there are; of NSE on some of the neurons, C too."""
    model = "gpt-j-6b" if editor in ("nse", "alphaedit", "memit-seq") else "llama-2-7b"
    d_in, n_layers = (16384, 6) if model == "gpt-j-6b" else (11008, 5)
    metric = 4 * (d_in**2 * (2 if editor == "nse" else 1) + 1)
    assert plan_of(model, editor, room=room).state == n_layers * (metric + 4 * (2 * room * d_in + room**2 + 1))


def test_mend_holds_its_network_the_published_one_or_the_one_that_is_named():
    width, rank, places = 6400 + 1600, 1920, 3
    network = 2 * (2 * width * rank + width + 2 * places * width) + 2 * places * width
    assert plan_of("gpt2-xl", "mend").state == 4 * (2 * network + 2 * places)
    devices = abstract_mesh(None)
    settings = settings_of("mend", preset_settings("world", "mend"))
    named = forecast(abstract_model("world", "float32", devices), "mend", settings, Facts(1), devices)
    assert 0 < named.state < 1e8
    assert named.temporary > 0


def test_operations_follow_steps_batch_and_what_lies_above_the_layer():
    few, more, most = (tiny_plan(steps=steps).flops for steps in (4, 8, 12))
    assert most - more == pytest.approx(more - few, rel=1e-5)
    assert more > 1.5 * few
    assert tiny_plan(layers=(4,)).flops < tiny_plan(layers=(1,)).flops
    whole = {"tokens": 52}  # the seven rows fill the steps in which prefixes are padded, however many facts there are
    alone, eight, sixteen = (plan_of("gpt2-xl", "memit", batch=batch, **whole) for batch in (1, 8, 16))
    assert eight.flops == pytest.approx(8 * alone.flops, rel=1e-3)
    assert eight.seconds(1e12) == pytest.approx(alone.seconds(1e12), rel=1e-3) == alone.flops / 1e12
    assert sixteen.temporary < 1.2 * eight.temporary  # one group of eight after another


def test_memory_does_not_follow_steps_and_falls_with_the_layer():
    assert tiny_plan(steps=4).temporary == pytest.approx(tiny_plan(steps=40).temporary, rel=1e-3)
    assert tiny_plan(layers=(4,)).temporary < tiny_plan(layers=(1,)).temporary
    assert tiny_plan(n_layers=12).temporary > tiny_plan(n_layers=6).temporary


def test_eight_devices_hold_an_eighth_of_what_divides():
    alone, eight = plan_of("llama-3-8b", "memit"), plan_of("llama-3-8b", "memit", mesh="data=1,model=8")
    assert 8 * eight.weights == pytest.approx(alone.weights, rel=1e-3)  # all but the norms
    assert 8 * eight.kernels == alone.kernels
    assert 8 * eight.state == pytest.approx(alone.state, rel=1e-6)  # all but the weights of C, a number a layer
    assert alone.temporary / 8 < eight.temporary < alone.temporary / 4
    assert eight.seconds(1e12) == pytest.approx(alone.seconds(1e12) / 8, rel=1e-2)
    by_rows = plan_of("llama-3-8b", "memit", mesh="data=7,model=1")  # six contexts and the row of the KL term
    assert by_rows.at_rest == alone.at_rest
    assert by_rows.temporary <= alone.temporary  # equal where the fullest moment is one of weights, not of rows


def test_an_edit_at_the_shapes_of_gpt2_takes_what_its_compiled_program_takes():
    """Within 15% of XLA's memory analysis on a CPU; the process holds more, the compiler and Python among it."""
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    words = [sys.executable, TESTS / "plan_program.py", "edit", "rome", "5"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    sys.stdout.write(", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in found.items()))
    assert found["planned"] == pytest.approx(found["xla"], rel=0.15)
    assert found["edited"] - found["imported"] > 0.85 * found["xla"]


# The verb


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["plan", *map(str, words)])
    return ended.value.code, *capsys.readouterr()


def test_the_verb_prints_what_a_published_model_takes(capsys):
    status, out, _ = call(capsys, "--model", "gpt2-xl", "--editor", "rome", "--dtype", "bfloat16", "--throughput", 5e12)
    assert status == 0
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    says = {name: (number, meaning) for name, number, meaning in rows}
    found = plan_of("gpt2-xl", "rome", "bfloat16")
    assert says["parameters"][0] == "1,557,611,200"
    assert says["memory at rest"][0] == scaled(found.at_rest, "B")
    assert says["memory at peak"][0] == scaled(found.at_peak, "B")
    assert says["operations an edit"] == (scaled(found.flops, "FLOP"), "all 20 steps")
    assert says["time an edit"] == (f"{found.flops / 5e12:.3g} s", "at 5.00 TFLOP/s")
    assert "preset gpt2-xl" in out
    assert "11 contexts of at most 40 tokens" in " ".join(out.split())


def test_the_verb_takes_a_config_a_folder_settings_and_a_mesh(capsys, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config_of("llama", 4, 64, 300)))
    words = ("--editor", "memit", "--set", "layers=1,2", "--batch", 3, "--templates", 4, "--mesh", "model=2")
    status, out, _ = call(capsys, "--model", tmp_path, *words)
    assert status == 0
    assert "no preset" in " ".join(out.split())  # the title is broken where the path is long
    assert "memory a device at peak" in out
    assert "3 at once, in 4 contexts" in out
    of_file = call(capsys, "--model", tmp_path / "config.json", *words)[1]
    assert [line for line in of_file.splitlines() if "│" in line] == [line for line in out.splitlines() if "│" in line]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "gpt5", "--editor", "rome"], "none of gpt2-xl"),
        (["--model", "gpt2-xl", "--editor", "rom"], "rome"),
        (["--model", "gpt2-xl", "--editor", "rome", "--batch", "2"], "one request at a time"),
        (["--model", "gpt2-xl", "--editor", "rome", "--set", "layers=48"], "layers 0 to 47"),
        (["--model", "gpt2-xl", "--editor", "rome", "--labels", "30"], "at most"),
        (["--model", "gpt2-xl", "--editor", "rome", "--tokens", "2000"], "1024 positions"),
        (["--model", "gpt2-xl", "--editor", "rome", "--mesh", "model=x"], "--mesh"),
        (["--model", "gpt2-xl", "--editor", "rome", "--preset", "gpt2"], "preset"),
        (["--model", "gpt2-xl", "--editor", "rome", "--throughput", "0"], "throughput"),
        (["--model", "gpt2-xl", "--editor", "rome", "--dtype", "int8"], "int8"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, words, says):
    status, out, err = call(capsys, *words)
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert says in err


@pytest.mark.parametrize("text", ["[]", "{", '{"model_type": "bert"}', '{"model_type": "llama"}'])
def test_a_config_that_says_no_model_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        abstract_model(str(path), "float32", abstract_mesh(None))


def test_numbers_have_decimal_prefixes():
    assert [scaled(n, "B") for n in (12, 1.5e3, 2.5e6, 16.06e9, 999.999e9, 3.2e15)] == [
        "12.00 B", "1.50 kB", "2.50 MB", "16.06 GB", "1000.00 GB", "3.20 PB",
    ]  # fmt: skip
