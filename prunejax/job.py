"""What is to be edited, into which model, by which editor: words looked up, checked and loaded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from prunejax.contexts import Contexts, read_contexts
from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import Moments, load_moments
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.presets import preset_settings
from prunejax.options import assignments
from prunejax.requests import EditRequest, conflicts, name_conflicts
from prunejax.sources import WORLD_MOMENTS, find_model, find_requests, requests_name


class Job(NamedTuple):
    """An editor with its settings, and all that it reads. `preset` is "none" where none was named, `source` what the
    requests are called."""

    editor: str
    settings: Any
    preset: str
    requests: tuple[EditRequest, ...]
    source: str
    model: Model
    contexts: Contexts
    moments: Moments | None


def read_job(
    editor: str,
    model: str,
    requests: str,
    preset: str | None,
    settings: Sequence[str],
    moments: Path | None,
    contexts: Path | None,
    seed: int,
    dtype: str,
    say: Callable[[str], None],
) -> Job:
    """What these options name. The embedded world has a preset and second moments of its own; contexts that are not
    given are sampled from the model. InputError for the first word that means nothing, before anything large is
    loaded; of requests that contradict one another `say` hears."""
    row = editor_row(editor)
    preset = preset or ("world" if model == "world" else None)
    chosen = settings_of(editor, dict(preset_settings(preset, editor) if preset else {}) | assignments(settings))
    asked = find_requests(requests, seed, say)
    templates = read_contexts(contexts) if contexts else None
    moments = moments or (WORLD_MOMENTS if model == "world" and row.reads_moments else None)
    loaded = find_model(model, dtype)
    tensors = row.make(chosen).tensors(loaded)
    if broken := [tensor for tensor in tensors if not jnp.isfinite(loaded.weight(tensor)).all()]:
        raise InputError(f"model {model}: {broken[0]} holds numbers that are not finite; get its weights again")
    known = load_moments(moments, tensors) if moments else None
    if groups := conflicts(asked):
        say(name_conflicts(groups))
    templates = templates or row.contexts(loaded, seed)
    return Job(editor, chosen, preset or "none", asked, requests_name(requests), loaded, templates, known)
