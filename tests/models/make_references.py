"""Make tests/models/references again: a random checkpoint of each family and what PyTorch says of it.

Run with PyTorch installed (`make parity` does that): python tests/models/make_references.py. A default initialisation
(0.02, norms at 1, biases at 0) hides nearly every mistake; weights are drawn ten times larger, norms and biases are
drawn too, and 56 tokens are read. Weights are rounded to the dtype they are stored in before PyTorch reads them in
float32, so that the references hold for the stored file.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "references"
LENGTH = 56
LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "vocab_size": 48,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 48, "bos_token_id": 0}
GPT |= {"eos_token_id": 0, "activation_function": "gelu_new"}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 32}
NARROW = {key: value for key, value in LLAMA.items() if key != "head_dim"} | {"num_attention_heads": 2}

REFERENCES = {
    "gpt2": ("GPT2", GPT, torch.float16, None),
    "gptj": ("GPTJ", GPT | {"rotary_dim": 4, "tie_word_embeddings": False}, torch.float32, None),
    "llama": ("Llama", LLAMA | {"tie_word_embeddings": False}, torch.float16, None),
    "llama-biased": (
        "Llama",
        LLAMA
        | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
        | {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
        torch.float32,
        None,
    ),
    "llama3": ("Llama", LLAMA | {"rope_parameters": LLAMA3, "tie_word_embeddings": False}, torch.bfloat16, "6KB"),
    "mistral": ("Mistral", LLAMA | {"sliding_window": 8, "tie_word_embeddings": False}, torch.bfloat16, None),
    "qwen2": (
        "Qwen2",
        NARROW
        | {"num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
        | {"tie_word_embeddings": True},
        torch.bfloat16,
        None,
    ),
    "qwen3": ("Qwen3", LLAMA | {"tie_word_embeddings": True}, torch.bfloat16, None),
}
"""Class, config, dtype on disk, largest shard."""


def make(name: str) -> None:
    kind, config, dtype, shard = REFERENCES[name]
    torch.manual_seed(sorted(REFERENCES).index(name))
    wanted = getattr(transformers, f"{kind}Config")(**config, initializer_range=0.2)
    model = (
        getattr(transformers, f"{kind}LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")
        ._from_config(wanted, attn_implementation="eager")
        .eval()
    )
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
            if any(part in parameter_name for part in ("embed", "wte", "wpe")):
                parameter *= 0.5  # small, so that the norms' epsilon counts
            parameter.copy_(parameter.to(dtype).float())
        ids = torch.randint(0, config["vocab_size"], (1, LENGTH))
        logits = model(ids).logits[0]
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard or "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    written = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in written.items() if key not in ("transformers_version", "use_cache")}
    (folder / "config.json").write_text(json.dumps(kept, indent=1) + "\n")
    save_file({"ids": ids[0].int(), "logits": logits.contiguous()}, folder / "reference.safetensors")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    for each in REFERENCES:
        make(each)
