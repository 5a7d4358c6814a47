"""The verbs of the command line. Bad input ends in one line and exit status 2, failure in one line and 1."""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from prunejax.cli_checking import CHECKING
from prunejax.cli_editing import EDITING
from prunejax.cli_enough import ENOUGH
from prunejax.cli_making import MAKING
from prunejax.cli_planning import PLANNING
from prunejax.cli_sharing import SHARING
from prunejax.cli_tables import show
from prunejax.disk import refusal
from prunejax.errors import DiskError, InputError
from prunejax.files import write_atomic
from prunejax.options import OUT, divided, parse_edits, say, split

LONGEST = 1500
"""Characters of the line that says what went wrong; of a longer one both ends are shown."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="prunejax")
def app() -> None:
    """Edit facts into a language model one after another, restrain the accumulated update, and measure what was kept
    and what broke."""


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


for verb in (*EDITING, *CHECKING, *MAKING, *ENOUGH, *PLANNING, *SHARING):
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
    except DiskError as error:
        fail(str(error), 1, debug)
    except Exception as error:  # the last line of defence: a person gets one line, --debug gives the rest
        unknown = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]} (--debug shows where)"
        fail(refusal(error) or unknown, 1, debug)


def fail(line: str, status: int, debug: bool) -> None:
    """End with one line on standard error and an exit status; with --debug the traceback comes first."""
    if debug:
        traceback.print_exc()
    click.echo(f"prunejax: {shown(line)}", err=True)
    sys.exit(status)


def shown(line: str) -> str:
    """A line that a terminal can show: what others named must not steer it, nor fill it."""
    words = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(line.split()))
    return words if len(words) <= LONGEST else f"{words[: LONGEST // 2]} [...] {words[-LONGEST // 2 :]}"


if __name__ == "__main__":
    main()
