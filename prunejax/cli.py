"""The verbs of the command line. Bad input ends in one line and exit status 2, failure in one line and 1."""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import click
import pandas as pd
from rich.console import Console
from rich.table import Table

from prunejax.cli_enough import ENOUGH
from prunejax.cli_making import MAKING
from prunejax.cli_planning import PLANNING
from prunejax.cli_sharing import SHARING
from prunejax.errors import InputError
from prunejax.files import write_atomic
from prunejax.options import DTYPE, OUT, assignments, divided, parse_edits, say, split


class EditCommand(click.Command):
    """`edit`, whose help ends with the hyper-parameters of the editor that was named, or of all."""

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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="prunejax")
def app() -> None:
    """Edit facts into a language model one after another, restrain the accumulated update, and measure what was kept
    and what broke."""


@app.command(
    cls=EditCommand,
    epilog="Example: prunejax edit --model world --requests world:100 --editor rome --preset world --out build/run",
)
@click.option("--editor", required=True, is_eager=True, help="which editing method; all are listed below")
@click.option("--model", required=True, help="world, a Hugging Face folder, or a hub name (OWNER/NAME)")
@click.option(
    "--requests",
    required=True,
    help="a file or a data set of prunejax get (order kept), FILE:N or NAME:N (N of different subjects, drawn by "
    "--seed), or world[/POOL][:N] (order shuffled by --seed)",
)
@click.option("--preset", help="published settings by name; the default for --model world is world")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="one hyper-parameter, may be repeated")
@click.option(
    "--restrain",
    default="",
    help="restraint during the run: of each update rect:20 or mask:20; of the accumulated one log:1.2@50, or "
    "log:1.2@50,raw to accumulate unrestrained; both joined by +",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="requests edited at once")
@click.option("--moments", type=OUT, help="second moments, a file or a folder; the default for world is its own")
@click.option("--contexts", type=OUT, help="context templates (JSON); sampled from the model if not given")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="requests that are drawn, sampled contexts"
)
@click.option("--out", type=OUT, required=True, help="run folder; the same run unfinished is taken up again")
@DTYPE
@divided("out")
def edit(
    editor: str,
    model: str,
    requests: str,
    preset: str | None,
    settings: Sequence[str],
    restrain: str,
    batch: int,
    moments: Path | None,
    contexts: Path | None,
    seed: int,
    out: Path,
    dtype: str,
) -> None:
    """Edit facts into a model one after another, each on the weights that the earlier ones left."""
    from prunejax.contexts import read_contexts
    from prunejax.editors import editor_row, settings_of
    from prunejax.editors.moments import load_moments
    from prunejax.models.presets import preset_settings
    from prunejax.requests import conflicts, name_conflicts
    from prunejax.schedule import parse_during
    from prunejax.sequence import Plan, edit_sequence
    from prunejax.sources import WORLD_MOMENTS, find_model, find_requests, requests_name

    row = editor_row(editor)
    preset = preset or ("world" if model == "world" else None)
    values = dict(preset_settings(preset, editor)) if preset else {}
    chosen = settings_of(editor, values | assignments(settings))
    parse_during(restrain)
    asked = find_requests(requests, seed, say)
    if contexts is None and (out / "run.json").exists():
        contexts = out / "contexts.json"  # a run that is taken up again keeps the contexts that it sampled
    templates = read_contexts(contexts) if contexts else None
    moments = moments or (WORLD_MOMENTS if model == "world" else None)
    loaded = find_model(model, dtype)
    known = load_moments(moments, row.make(chosen).tensors(loaded)) if moments else None
    plan = Plan(editor, chosen, preset or "none", restrain, seed, requests_name(requests), batch)
    if groups := conflicts(asked):
        say(name_conflicts(groups))
    run = edit_sequence(out, loaded, asked, plan, templates or row.contexts(loaded, seed), known)
    noted = pd.read_csv(run.folder / "diagnostics.csv")
    bad = int((~noted["finite"].astype(bool)).sum())
    say(f"{run.n_edits} edits, {bad} of them not finite{' (they were left out)' if bad else ''}; wrote {out}")


@app.command(epilog="Example: prunejax spectra build/run --edits 1,10,100 --restraint none,log:1.2")
@click.argument("run", type=OUT)
@click.option("--edits", default="", help="after how many edits, for example 1,10,100; the default is all recorded")
@click.option(
    "--restraint", default="none", show_default=True, help="restraints of the accumulated update, comma-separated"
)
@click.option("--model", help="the unedited model; the default is where the run says it came from")
@divided("run")
def spectra(run: Path, edits: str, restraint: str, model: str | None) -> None:
    """Singular values, condition numbers and norms of the edited weights and of the accumulated update."""
    from prunejax.points import model_of, spectra_of_run
    from prunejax.run import open_run

    opened = open_run(run)
    rows = spectra_of_run(opened, model_of(opened, model), parse_edits(edits), split(restraint))
    say(f"wrote {run / 'records' / 'spectra.csv'}")
    show(rows, f"Spectra of {run}")


@app.command(epilog="Example: prunejax evaluate build/run --edits 1,10,100 --restraint none,log:1.2")
@click.argument("run", type=OUT)
@click.option("--edits", default="", help="after how many edits, for example 1,10,100; the default is all recorded")
@click.option(
    "--restraint", default="none", show_default=True, help="restraints of the accumulated update, comma-separated"
)
@click.option(
    "--tasks", default="all", show_default=True, help="comma-separated: editing, abilities, perplexity; or all"
)
@click.option("--model", help="the unedited model; the default is where the run says it came from")
@divided("run")
def evaluate(run: Path, edits: str, restraint: str, tasks: str, model: str | None) -> None:
    """Score a run: efficacy, generalization, locality, portability, abilities, perplexity, with intervals."""
    from prunejax.points import evaluate_run, model_of
    from prunejax.run import open_run

    opened = open_run(run)
    rows = evaluate_run(opened, model_of(opened, model), parse_edits(edits), split(restraint), split(tasks))
    say(f"wrote {run / 'records' / 'evaluation.csv'}")
    show(rows, f"Scores of {run} (mean [95% interval within this run])")


@app.command(epilog="Example: prunejax reproduce --only 03")
@click.option("--only", help="one notebook, by number or name")
@click.option("--live", is_flag=True, help="recompute the whole grid first, hours, and draw from that")
@click.option("--write", is_flag=True, help="rewrite the committed notebook outputs and figures/")
def reproduce(only: str | None, live: bool, write: bool) -> None:
    """Run every notebook top to bottom, compare with the committed outputs, and say what each one found."""
    from prunejax.reproduce import ok, summary
    from prunejax.reproduce import reproduce as run_notebooks
    from prunejax.verdicts import index

    def report(outcome) -> None:
        state = "failed" if outcome.error else "agrees" if outcome.agrees else "differs"
        say(f"{outcome.name}: {state} ({outcome.seconds:.0f} s)")

    if live:
        from prunejax.study import make_records

        for path in make_records(Path("build/live-records"), Path("build/live-runs")):
            say(f"recomputed {path}")
    outcomes = run_notebooks(Path("notebooks"), Path("build"), only, live, write, report)
    Console(width=150).print(summary(outcomes))
    if not ok(outcomes):
        sys.exit(1)
    if write:
        say(f"wrote {write_atomic('notebooks/index.md', index(Path('notebooks')))}")


def show(summary: pd.DataFrame, title: str) -> None:
    """Print a summary as a table: a row for each restraint and edit count, a column for each metric."""
    from prunejax.intervals import table

    wide = table(summary, ["restraint", "n_edits"], "metric").reset_index()
    grid = Table(title=title, title_justify="left")
    for column in wide.columns:
        grid.add_column(str(column), justify="left" if column == "restraint" else "right")
    for row in wide.itertuples(index=False):
        grid.add_row(*("" if pd.isna(value) else str(value) for value in row))
    Console(width=max(100, 16 * len(wide.columns))).print(grid)


for verb in (*MAKING, *ENOUGH, *PLANNING, *SHARING):
    app.add_command(verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; every way to end has its exit status and at most one line."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # else it says on standard error that PyTorch is missing
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug, words = "--debug" in given, [word for word in given if word != "--debug"]
    try:
        sys.exit(app.main(words or ["--help"], prog_name="prunejax", standalone_mode=False) or 0)
    except InputError as error:
        fail(str(error), 2, debug)
    except click.ClickException as error:
        fail(error.format_message(), 2, debug)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted; what was written is whole, the same command goes on", 1, debug)
    except Exception as error:  # the last line of defence: a person gets one line, --debug gives the rest
        fail(f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]} (--debug shows where)", 1, debug)


def fail(line: str, status: int, debug: bool) -> None:
    """End with one line on standard error and an exit status; with --debug the traceback comes first."""
    if debug:
        traceback.print_exc()
    click.echo(f"prunejax: {' '.join(line.split())}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
