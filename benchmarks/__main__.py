"""The command line of the benchmarks: `make bench`, or `python -m benchmarks --only restraint`."""

import importlib.util
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prunejax.errors import InputError

if TYPE_CHECKING:
    from benchmarks.measurements import Claim, Measurement

RECORDS = Path(__file__).parent / "records"


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog="Example: make bench ONLY=restraint")
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True)
@click.option(
    "--only", multiple=True, metavar="CASE", help="one case, may be repeated; the default is all but world-long"
)
@click.option("--full", is_flag=True, help="all of PyTorch's edits too, hours; the default times a few of them")
@click.option("--out", type=click.Path(path_type=Path), default=RECORDS, help="folder of the record and its figure")
def bench(device: str, only: Sequence[str], full: bool, out: Path) -> None:
    """Time prunejax and a plain PyTorch version of the published algorithms side by side."""
    if importlib.util.find_spec("torch") is None:
        raise InputError("PyTorch is not installed: make bench installs it into .venv")
    from benchmarks.cases_edits import FULL, Extent
    from benchmarks.measurements import CLAIMS, write_measurements
    from benchmarks.rates import Refusal
    from benchmarks.suite import LONG, cpu_cases, gpu_cases
    from benchmarks.yardstick import shared_folder

    shared, refused = shared_folder(os.environ.get("PRUNEJAX_SHARED")), False
    record = out / f"{device}.csv"
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        cases = (cpu_cases if device == "cpu" else gpu_cases)(shared, Path(folder), FULL if full else Extent())
        if unknown := [name for name in only if name not in cases]:
            raise InputError(f"--only {unknown[0]}: there are {', '.join(cases)}")
        for name in only or [name for name in cases if name not in LONG]:
            try:
                rows = cases[name]()
            except Refusal as line:
                click.echo(f"refused: {line}", err=True)
                refused = True
            else:
                write_measurements(record, rows)
                for row in rows:
                    click.echo(told(row))
    if record.exists():
        conclude(record, CLAIMS if device == "cpu" else ())
    if refused:
        sys.exit(1)


def conclude(record: Path, claims: Sequence["Claim"]) -> None:
    """Draw the record's figure beside it, and say which claims hold."""
    from matplotlib.figure import Figure

    from benchmarks.figure import draw_comparisons
    from benchmarks.measurements import read_measurements, verdicts
    from prunejax.figures.style import WIDTH, save, style

    rows = read_measurements(record)
    with style():
        fig = Figure(figsize=(WIDTH, 2.8))
        draw_comparisons(fig, rows)
        drawn = save(fig, record.parent, record.stem)
    for line in verdicts(rows, claims):
        click.echo(line)
    click.echo(f"wrote {record} and {drawn}")


def told(row: "Measurement") -> str:
    """A row as a line for the person at the terminal."""
    parts = [f"{row.case}, {row.side}: {row.median_s:.3g} s ({row.lowest_s:.3g} to {row.highest_s:.3g}), {row.unit}"]
    shown = {"ratio": "ratio {:.3g}", "difference": "difference {:.1e}", "gflop": "{:.4g} GFLOP"}
    shown |= {
        "rate_gflops": "rate {:.3g} GFLOP/s",
        "fraction": "{:.0%} of it",
        "peak_mb": "{:.0f} MB",
        "held_mb": "{:.0f} MB held",
    }
    numbers = {name: getattr(row, name) for name in shown}
    parts += [shown[name].format(number) for name, number in numbers.items() if not math.isnan(number)]
    return ", ".join(parts)


def main() -> None:
    """Run; bad input ends in one line and exit status 2."""
    try:
        bench.main(standalone_mode=False)
    except (InputError, click.ClickException) as error:
        line = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"bench: {line}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
