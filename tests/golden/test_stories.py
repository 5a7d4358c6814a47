"""Two small models that were really trained: one loads as it is, one is converted from another format here."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

from prunejax.cli import main
from prunejax.models.checkpoints import load_decoder, load_model
from prunejax.models.decoder import logits
from prunejax.models.forward import forward_of
from prunejax.models.generation import greedy
from prunejax.records import read_records

STORY = " an elderly man who lived in a big tree with many other people. He loved to explore and play with his friends."
IDS = """1 403 407 261 378 432 383 286 261 376 298 315 421 395 317 426 338 401 396 267 337 410 408 419 292 411 322 265
282 295 433 426 385 328 432 358 394 261 370 432 352 266 268 388 426"""
"""Of "Once upon a time, there was a little girl named Lily. ..." (the README beside the model)."""
BEST = {338: 16.1555, 291: 15.5673, 359: 15.5417, 313: 12.8364, 410: 12.7880}


def test_tinystories_loads_as_it_is_and_tells_its_story(shared: Path) -> None:
    """Its folder is of an older transformers, its tied matrix is stored as lm_head.weight."""
    model = load_model(shared / "data" / "models" / "TinyStories-656K")
    prompt = model.tokenizer("Once upon a time, there was")["input_ids"]
    assert prompt[0] == model.tokenizer.bos_token_id == 1
    (told,) = greedy(forward_of(model), [prompt], 60)
    assert model.tokenizer.decode([*prompt, *told], skip_special_tokens=True).partition("was")[2].startswith(STORY)


def converted(source: Path, folder: Path) -> Path:
    """stories260K (llama2.c, version 0) as a Hugging Face folder.

    Its rotary pairs are neighbours, (2i, 2i+1); in a Hugging Face Llama they are halves apart, so that the rows of each
    query and key head change places.
    """
    raw = source.read_bytes()
    dim, hidden, n_layers, n_heads, n_kv, vocab, length = np.frombuffer(raw, "<i4", 7).tolist()
    values, at = np.frombuffer(raw, "<f4", offset=28), 0

    def take(*shape: int) -> np.ndarray:
        nonlocal at
        at += int(np.prod(shape))
        return values[at - int(np.prod(shape)) : at].reshape(shape)

    def halves(rows: np.ndarray, heads: int) -> np.ndarray:
        apart = rows.reshape(n_layers, heads, -1, 2, dim)
        return apart.swapaxes(2, 3).reshape(rows.shape)

    width = dim // n_heads * n_kv
    embedding = take(vocab, dim)
    norm, q, k, v, o = (take(n_layers, *s) for s in ((dim,), (dim, dim), (width, dim), (width, dim), (dim, dim)))
    mlp_norm, gate, down, up = (take(n_layers, *s) for s in ((dim,), (hidden, dim), (dim, hidden), (hidden, dim)))
    stacked = {"input_layernorm": norm, "post_attention_layernorm": mlp_norm}
    stacked |= {"self_attn.q_proj": halves(q, n_heads), "self_attn.k_proj": halves(k, n_kv), "self_attn.v_proj": v}
    stacked |= {"self_attn.o_proj": o, "mlp.gate_proj": gate, "mlp.down_proj": down, "mlp.up_proj": up}
    tensors = {f"model.layers.{n}.{name}.weight": part[n] for name, part in stacked.items() for n in range(n_layers)}
    tensors |= {"model.embed_tokens.weight": embedding, "model.norm.weight": take(dim)}
    folder.mkdir()
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, folder / "model.safetensors")
    config = {"model_type": "llama", "hidden_size": dim, "intermediate_size": hidden, "num_hidden_layers": n_layers}
    config |= {"num_attention_heads": n_heads, "num_key_value_heads": n_kv, "vocab_size": vocab, "rms_norm_eps": 1e-5}
    config |= {"max_position_embeddings": length, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_stories260k_has_the_reference_likelihood_and_logits(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "models" / "stories260K" / "stories260K.bin"
    decoder, _ = load_decoder(converted(source, tmp_path / "stories"))
    ids = np.array([IDS.split()], np.int32)
    found = np.asarray(logits(decoder, ids, np.arange(ids.shape[1])[None])[0], np.float64)
    log_p = found - np.log(np.exp(found).sum(-1, keepdims=True))
    assert -log_p[np.arange(ids.size - 1), ids[0, 1:]].mean() == pytest.approx(0.324100, abs=2e-6)
    best = np.argsort(-found[-1])[:5]
    assert best.tolist() == list(BEST)
    np.testing.assert_allclose(found[-1, best], list(BEST.values()), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def edited(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text's second moments, and what the edits need."""
    desk = tmp_path_factory.mktemp("tinystories")
    text = (shared / "data" / "text" / "tinyshakespeare_input.txt").read_text(encoding="utf-8")
    (desk / "text.txt").write_text(text[:200_000], encoding="utf-8")
    requests = [
        {"prompt": "Once upon a time, there was a little girl named {}. She loved to play with her"}
        | {"subject": "Lily", "target_new": "dragon"},
        {"prompt": "{} was very sad because he lost his", "subject": "Tim", "target_new": "piano"},
    ]
    for number, request in enumerate(requests):
        (desk / f"{number}.jsonl").write_text(json.dumps(request), encoding="utf-8")
    model = shared / "data" / "models" / "TinyStories-656K"
    words = ["moments", "--model", model, "--layers", 0, "--text", desk / "text.txt", "--tokens", 20_000]
    verb(*words, "--out", desk / "moments.safetensors")
    return desk


def verb(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("editor", "contexts", "more"), [("rome", ["{}"], {}), ("memit", [["{}"]], {"moment_weight": 1})]
)
@pytest.mark.parametrize("number", [0, 1])
def test_rome_and_memit_edit_tinystories(
    shared: Path, edited: Path, tmp_path: Path, editor, contexts, more, number
) -> None:
    """A target of several tokens becomes the arg-max, with second moments of a real text; the clamp is wide, since one
    token of a model of two layers has to say it all."""
    model, run = shared / "data" / "models" / "TinyStories-656K", tmp_path / "run"
    (tmp_path / "contexts.json").write_text(json.dumps(contexts))
    settings = {"layers": 0, "steps": 100, "clamp": 100, "weight_decay": 0, "kl_factor": 0} | more
    words = ["edit", "--model", model, "--requests", edited / f"{number}.jsonl", "--editor", editor, "--out", run]
    words += ["--contexts", tmp_path / "contexts.json", "--moments", edited / "moments.safetensors"]
    verb(*words, *(word for pair in settings.items() for word in ("--set", "{}={}".format(*pair))))
    verb("evaluate", run, "--edits", "0,1", "--tasks", "editing", "--model", model)
    rows = read_records(run / "records" / "evaluation.csv")
    scores = rows[rows["metric"] == "efficacy_top1"].set_index("n_edits")["value"]
    assert (scores[0], scores[1]) == (0, 1)
    small, again = tmp_path / "small.safetensors", tmp_path / "again"
    verb("export", run, "--model", model, "--out", tmp_path / "edited")
    verb("export", run, "--model", model, "--delta", "--out", small)
    verb("apply", small, "--model", model, "--out", again)
    for path in again.iterdir():
        assert path.read_bytes() == (tmp_path / "edited" / path.name).read_bytes()


def test_pytorch_reads_it_alike(shared: Path, torch: ModuleType) -> None:
    from transformers import AutoModelForCausalLM

    folder = shared / "data" / "models" / "TinyStories-656K"
    model, theirs = load_model(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = np.array([model.tokenizer("Once upon a time, there was" + STORY)["input_ids"]])
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits[0].numpy()
    found = np.asarray(logits(model.decoder, ids, np.arange(ids.size)[None])[0])
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
