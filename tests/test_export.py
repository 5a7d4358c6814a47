"""Exported folders: only the bytes of edited tensors change, a delta gives the same bits, and PyTorch says the same."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors import deserialize
from safetensors.numpy import load_file, save_file

from prunejax import export
from prunejax.base_checkpoint import Base, find_base
from prunejax.cli import main
from prunejax.delta import Delta, delta_of_run, edited, read_delta, write_delta
from prunejax.errors import InputError
from prunejax.export import write_folder
from prunejax.models.checkpoints import Model, decoder_arrays, load_decoder, load_model
from prunejax.models.decoder import logits
from prunejax.models.tensors import weight_files
from prunejax.points import weights_after
from prunejax.restraint import parse
from prunejax.run import Run
from reference_runs import NAMES, REFERENCES, record_run, stored_tensors
from tiny_runs import TENSOR, contents, edit_tiny

TOLERANCE = 1e-4
"""Of the largest logit."""


def base_of(run: Run, folder: Path) -> Base:
    return find_base(run.facts["model"], str(folder), "run")


def exported(run: Run, folder: Path, out: Path, spec: str = "none") -> tuple[Path, Delta]:
    """The folder of a run after all its edits, and the delta it was made from."""
    base = base_of(run, folder)
    delta = delta_of_run(run, base, run.n_edits, parse(spec))
    assert write_folder(delta, base, out) == ()
    return out, delta


def parts(path: Path) -> tuple[bytes, dict[str, bytes]]:
    """The header of a safetensors file, and the bytes of its tensors by name."""
    data = path.read_bytes()
    return data[: 8 + int.from_bytes(data[:8], "little")], {name: bytes(t["data"]) for name, t in deserialize(data)}


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Model) -> Run:
    return edit_tiny(tmp_path_factory.mktemp("runs") / "run", tiny_model)


# The bits


@pytest.mark.parametrize("layers", [(1,), (0, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_only_the_bytes_of_edited_tensors_change(tmp_path: Path, name: str, layers: tuple[int, ...]) -> None:
    base = REFERENCES / name
    run = record_run(tmp_path / "run", base, layers=layers)
    before = contents(base)
    out, delta = exported(run, base, tmp_path / "out")
    assert contents(base) == before
    there = {path.name for path in out.iterdir()}
    assert there == {path.name for path in base.iterdir()} - {"reference.safetensors"} | {"README.md"}
    weights = [file.name for file in weight_files(base)]
    assert [file.name for file in weight_files(out)] == weights
    changed = set()
    for file in there - {"README.md"}:
        if file not in weights:
            assert (out / file).read_bytes() == (base / file).read_bytes()
            continue
        (old_header, old), (new_header, new) = parts(base / file), parts(out / file)
        assert new_header == old_header
        changed |= {tensor for tensor in old if new[tensor] != old[tensor]}
    assert changed == set(delta.tensors) == set(run.tensors)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_exported_loads_as_the_edited_model(tmp_path: Path, name: str) -> None:
    run = record_run(tmp_path / "run", REFERENCES / name)
    out, delta = exported(run, REFERENCES / name, tmp_path / "out")
    before, after = (decoder_arrays(load_decoder(folder)[0]) for folder in (REFERENCES / name, out))
    (tensor,) = run.tensors
    array, kernel = stored_tensors(out)[tensor], base_of(run, REFERENCES / name).kernel(tensor)
    np.testing.assert_array_equal(array, edited(kernel, delta.factors(tensor), tensor).array)
    for path, old in before.items():
        if path == "blocks.down.kernel":
            np.testing.assert_array_equal(after[path][0], old[0])
            np.testing.assert_array_equal(after[path][1], array.T if kernel.turned else array)
        else:
            np.testing.assert_array_equal(after[path], old)


@pytest.mark.parametrize("spec", ["none", "clip"])
@pytest.mark.parametrize("n", [3, 12])
@pytest.mark.parametrize("name", NAMES)
def test_a_delta_that_is_applied_gives_the_same_folder(tmp_path: Path, name: str, n: int, spec: str) -> None:
    run = record_run(tmp_path / "run", REFERENCES / name, n, layers=(0, 1))
    out, delta = exported(run, REFERENCES / name, tmp_path / "out", spec)
    read = read_delta(write_delta(delta, tmp_path / "delta.safetensors"))
    base = find_base(read.facts["base"], str(REFERENCES / name), "delta")
    assert write_folder(read, base, tmp_path / "applied") == ()
    assert contents(tmp_path / "applied") == contents(out)


def test_an_old_file_without_the_prefix_keeps_its_names(tmp_path: Path) -> None:
    old = Path(shutil.copytree(REFERENCES / "gpt2", tmp_path / "gpt2"))
    tensors = {name.removeprefix("transformer."): array for name, array in stored_tensors(old).items()}
    save_file(tensors | {"h.0.attn.bias": np.ones((1, 1), np.uint8)}, old / "model.safetensors")
    run = record_run(tmp_path / "run", old)
    assert run.tensors == (TENSOR,)
    out, _ = exported(run, old, tmp_path / "out")
    (_, before), (_, after) = parts(old / "model.safetensors"), parts(out / "model.safetensors")
    assert {name for name in before if before[name] != after[name]} == {TENSOR.removeprefix("transformer.")}


def test_an_exported_folder_is_a_model_that_goes_on_being_edited(
    tmp_path: Path, tiny_folder: Path, tiny_model: Model, tiny_run: Run
) -> None:
    out, _ = exported(tiny_run, tiny_folder, tmp_path / "out", "log:1.2")
    again = edit_tiny(tmp_path / "again", load_model(out))
    assert again.facts["model"]["name"] == "out"
    weight = np.asarray(load_model(out).weight(TENSOR))
    expected = weights_after(tiny_run, tiny_model, tiny_run.n_edits, parse("log:1.2"))[TENSOR]
    np.testing.assert_allclose(weight, expected, rtol=1e-6, atol=1e-6)


# The folder


def test_files_that_transformers_needs_are_copied_and_other_weights_left_out(tmp_path: Path) -> None:
    base = Path(shutil.copytree(REFERENCES / "llama3", tmp_path / "base"))
    kept = (
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "merges.txt",
        "chat_template.jinja",
        "LICENSE",
    )
    kept += ("additional_chat_templates/tool.jinja",)
    dropped = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.safetensors", "model.gguf", ".secret")
    dropped += ("original/consolidated.00.pth", "README.base.md")
    for name in (*kept, *dropped, "README.md"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_bytes(name.encode())
    out, _ = exported(record_run(tmp_path / "run", base), base, tmp_path / "out")
    found = {name for name, data in contents(out).items() if data is not None}
    shards = {file.name for file in weight_files(base)} | {"model.safetensors.index.json", "config.json"}
    assert found == shards | {*kept, "README.md", "README.base.md"}
    assert all((out / name).read_bytes() == name.encode() for name in kept)
    assert (out / "README.base.md").read_bytes() == b"README.md"
    assert "README.base.md" in (out / "README.md").read_text()


def test_a_snapshot_of_the_hubs_cache_is_copied_and_named(tmp_path: Path) -> None:
    """There every file is a link to a blob, and the folder is named after a commit."""
    snapshot = tmp_path / "models--some--llama-3" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    blobs = Path(shutil.copytree(REFERENCES / "llama3", tmp_path / "models--some--llama-3" / "blobs"))
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    before = contents(blobs)
    out, _ = exported(record_run(tmp_path / "run", snapshot), snapshot, tmp_path / "out")
    assert contents(blobs) == before
    assert not any(path.is_symlink() for path in out.iterdir())
    assert ModelCard.load(out / "README.md").data.base_model == "some/llama-3"


def test_an_unused_index_is_left_out(tmp_path: Path) -> None:
    base = Path(shutil.copytree(REFERENCES / "llama", tmp_path / "base"))
    (base / "model.safetensors.index.json").write_text("{}")
    out, _ = exported(record_run(tmp_path / "run", base), base, tmp_path / "out")
    assert not (out / "model.safetensors.index.json").exists()


def test_an_empty_folder_is_filled_and_others_are_left_alone(tmp_path: Path) -> None:
    base = Path(shutil.copytree(REFERENCES / "llama", tmp_path / "base"))
    run = record_run(tmp_path / "run", base)
    (tmp_path / "empty").mkdir()
    exported(run, base, tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(base)
    before = contents(tmp_path)
    for out, complaint in {
        tmp_path / "empty": "exists",
        tmp_path / "file": "exists",
        base: "lies in the folder of the base model",
        base / "deep" / "out": "lies in the folder of the base model",
        tmp_path / "link" / "out": "lies in the folder of the base model",
    }.items():
        with pytest.raises(InputError, match=complaint):
            exported(run, base, out)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("at", range(6))
def test_interrupted_it_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """After each of the five files of a sharded checkpoint, and after the card."""
    base, calls = REFERENCES / "llama3", []

    def interrupt(path: Path) -> None:
        calls.append(path)
        if len(calls) == at + 1:
            raise KeyboardInterrupt

    run = record_run(tmp_path / "run", base)
    before = contents(tmp_path)
    monkeypatch.setattr(export, "sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        exported(run, base, tmp_path / "out")
    assert contents(tmp_path) == before


# The card


def test_the_card_says_what_was_done_and_can_be_read_by_the_hub(
    tmp_path: Path, tiny_folder: Path, tiny_run: Run
) -> None:
    out, delta = exported(tiny_run, tiny_folder, tmp_path / "out", "clip")
    card = ModelCard.load(out / "README.md")
    assert card.data.base_model == tiny_folder.name
    assert card.data.library_name == "transformers"
    assert {"prunejax", "rome"} <= set(card.data.tags)
    assert card.data.license is None
    facts, told = tiny_run.facts, delta.facts["tensors"][TENSOR]
    wanted = [facts["requests"]["sha256"], facts["model"]["sha256"], facts["contexts"]["sha256"], "the first 7 of 7"]
    wanted += [f"`{TENSOR}` | float32 [64, 16] | {told['sigma_max']:.4g} | {told['update_sigma_max']:.4g} | "]
    wanted += ["--edits 7 --restraint clip --out DIR", "--set second_moment=identity", f"{told['rounding']:.2g} |"]
    for text in wanted:
        assert text in card.text
    assert str(tmp_path) not in card.content
    assert str(tiny_folder.parent) not in card.content


def test_a_name_that_no_repository_can_have_is_not_given_as_base_model(tmp_path: Path) -> None:
    base = Path(shutil.copytree(REFERENCES / "llama", tmp_path / "my model"))
    out, _ = exported(record_run(tmp_path / "run", base), base, tmp_path / "out")
    card = ModelCard.load(out / "README.md")
    assert card.data.base_model is None
    assert "my model" in card.text


# The verbs


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str], str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return ended.value.code, out.splitlines(), err


def test_export_and_apply_write_the_same_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_folder: Path, tiny_run: Run
) -> None:
    out, file, applied = tmp_path / "out", tmp_path / "delta.safetensors", tmp_path / "applied"
    words = ("export", tiny_run.folder, "--restraint", "log:1.2", "--edits", 5, "--model", tiny_folder, "--out")
    status, lines, err = call(capsys, *words, out)
    assert (status, err) == (0, "")
    assert lines[0].startswith(f"{TENSOR}: float32, rounded by ")
    assert lines[-1] == f"wrote {out}: tiny after 5 edits, restraint log:1.2"
    status, lines, _ = call(capsys, *words, file, "--delta")
    sizes = [f"{path.stat().st_size / 1e6:,.2f} MB" for path in (file, tiny_folder / "model.safetensors")]
    assert lines[-1] == f"wrote {file}: {sizes[0]}; the checkpoint that it is for has {sizes[1]}"
    status, lines, err = call(capsys, "apply", file, "--model", tiny_folder, "--out", applied)
    assert (status, lines, err) == (0, [f"wrote {applied}: tiny after 5 edits, restraint log:1.2"], "")
    assert contents(applied) == contents(out)
    everything = tmp_path / "everything"
    call(capsys, "export", tiny_run.folder, "--model", tiny_folder, "--out", everything)
    assert "the first 7 of 7" in (everything / "README.md").read_text()


def test_bits_of_another_machine_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = record_run(tmp_path / "run", REFERENCES / "llama", layers=(0, 1))
    out, delta = exported(run, REFERENCES / "llama", tmp_path / "out")
    facts = json.loads(json.dumps(delta.facts))
    facts["tensors"][run.tensors[0]]["sha256"] = "0" * 64
    file = write_delta(Delta(facts, delta.arrays), tmp_path / "delta.safetensors")
    words = ("apply", file, "--model", REFERENCES / "llama", "--out", tmp_path / "applied")
    status, lines, _ = call(capsys, *words)
    assert (status, len(lines)) == (0, 2)
    assert lines[0].startswith("1 of 2 edited tensors are not to the bit those of the machine where the delta was made")
    assert run.tensors[0] in lines[0]
    assert contents(tmp_path / "applied") == contents(out)


def test_bad_input_is_one_line_and_status_2_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llama, new = REFERENCES / "llama", tmp_path / "new"
    run = record_run(tmp_path / "run", llama)
    _, delta = exported(run, llama, tmp_path / "out")
    file = write_delta(delta, tmp_path / "delta.safetensors")
    before = contents(tmp_path)
    export_words, of_llama = ("export", run.folder), ("--model", llama, "--out")
    for words, complaint in {
        (*export_words, *of_llama, new, "--edits", 4): "has 3 edits, 4 were asked for",
        (*export_words, *of_llama, new, "--edits", -1): "--edits",
        (*export_words, *of_llama, new, "--restraint", "tanh"): "restraint 'tanh'",
        (*export_words, *of_llama, tmp_path / "out"): "exists; nothing is overwritten",
        (*export_words, *of_llama, file, "--delta"): "exists; nothing is overwritten",
        (*export_words, *of_llama, llama / "x.safetensors", "--delta"): "lies in the folder of the base model",
        (*export_words, "--out", new): "was made from model 'llama'",
        (*export_words, "--model", REFERENCES / "mistral", "--out", new): "was made from model 'llama'",
        (*export_words, "--model", tmp_path / "nowhere", "--out", new): "neither 'world' nor a folder",
        ("export", tmp_path, *of_llama, new): "no run.json in it",
        (
            "apply",
            file,
            "--model",
            REFERENCES / "mistral",
            "--out",
            new,
        ): "delta.safetensors: was made from model 'llama'",
        ("apply", file, *of_llama, tmp_path / "out"): "exists; nothing is overwritten",
        ("apply", llama / "model.safetensors", *of_llama, new): "holds no delta",
        ("apply", tmp_path / "nowhere", *of_llama, new): "no such file",
    }.items():
        status, lines, err = call(capsys, *words)
        assert (status, lines, err.count("\n")) == (2, [], 1), err
        assert complaint in err
    assert contents(tmp_path) == before


# PyTorch


def largest_error(torch: ModuleType, folder: Path, ids: np.ndarray, ours: np.ndarray) -> float:
    """The largest difference to what transformers says of the folder, as a share of the largest logit."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(ids, dtype=torch.long)).logits[0].numpy()
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_every_family(torch: ModuleType, tmp_path: Path, name: str) -> None:
    run = record_run(tmp_path / "run", REFERENCES / name, layers=(0, 1))
    out, _ = exported(run, REFERENCES / name, tmp_path / "out")
    reference = load_file(REFERENCES / name / "reference.safetensors")
    ids = reference["ids"][None]
    ours = np.asarray(logits(load_decoder(out)[0], ids, np.arange(ids.shape[1])[None])[0])
    assert largest_error(torch, out, ids, ours) < TOLERANCE
    assert np.abs(ours - reference["logits"]).max() > 0.01 * np.abs(ours).max()  # the edits are seen


@pytest.mark.parametrize("spec", ["none", "log:1.2"])
def test_transformers_says_what_the_edited_model_says(
    torch: ModuleType, tmp_path: Path, tiny_folder: Path, tiny_model: Model, tiny_run: Run, spec: str
) -> None:
    """Ours: the float32 weights that `evaluate` scores, never written or rounded."""
    out, _ = exported(tiny_run, tiny_folder, tmp_path / "out", spec)
    model = tiny_model.with_weights(weights_after(tiny_run, tiny_model, tiny_run.n_edits, parse(spec)))
    ids = np.array([model.tokenizer("The capital of France is Paris.")["input_ids"]])
    ours = logits(model.decoder, ids, np.arange(ids.shape[1])[None], model.overrides)[0]
    assert largest_error(torch, out, ids, np.asarray(ours)) < TOLERANCE
