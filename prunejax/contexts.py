"""Context templates: the prefixes under which a fact must hold, sampled once from the unedited model and stored with
the run."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from prunejax.errors import InputError
from prunejax.files import read_json
from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.models.generation import sample

STARTS = ("The", "Therefore", "Because", "I", "You")
"""The openings that the ROME release samples from."""

LENGTHS = ((5, 5), (10, 5))
"""(tokens, how many) of the sampled prefixes: with the bare prompt 11 contexts, as in the PRUNE repository's Llama
settings."""


def read_contexts(path: str | Path) -> tuple[str, ...]:
    """The templates in a JSON list, each with one slot for the prompt. Lists of lists (averaging by group) are
    refused: no editor here reads them yet."""
    stored = read_json(path, "contexts")
    if not isinstance(stored, list) or not stored:
        raise InputError(
            f'contexts {path}: a JSON list of templates was expected, for example ["{{}}", "The sun. {{}}"]'
        )
    for number, template in enumerate(stored, 1):
        if not isinstance(template, str) or template.count("{}") != 1:
            raise InputError(f"contexts {path}: template {number} must be text with exactly one {{}} for the prompt")
    if stored[0] != "{}":
        raise InputError(f'contexts {path}: the first template must be the bare prompt "{{}}"')
    return tuple(stored)


def contexts_digest(contexts: Sequence[str]) -> str:
    """SHA-256 of the templates, order included, as 64 hex digits."""
    return hashlib.sha256(json.dumps(list(contexts)).encode()).hexdigest()


def sample_contexts(model: Model, seed: int, lengths: Sequence[tuple[int, int]] = LENGTHS) -> tuple[str, ...]:
    """The bare template and prefixes sampled (top 5) from the model, "prefix. {}"; a length counts the opening's tokens
    too.

    Reproducible by seed on one machine and jax version; a run stores what it used.
    """
    forward = forward_of(model)
    templates = ["{}"]
    for tokens, count in lengths:
        for i in range(count):
            opening = model.tokenizer(STARTS[i % len(STARTS)])["input_ids"]
            drawn = sample(forward, opening, max(tokens - len(opening), 1), top_k=5, seed=seed * 1000 + len(templates))
            text = model.tokenizer.decode([*opening, *drawn], skip_special_tokens=True)
            templates.append(" ".join(text.replace("{", " ").replace("}", " ").split()) + ". {}")
    return tuple(templates)
