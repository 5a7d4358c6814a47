"""Context templates: the prefixes under which a fact must hold, sampled once from the unedited model and stored with
the run."""

import hashlib
import json
import re
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

GROUP_LENGTHS = ((10, 5),)
"""The same for methods that average by group, as in the MEMIT release: the bare prompt, and five prefixes."""

Contexts = Sequence[str] | Sequence[Sequence[str]]
"""Templates with one slot "{}" for the prompt, the bare "{}" first; or groups of such templates."""


def read_contexts(path: str | Path) -> Contexts:
    """The templates in a JSON list, each with one slot for the prompt, or the groups of them in a list of lists."""
    stored = read_json(path, "contexts")
    if not isinstance(stored, list) or not stored:
        raise InputError(
            f'contexts {path}: a JSON list of templates was expected, for example ["{{}}", "The sun. {{}}"]'
        )
    grouped = all(isinstance(group, list) and group for group in stored)
    templates = [template for group in stored for template in group] if grouped else stored
    for number, template in enumerate(templates, 1):
        if not isinstance(template, str) or template.count("{}") != 1:
            raise InputError(f"contexts {path}: template {number} must be text with exactly one {{}} for the prompt")
        if re.search("[\ud800-\udfff]", template):
            raise InputError(f"contexts {path}: template {number} holds half a surrogate pair, which is no text")
    if templates[0] != "{}":
        raise InputError(f'contexts {path}: the first template must be the bare prompt "{{}}"')
    return as_contexts(stored)


def as_contexts(stored: Sequence) -> Contexts:
    """Contexts that JSON made lists of, as tuples."""
    return tuple(tuple(group) if isinstance(group, list) else group for group in stored)


def templates_of(contexts: Contexts) -> tuple[str, ...]:
    """All templates in order, groups or not."""
    return tuple(t for group in contexts for t in ((group,) if isinstance(group, str) else group))


def group_weights(contexts: Contexts) -> tuple[float, ...]:
    """Of each template its weight in a mean of group means; they add up to 1. Templates that are in no group weigh
    alike."""
    sizes = [1 if isinstance(group, str) else len(group) for group in contexts]
    return tuple(1 / (len(sizes) * size) for size in sizes for _ in range(size))


def contexts_digest(contexts: Contexts) -> str:
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


def sample_groups(model: Model, seed: int) -> tuple[tuple[str, ...], ...]:
    """Two groups: the bare prompt alone, and the prefixes of `sample_contexts` for GROUP_LENGTHS."""
    bare, *prefixed = sample_contexts(model, seed, GROUP_LENGTHS)
    return (bare,), tuple(prefixed)


def no_contexts(model: Model, seed: int) -> tuple[str, ...]:
    """The bare prompt alone, for methods that read nothing else."""
    del model, seed
    return ("{}",)
