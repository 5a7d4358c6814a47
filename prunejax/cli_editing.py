"""The verbs that edit: one fact after another into a run, or each apart on the unedited weights."""

import sys
from collections.abc import Callable
from dataclasses import fields
from functools import reduce
from pathlib import Path
from typing import Any

import click

from prunejax.cli_tables import show
from prunejax.disk import check_folder
from prunejax.errors import InputError
from prunejax.options import DTYPE, OUT, SEED, divided, say

JOB = (
    click.option("--editor", required=True, is_eager=True, help="which editing method; all are listed below"),
    click.option("--model", required=True, help="world, a Hugging Face folder, or a hub name (OWNER/NAME)"),
    click.option(
        "--requests",
        required=True,
        help="a file or a data set of prunejax get (order kept), FILE:N or NAME:N (N of different subjects, drawn by "
        "--seed), or world[/POOL][:N] (order shuffled by --seed)",
    ),
    click.option("--preset", help="published settings by name; the default for --model world is world"),
    click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="one hyper-parameter, may be repeated"),
    click.option("--moments", type=OUT, help="second moments, a file or a folder; the default for world is its own"),
    click.option("--contexts", type=OUT, help="context templates (JSON); sampled from the model if not given"),
    click.option(
        "--seed",
        type=SEED,
        default=0,
        show_default=True,
        help="requests that are drawn, sampled contexts",
    ),
    DTYPE,
)
"""The options that name a job (`job.read_job`)."""

BATCH = click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="requests edited at once"
)


def of_a_job(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb with the options of JOB."""
    return reduce(lambda done, option: option(done), reversed(JOB), verb)


class EditCommand(click.Command):
    """A verb that edits, whose help ends with the hyper-parameters of the editor that was named, or of all."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example and the hyper-parameters."""
        from prunejax.editors import EDITORS

        super().format_epilog(ctx, formatter)
        named = ctx.params.get("editor")
        for name, row in EDITORS.items():
            if named in (None, name):
                with formatter.section(f"Hyper-parameters of {name} ({row.summary}), for --set"):
                    formatter.write_dl([(f.name, _default(f.default)) for f in fields(row.settings)])


def _default(value: object) -> str:
    return f"default {','.join(map(str, value)) if isinstance(value, tuple) else value}"


@click.command(
    cls=EditCommand,
    epilog="Example: prunejax edit --model world --requests world:100 --editor rome --preset world --out build/run",
)
@of_a_job
@click.option(
    "--restrain",
    default="",
    help="restraint during the run: of each update rect:20 or mask:20; of the accumulated one log:1.2@50, or "
    "log:1.2@50,raw to accumulate unrestrained; both joined by +",
)
@BATCH
@click.option(
    "--guard",
    default="",
    help="rollback@10 or stop@10: look at the model at least every 10 edits, and where it is broken take the edit "
    "back, or stop; thresholds follow, as in rollback@10,perplexity=1.5,norm=1,denominator=0.1,held=0.5",
)
@click.option("--guard-text", default="", help="what the guard asks for perplexity: a text file, one a line, or world")
@click.option("--out", type=OUT, required=True, help="run folder; the same run unfinished is taken up again")
@divided("out")
def edit(
    restrain: str, batch: int, guard: str, guard_text: str, out: Path, contexts: Path | None, seed: int, **words: Any
) -> None:
    """Edit facts into a model one after another, each on the weights that the earlier ones left."""
    from prunejax.course import Plan
    from prunejax.diagnostics import read_diagnostics
    from prunejax.guard import parse_guard
    from prunejax.guarded import name_edits
    from prunejax.job import read_job
    from prunejax.schedule import parse_during
    from prunejax.sequence import edit_sequence
    from prunejax.sources import find_guard_text

    parse_during(restrain)
    text = find_guard_text(guard_text, words["model"]) if parse_guard(guard) else ()
    if guard_text and not guard:
        raise InputError("--guard-text without --guard: say how often and what then, for example --guard rollback@10")
    if not (out / "run.json").exists():
        check_folder(out, "run")
    elif contexts is None:
        contexts = out / "contexts.json"  # a run that is taken up again keeps the contexts that it sampled
    job = read_job(**words, contexts=contexts, seed=seed, say=say)
    plan = Plan(job.editor, job.settings, job.preset, restrain, seed, job.source, batch, guard)
    run = edit_sequence(out, job.model, job.requests, plan, job.contexts, job.moments, text)
    bad = int((read_diagnostics(run)["finite"] != "True").sum())
    for event in (event for event in run.events() if event.kind == "rollback"):
        say(f"rolled back {name_edits(run, event.first, event.last)}: {event.reason}")
    say(f"{run.n_edits} edits, {bad} of them not finite{' (they were left out)' if bad else ''}; wrote {out}")
    if run.stopped:
        last = run.events()[-1]
        say(f"stopped by its guard after {name_edits(run, last.first, last.last)}: {run.stopped}")
        sys.exit(1)


@click.command(
    cls=EditCommand,
    epilog="Example: prunejax single --model world --requests world:20 --editor rome --preset world --out build/single",
)
@of_a_job
@BATCH
@click.option("--out", type=OUT, required=True, help="folder for single_cases.csv and its summary single.csv")
@divided("out")
def single(batch: int, out: Path, seed: int, **words: Any) -> None:
    """Edit each request, or each batch of them, on the unedited weights, and score it on its own cases.

    n_edits 0 is before, 1 after the edit; sigma_max at 0 is that of W_0, at 1 that of the update alone.
    """
    from prunejax.intervals import summarize
    from prunejax.job import read_job
    from prunejax.records import Provenance, is_score, write_records
    from prunejax.single import as_cases, single_edits

    check_folder(out, "folder")
    job = read_job(**words, seed=seed, say=say)
    edits = single_edits(job.model, job.requests, job.editor, job.settings, job.contexts, job.moments, batch)
    rows = as_cases(edits, job.editor, seed)
    origin = Provenance("single", words["model"], job.source, job.editor, job.preset, batch)
    summary = summarize(rows[rows["metric"].map(is_score)], origin)
    for name, table in (("single_cases.csv", rows), ("single.csv", summary)):
        say(f"wrote {write_records(out / name, table)}")
    show(summary, f"{job.editor}, each edit on the unedited weights (mean [95% interval over cases])")


EDITING = (edit, single)
"""Both of them."""
