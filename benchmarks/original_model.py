"""A Hugging Face model in PyTorch as the published editing code uses it: whole prompts through the whole model, hooks
that read or change what a module returns, everything frozen."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer


class Original(NamedTuple):
    """A frozen model and the modules that editing touches: its layers, the name of the down projection in a layer's
    MLP, the last normalisation. `turned`: that projection's weight is stored [d_out, d_in]."""

    model: nn.Module
    tokenizer: Any
    layers: Sequence[nn.Module]
    projection: str
    norm: nn.Module
    turned: bool

    def down(self, layer: int) -> nn.Module:
        """The down projection of a layer: its input is the key, its output the value."""
        return getattr(self.layers[layer].mlp, self.projection)

    def kernel(self, layer: int) -> Tensor:
        """Its weight as [d_in, d_out], a view: what is written into it is in the model."""
        weight = self.down(layer).weight
        return weight.T if self.turned else weight


class Rows(NamedTuple):
    """Texts as one right-padded batch: the model's inputs [B, T], and of each row the column of the subject's last
    token."""

    inputs: dict[str, Tensor]
    subject_last: list[int]


def load_original(folder: Path, dtype: str = "float32", device: str = "cpu") -> Original:
    """The GPT-2 or Llama in a Hugging Face folder."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval().to(device)
    model.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "right"
    inner = model.base_model
    if model.config.model_type == "gpt2":
        return Original(model, tokenizer, inner.h, "c_proj", inner.ln_f, turned=False)
    return Original(model, tokenizer, inner.layers, "down_proj", inner.norm, turned=True)


def rows_of(original: Original, prompts: Sequence[str], subjects: Sequence[str], endings: Sequence[str]) -> Rows:
    """Each prompt with its slot filled by the subject and its ending behind it."""
    before = [prompt.partition("{}")[0] + subject for prompt, subject in zip(prompts, subjects, strict=True)]
    whole = [
        prompt.replace("{}", subject, 1) + ending
        for prompt, subject, ending in zip(prompts, subjects, endings, strict=True)
    ]
    inputs = original.tokenizer(whole, return_tensors="pt", padding=True).to(original.model.device)
    last = [len(original.tokenizer(text)["input_ids"]) - 1 for text in before]
    return Rows(dict(inputs), last)


@contextmanager
def hooked(module: nn.Module, hook: Callable[[Any, Tensor, Any], Any]) -> Iterator[None]:
    """Let `hook(module, inputs, output)` see every pass through a module; what it returns stands for the output."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def hidden(output: Any) -> Tensor:
    """The residual stream of a layer's output, which older versions wrap in a tuple."""
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def read(original: Original, module: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
    """What a module reads and returns [B, width] at the subject's last token of each row, by a pass of the whole
    model."""
    seen: dict[str, Tensor] = {}

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        row = torch.arange(len(rows.subject_last))
        seen["input"], seen["output"] = (part[row, rows.subject_last] for part in (inputs[0], hidden(output)))

    with hooked(module, keep):
        original.model(**rows.inputs)
    return seen["input"], seen["output"]
