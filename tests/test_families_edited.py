"""Every family through the verbs: edited by ROME and MEMIT, whatever its tensors are called and however it attends."""

import json
from pathlib import Path

import numpy as np
import pytest

from packed import Unpacked, packed, unpacked
from prunejax.cli import main
from prunejax.editors.value import target_values
from prunejax.editors.value_settings import ValueSettings
from prunejax.models.checkpoints import Model, load_model, save_model
from prunejax.models.decoder import logits
from prunejax.models.families import read_config
from prunejax.points import weights_after
from prunejax.records import read_records
from prunejax.requests import EditRequest, write_requests
from prunejax.restraint import parse
from prunejax.run import Run, open_run
from tiny import EDITS, TEMPLATES, random_decoder, tiny_tokenizer

REFERENCES = Path(__file__).parent / "models" / "references"
NAMES = ("gpt2", "gptj", "llama3", "mistral", "qwen2", "qwen3")
"""A reference of each family."""
SETTINGS = {"steps": 40, "lr": 0.5, "clamp": 100, "weight_decay": 0, "kl_factor": 0, "second_moment": "identity"}


REQUEST = EditRequest("one", "I think that this is {}", "Grace Hopper", "Rome")
"""Where the subject comes last, the edit reaches the output without the random model's attention."""


def random_checkpoint(name: str, out: Path) -> Path:
    """A random checkpoint of a reference's config with a third layer, and the tiny tokenizer."""
    config = json.loads((REFERENCES / name / "config.json").read_text())
    config |= {"vocab_size": tiny_tokenizer().get_vocab_size(), "dtype": "float32"}
    config |= {size: 3 for size in ("n_layer", "num_hidden_layers") if size in config}
    config.pop("layer_types", None)
    family, sizes = read_config(config, name)
    return save_model(random_decoder(sizes, vocabulary=1.0), family, config, tiny_tokenizer().to_str(), out)


@pytest.fixture(scope="module", params=NAMES)
def folder(request, tmp_path_factory) -> Path:
    return random_checkpoint(request.param, tmp_path_factory.mktemp(request.param) / request.param)


@pytest.fixture(scope="module")
def model(folder) -> Model:
    return load_model(folder)


def verb(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0


EDITORS = {
    "rome": ({"layers": "0"}, TEMPLATES),
    "memit": ({"layers": "0,1", "moment_weight": 0.01}, [["{}"], TEMPLATES[1:]]),
}


@pytest.fixture(scope="module", params=EDITORS)
def run(request, folder, tmp_path_factory) -> Run:
    """The request edited and scored through the verbs."""
    desk = tmp_path_factory.mktemp("run")
    settings, contexts = EDITORS[request.param]
    (desk / "contexts.json").write_text(json.dumps(contexts))
    requests, out = write_requests(desk / "requests.jsonl", [REQUEST]), desk / "run"
    words = ["edit", "--model", folder, "--requests", requests, "--editor", request.param, "--out", out]
    words += ["--contexts", desk / "contexts.json"]
    verb(*words, *(word for pair in (SETTINGS | settings).items() for word in ("--set", "{}={}".format(*pair))))
    verb("evaluate", out, "--edits", "0,1", "--tasks", "editing", "--model", folder)
    return open_run(out)


def test_an_edited_target_becomes_the_arg_max(model, run):
    rows = read_records(run.folder / "records" / "evaluation.csv")
    scores = rows[rows["metric"] == "efficacy_top1"].set_index("n_edits")["value"]
    assert (scores[0], scores[1]) == (0, 1)
    layers = run.facts["settings"]["layers"]
    assert run.tensors == tuple(model.family.edited_tensor(layer) for layer in layers)


def test_a_delta_on_its_base_gives_the_exported_bits(folder, run, tmp_path):
    whole, small, again = (tmp_path / name for name in ("whole", "small.safetensors", "again"))
    verb("export", run.folder, "--model", folder, "--restraint", "log:2", "--out", whole)
    verb("export", run.folder, "--model", folder, "--restraint", "log:2", "--delta", "--out", small)
    verb("apply", small, "--model", folder, "--out", again)
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert all((whole / name).read_bytes() == (again / name).read_bytes() for name in names)
    assert (whole / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()


def test_pytorch_says_what_the_edited_model_says(torch, folder, model, run, tmp_path):
    from transformers import AutoModelForCausalLM

    verb("export", run.folder, "--model", folder, "--out", tmp_path / "edited")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "edited", dtype=torch.float32).eval()
    edited = model.with_weights(weights_after(run, model, 1, parse("none")))
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (1, 48)).astype(np.int32)
    ours = np.asarray(logits(edited.decoder, ids, np.arange(48)[None], edited.overrides)[0])
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits[0].numpy()
    assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()


def padded_left(rows: Unpacked) -> tuple[np.ndarray, np.ndarray]:
    """The same tokens and positions with their padding in front."""
    tokens, positions = rows.tokens.copy(), rows.positions.copy()
    for b, length in enumerate((positions >= 0).sum(axis=1)):
        shift = tokens.shape[1] - length
        tokens[b], positions[b] = np.roll(tokens[b], shift), np.roll(positions[b], shift)
    return tokens, positions


def test_padding_may_stand_on_either_side(model):
    rows = unpacked(packed(model, EDITS, TEMPLATES, model.config.n_positions)[1])
    tokens, positions = padded_left(rows)
    assert (tokens != rows.tokens).any()
    right, left = (
        np.asarray(logits(model.decoder, *given)) for given in ((rows.tokens, rows.positions), (tokens, positions))
    )
    np.testing.assert_allclose(left[positions >= 0], right[rows.positions >= 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["gptj", "llama3"])
def test_half_precision_weights_are_edited_in_float32(tmp_path, name):
    """The edited kernel is a float32 master, laid over a bfloat16 model; what is used is its rounding."""
    model = load_model(random_checkpoint(name, tmp_path / name), "bfloat16")
    tensor = model.family.edited_tensor(1)
    kernel = model.weight(tensor)
    assert kernel.dtype == np.float32
    (rows,) = packed(model, [REQUEST], TEMPLATES, model.config.n_positions)
    read = unpacked(rows)
    plain, laid = (
        logits(m.decoder, read.tokens, read.positions, m.overrides)
        for m in (model, model.with_weights({tensor: kernel}))
    )
    np.testing.assert_allclose(laid, plain, rtol=0, atol=0.05 * float(np.abs(plain).max()))
    settings = ValueSettings(1, steps=40, clamp=100.0, weight_decay=0.0, kl_factor=0.0)
    found = target_values(model.decoder, {}, rows, settings)
    assert found.value.dtype == found.keys.dtype == np.float32
    assert np.nanmin(found.losses) < 0.5 * found.losses[0, 0]
