"""The verbs that hand an edited model on: as a Hugging Face folder, or as a small file for those who have the base
model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from prunejax.options import OUT, divided, say

MEGABYTE = 1e6


@click.command(epilog="Example: prunejax export build/run --restraint log:1.2 --out build/edited")
@click.argument("run", type=OUT)
@click.option("--edits", type=click.IntRange(min=0), help="after how many edits; the default is all recorded")
@click.option("--restraint", default="none", show_default=True, help="restraint of the accumulated update")
@click.option("--model", help="the unedited model; the default is where the run says it came from")
@click.option("--delta", is_flag=True, help="write only the update, one small file, which prunejax apply reads")
@click.option("--out", type=OUT, required=True, help="new folder (with --delta a new file); nothing is overwritten")
@divided("out")
def export(run: Path, edits: int | None, restraint: str, model: str | None, delta: bool, out: Path) -> None:
    """Write the edited model as a Hugging Face folder that transformers loads, with a model card.

    Tensors that were not edited, their layout and dtype stay as they are, to the bit.
    """
    from prunejax.base_checkpoint import find_base
    from prunejax.delta import delta_of_run, write_delta
    from prunejax.export import check_out, write_folder
    from prunejax.restraint import parse
    from prunejax.run import open_run

    opened, chosen = open_run(run), parse(restraint)
    base = find_base(opened.facts["model"], model, f"run {run}")
    check_out(out, base.folder)
    made = delta_of_run(opened, base, opened.n_edits if edits is None else edits, chosen)
    for tensor, row in made.facts["tensors"].items():
        say(f"{tensor}: {row['dtype']}, rounded by {row['rounding']:.2g} of the update")
    if delta:
        size, whole = write_delta(made, out).stat().st_size, sum(file.stat().st_size for file in base.files)
        say(f"wrote {out}: {size / MEGABYTE:,.2f} MB; the checkpoint that it is for has {whole / MEGABYTE:,.2f} MB")
        return
    write_folder(made, base, out)
    say(f"wrote {out}: {named(made.facts)}")


@click.command("apply", epilog="Example: prunejax apply edits.safetensors --model FOLDER --out build/edited")
@click.argument("delta", type=OUT)
@click.option("--model", required=True, help="the model that the delta was made for: world, or a Hugging Face folder")
@click.option("--out", type=OUT, required=True, help="new folder; nothing is overwritten")
@divided("out")
def apply_delta(delta: Path, model: str, out: Path) -> None:
    """Put a delta on the checkpoint it was made for, to the same folder that export writes."""
    from prunejax.base_checkpoint import find_base
    from prunejax.delta import read_delta
    from prunejax.export import write_folder

    read = read_delta(delta)
    differ = write_folder(read, find_base(read.facts["base"], model, f"delta {delta}"), out)
    if differ:
        say(
            f"{len(differ)} of {len(read.tensors)} edited tensors are not to the bit those of the machine where the "
            f"delta was made, though update and base are: arithmetic rounds otherwise here ({', '.join(differ)})"
        )
    say(f"wrote {out}: {named(read.facts)}")


def named(facts: Mapping[str, Any]) -> str:
    """What a folder holds, in a few words."""
    return f"{facts['base']['name']} after {facts['edits']} edits, restraint {facts['restraint']}"


SHARING = (export, apply_delta)
"""Both of them."""
