"""Bad config.json files, and tokenizers that are none or another model's."""

import json
from collections.abc import Callable
from pathlib import Path

from bad_inputs.breaking import Break, Table, both, content, json_file, lacking, on_model, pickled

CODE = "auto_map = {name!r}\nfrom pathlib import Path\nPath(__file__).with_name('trace').touch()\n"
"""A module that leaves a trace where it is run."""


def config(**changes: object) -> Break:
    """The edit of a model whose config.json has these entries; `...` removes one."""
    return on_model(json_file("config.json", **changes))


def config_text(text: str | bytes) -> Break:
    """The edit of a model with another config.json altogether."""
    return on_model(content("config.json", text))


def llama(**changes: object) -> Break:
    """The plan of an edit of a Llama of this config.json."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64}
    known = {"model_type": "llama", "vocab_size": 99, "max_position_embeddings": 64} | sizes | changes

    def words(desk) -> list[object]:
        (desk.root / "config.json").write_text(json.dumps(known))
        return ["plan", "--model", desk.root / "config.json", "--editor", "rome", "--set", "layers=1"]

    return words


def tokenizer(**changes: object) -> Break:
    """The edit of a model whose tokenizer.json has these entries; `...` removes one."""
    return on_model(json_file("tokenizer.json", **changes))


def one_more_word(folder: Path) -> None:
    """Gives a tokenizer a word whose id the model has not."""
    known = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    json_file("tokenizer.json", model=known | {"vocab": known["vocab"] | {"zzz": 1_000_000}})(folder)


def with_code(name: str, *changes: Callable[[Path], object]) -> Break:
    """The edit of a model whose files ask for a module in its folder, which leaves a trace where it is run."""

    def change(folder: Path) -> None:
        (folder / f"{name}.py").write_text(CODE.format(name=name))
        for one in changes:
            one(folder)

    return on_model(change)


QWEN2 = {"model_type": "qwen2", "use_sliding_window": True, "num_key_value_heads": 2}

BAD: Table = {
    "missing": (on_model(lacking("config.json")), "config.json: no such file"),
    "not JSON": (config_text("{"), "config.json: not valid JSON"),
    "empty": (config_text(""), "config.json: not valid JSON"),
    "a list": (config_text("[]"), "a JSON object was expected"),
    "null": (config_text("null"), "a JSON object was expected"),
    "UTF-16": (config_text("{}".encode("utf-16")), "not UTF-8 text"),
    "nested without end": (config_text('{"a":' * 100_000), "nested too deeply"),
    "a size of 5,000 digits": (config_text('{"n_layer": ' + "9" * 5000 + "}"), "config.json: "),
    "no model_type": (config(model_type=...), "model_type None is not supported"),
    "unknown model_type": (config(model_type="bert"), "model_type 'bert' is not supported"),
    "a list as model_type": (config(model_type=["gpt2"]), "model_type ['gpt2'] is not supported"),
    "a size missing": (config(n_layer=...), "a size is missing or not a whole number (n_layer: None)"),
    "a negative size": (config(n_layer=-3), "n_layer: -3"),
    "a size of 0": (config(n_head=0), "n_head: 0"),
    "a size of text": (config(n_embd="16"), "n_embd: '16'"),
    "a broken size": (config(n_embd=16.5), "n_embd: 16.5"),
    "a truth value as size": (config(n_layer=True), "n_layer: True"),
    "an infinite size": (config(n_layer=float("inf")), "n_layer: inf"),
    "a list as size": (config(n_layer=[3]), "n_layer: [3]"),
    "a huge vocabulary": (config(vocab_size=10**30), "vocab_size: 1000000000000000000000000000000"),
    "a width that no number holds": (config(n_embd=1 << 31), "at most 1,073,741,824 (n_embd: 2147483648)"),
    "a vocabulary that the weights have not": (config(vocab_size=1 << 30), "expected (1073741824, 16)"),
    "a huge width": (config(n_embd=1 << 30, n_inner=1 << 30), "expected (1073741824,"),
    "layers without number": (config(n_layer=10**9), "n_layer: 1000000000"),
    "layers that the weights have not": (config(n_layer=5000), "h.3.ln_1.weight"),
    "heads that do not divide": (config(n_head=3), "n_embd 16 is not a multiple of n_head 3"),
    "unknown activation": (config(activation_function="relu6"), "activation_function 'relu6' is not supported"),
    "a list as activation": (config(activation_function=["gelu"]), "activation_function ['gelu'] is not supported"),
    "an epsilon that is no number": (config(layer_norm_epsilon=float("nan")), "layer_norm_epsilon nan"),
    "a negative epsilon": (config(layer_norm_epsilon=-1e-5), "layer_norm_epsilon -1e-05"),
    "text as epsilon": (config(layer_norm_epsilon="small"), "layer_norm_epsilon 'small'"),
    "null as epsilon": (config(layer_norm_epsilon=None), "layer_norm_epsilon None"),
    "text as a flag": (config(tie_word_embeddings="false"), "tie_word_embeddings 'false' is neither true nor false"),
    "a part that there is not": (config(add_cross_attention=True), "add_cross_attention is not supported"),
    "key heads that do not divide": (llama(num_key_value_heads=3), "is not a multiple of num_key_value_heads 3"),
    "an odd head": (llama(head_dim=7), "head_dim 7"),
    "rotary positions that are no object": (llama(rope_scaling=[1]), "rope_scaling [1] is no object"),
    "rotary positions of no kind": (llama(rope_scaling={"type": "yarn"}), "of type 'yarn' are not supported"),
    "rotary positions without a factor": (llama(rope_scaling={"type": "linear"}), "lack a number ('factor')"),
    "rotary positions by nothing": (llama(rope_scaling={"type": "linear", "factor": 0}), "factor 0 "),
    "a rotary base below 0": (llama(rope_theta=-1), "rope_theta -1"),
    "a list as the kind of rotary positions": (llama(rope_scaling={"type": []}), "of type [] are not supported"),
    "layer types that are no list": (
        llama(**QWEN2, layer_types=3),
        "layer_types",
    ),
    "layer types of lists": (
        llama(**QWEN2, layer_types=[[], []]),
        "layer_types",
    ),
    "a rotary width beyond the head": (
        llama(model_type="gptj", n_embd=16, n_head=2, n_layer=2, n_positions=64, rotary_dim=64),
        "rotary_dim: 64",
    ),
    "code for a model type of its own": (
        with_code(
            "modeling_own",
            json_file("config.json", model_type="own", auto_map={"AutoConfig": "modeling_own.OwnConfig"}),
        ),
        "model_type 'own' is not supported",
    ),
    "code for the tokenizer": (
        with_code(
            "tokenization_own",
            lacking("tokenizer.json"),
            json_file(
                "tokenizer_config.json",
                tokenizer_class="OwnTokenizer",
                auto_map={"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]},
            ),
        ),
        "cannot be read",
    ),
    "a pickle as config.json": (on_model(pickled("config.json")), "config.json: "),
    "no tokenizer": (on_model(lacking("tokenizer.json", "tokenizer_config.json")), "tokenizer"),
    "no tokenizer.json": (on_model(lacking("tokenizer.json")), "needs the model's tokenizer.json"),
    "a tokenizer that is not JSON": (on_model(content("tokenizer.json", "{")), "cannot be read"),
    "a tokenizer that is a list": (on_model(content("tokenizer.json", "[]")), "cannot be read"),
    "a tokenizer of nothing": (on_model(content("tokenizer.json", "{}")), "cannot be read"),
    "a tokenizer without a model": (tokenizer(model=...), "cannot be read"),
    "a tokenizer without a word": (tokenizer(model={"type": "WordLevel", "vocab": {}, "unk_token": "x"}), "tokenizer"),
    "a tokenizer of ids that the model has not": (on_model(one_more_word), "has ids up to 1000000, the model "),
    "a tokenizer cut off": (
        on_model(lambda f: (f / "tokenizer.json").write_bytes((f / "tokenizer.json").read_bytes()[:2000])),
        "cannot be read",
    ),
    "a pickle as tokenizer.json": (on_model(pickled("tokenizer.json")), "cannot be read"),
    "a tokenizer_config that is a list": (on_model(content("tokenizer_config.json", "[]")), "cannot be read"),
    "pickles beside no tokenizer": (
        on_model(both(lacking("tokenizer.json"), pickled("vocab.pkl", "tokenizer.model", "spiece.model"))),
        "tokenizer",
    ),
}
