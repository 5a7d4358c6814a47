"""edit_sequence: requests -> updates -> a run folder, chunk by chunk, on weights that carry every earlier edit."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prunejax.chunks import forget_states, old_states
from prunejax.contexts import Contexts, contexts_digest, templates_of
from prunejax.course import Plan, check, chunk_of
from prunejax.editors import editor_row
from prunejax.editors.moments import Moments
from prunejax.files import remove_parts
from prunejax.holding import held
from prunejax.mesh import device_words
from prunejax.models.checkpoints import Model
from prunejax.requests import EditRequest, digest
from prunejax.resume import go_on, lacks_restraint
from prunejax.run import Run, check_place, create_run
from prunejax.watching import text_digest, watch_of


def edit_sequence(
    folder: str | Path,
    model: Model,
    requests: Sequence[EditRequest],
    plan: Plan,
    contexts: Contexts,
    moments: Moments | None = None,
    guard_text: Sequence[str] = (),
) -> Run:
    """Edit `requests` one after another, each on the weights that the earlier ones left, into the run folder; returns
    the run.

    A folder that holds the same run unfinished is taken up after its last whole chunk, to the bit, whatever cut it; the
    same run finished, or stopped by its guard (which looks at `guard_text`), returns at once. InputError where another
    process writes into it. The model is not changed. The edited tensors are held dense in float32; the factors are the
    log.

    The device is given a chunk of edits at once, and works on it while the chunk before is written.
    """
    editor = editor_row(plan.editor).make(plan.settings)
    tensors = editor.tensors(model)
    check(plan, len(requests), tensors)
    state = editor.init(model, moments, len(requests))
    batches = editor.prepare(model, requests, contexts, plan.batch)
    facts = describe(model, requests, plan, contexts, moments, tensors) | (
        {"inputs": dict(editor.inputs)} if editor.inputs else {}
    )
    if plan.guarded:
        facts["guard"] = {"spec": plan.guard, "text": {"n": len(guard_text), "sha256": text_digest(guard_text)}}
    folder = Path(folder)
    if (folder / "run.json").exists():
        run = create_run(folder, facts, requests, contexts)
        ended = run.stopped or (run.n_edits == len(requests) and not lacks_restraint(run, plan))
        if ended and not old_states(run, run.n_edits):
            return run  # nothing is to be written, nobody to be kept out
    else:
        check_place(folder, requests, contexts)
    watch = watch_of(plan.guarded, model, requests, tensors, guard_text) if plan.guarded else None
    with held(folder, "run"):
        remove_parts(folder)
        run = create_run(folder, facts, requests, contexts, guard_text)
        go_on(run, editor, model, plan, state, batches, watch)
        forget_states(run, run.n_edits)
    return run


def describe(
    model: Model,
    requests: Sequence[EditRequest],
    plan: Plan,
    contexts: Contexts,
    moments: Moments | None,
    tensors: Sequence[str],
) -> dict[str, Any]:
    """run.json: all that is needed to do the run again."""
    return {
        "editor": plan.editor,
        "preset": plan.preset,
        "settings": asdict(plan.settings),
        "restrain": plan.restrain,
        "seed": plan.seed,
        "batch": plan.batch,
        "chunk": chunk_of(plan),
        "tensors": list(tensors),
        "model": {"name": model.name, "sha256": model.sha256}
        | ({} if model.dtype == "float32" else {"dtype": model.dtype}),
        "requests": {"source": plan.source, "n": len(requests), "sha256": digest(requests)},
        "contexts": {"n": len(templates_of(contexts)), "sha256": contexts_digest(contexts)},
        "moments": moments.sha256 if moments else None,
        "versions": {name: version(name) for name in ("prunejax", "jax", "flax", "numpy")}
        | {"python": platform.python_version()},
        "device": device_words(),
    }
