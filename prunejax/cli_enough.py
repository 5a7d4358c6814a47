"""The verb that asks of a checkpoint how many keys its second moments need."""

from pathlib import Path

import click

from prunejax.disk import check_file
from prunejax.files import is_file
from prunejax.options import OUT, finite, say

EXAMPLE = "prunejax enough --model FOLDER --text FILE --requests FILE:50 --layer 5 --out build/enough.csv"


@click.command(epilog=f"Example: {EXAMPLE}")
@click.option("--model", required=True, help="world, a Hugging Face folder, or a hub name (OWNER/NAME)")
@click.option("--text", required=True, help="a text file (one text a line), a data set of prunejax get, or world")
@click.option(
    "--requests", required=True, help="whose subjects give the keys that are asked for: as for edit, drawn by each seed"
)
@click.option("--layer", type=click.IntRange(min=0), required=True, help="layer whose keys to collect, for example 5")
@click.option(
    "--ridge",
    type=click.FloatRange(min=0, min_open=True),
    callback=finite,
    default=1.0,
    show_default=True,
    help="share of the mean diagonal, measured beside no ridge; the default is the world's",
)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="how many: each shuffles the text anew"
)
@click.option("--out", type=OUT, required=True, help="CSV file; rows of other models in it stay")
def enough(model: str, text: str, requests: str, layer: int, ridge: float, seeds: int, out: Path) -> None:
    """Say how many keys are enough: second moments of ever longer prefixes of a text, beside that of all of it.

    Nothing is edited. A cost of 1.1 means that an update along C_n^-1 k disturbs what a weight says to the text's keys
    by a tenth (in mean square) more than one along C^-1 k.
    """
    from prunejax.enough_records import Trial, enough_records
    from prunejax.records import read_records
    from prunejax.sources import find_model, find_requests, find_text, requests_name

    check_file(out, "records")
    loaded = find_model(model)
    asked = {seed: find_requests(requests, seed, say) for seed in range(seeds)}
    name = Path(text).name if is_file(text) else text
    trial = Trial(name, tuple(find_text(text)), requests_name(requests), asked, layer, (0.0, ridge))
    rows = read_records(enough_records(out, loaded, trial))
    means = rows[rows["model"] == loaded.name].groupby(["settings", "keys", "metric"])["mean"].mean().unstack()
    for (settings, keys), row in means.iterrows():
        each, numbers = keys / loaded.config.d_ff, f"cost {row['cost']:.3g}, cosine {row['cosine']:.3g}"
        say(f"{settings}, {each:.3g} keys a dimension: {numbers}, scaled kappa {row['scaled_kappa']:.3g}")
    say(f"wrote {out}")


ENOUGH = (enough,)
"""The one verb."""
