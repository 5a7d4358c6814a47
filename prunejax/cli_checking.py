"""The verb that says whether a run can be trusted."""

import sys
from pathlib import Path

import click

from prunejax.options import OUT, divided, say


@click.command(epilog="Example: prunejax check build/run --redo 3")
@click.argument("run", type=OUT)
@click.option("--model", help="the unedited model; the default is the embedded one, where it was that")
@click.option("--redo", type=click.IntRange(min=1), help="edit this chunk (counted from 1) again and compare its bits")
@click.option("--moments", type=OUT, help="for --redo: second moments; the default for world is its own")
@divided("run")
def check(run: Path, model: str | None, redo: int | None, moments: Path | None) -> None:
    """Verify a run folder: digests, checksums, order, shapes, finite numbers, and that what it stored last is what its
    updates add up to. What is wrong is listed, a line each, and the exit status is 1.

    Without the unedited model the last is not asked, which the last line then says.
    """
    from prunejax.checking import problems, redone
    from prunejax.editors.moments import load_moments
    from prunejax.errors import InputError
    from prunejax.points import is_of_world, model_of
    from prunejax.run import open_run
    from prunejax.sources import WORLD_MOMENTS

    opened = open_run(run)
    loaded = model_of(opened, model) if model or redo is not None or is_of_world(opened) else None
    found = problems(opened, loaded)
    if redo is not None and not found:
        if opened.facts["moments"] is not None:
            known = load_moments(moments or WORLD_MOMENTS, opened.tensors)
            if known.sha256 != opened.facts["moments"]:
                raise InputError(f"moments {moments or WORLD_MOMENTS}: not those that {run} was made with; --moments")
        else:
            known = None
        if not redone(opened, loaded, known, redo):
            found.append(f"{run}: chunk {redo}, edited again, has other bits (another machine or version, or changed)")
    for line in found:
        say(line)
    if found:
        say(f"{run}: not to be trusted, {len(found)} problem{'s' if len(found) > 1 else ''}")
        sys.exit(1)
    again = f"; chunk {redo} again has the same bits" if redo else ""
    unasked = "; not asked: whether the updates add up to the stored state (give the unedited model with --model)"
    more = again if loaded else unasked
    say(f"{run}: {opened.n_edits} of {len(opened.requests)} edits, whole and as recorded{more}")


CHECKING = (check,)
"""The one verb of this file."""
