"""The verbs that make what edits start from and figures are drawn from: data sets, models, second moments, settings,
records."""

from pathlib import Path

import click
import pandas as pd
from rich.console import Console
from rich.table import Table

from prunejax.disk import check_file, check_folder
from prunejax.errors import InputError
from prunejax.files import is_file
from prunejax.options import DTYPE, OUT, SEED, divided, numbers, say, split


@click.command(epilog="Example: prunejax pretrain --seed 1 --out build/world-1")
@click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="seed of the initial weights and of the order of the text",
)
@click.option("--out", type=OUT, required=True, help="folder for the model, its tokenizer and the world's facts")
def pretrain(seed: int, out: Path) -> None:
    """Make the embedded model again from its seed (a Hugging Face folder)."""
    from prunejax.world.pretrain import pretrain_world

    check_folder(out, "model")
    folder = pretrain_world(out, seed, note=say)
    say(f"wrote {folder} (config.json, model.safetensors, tokenizer.json, world.json, pretraining.csv)")


@click.command(epilog="Example: prunejax moments --model world --layers 0 --text world --out build/moments.safetensors")
@click.option("--model", required=True, help="world, a Hugging Face folder, or a hub name (OWNER/NAME)")
@click.option("--layers", required=True, help="layers whose keys to collect, for example 5,6")
@click.option(
    "--text",
    required=True,
    help="a text file (one text a line), a data set of prunejax get, or world for the world's training text",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="longest sequence in tokens; longer texts are cut into several",
)
@click.option("--tokens", type=click.IntRange(min=1), help="stop after so many tokens, ten times d_ff for example")
@click.option("--out", type=OUT, required=True, help="safetensors file to write")
@DTYPE
@divided("out")
def moments(model: str, layers: str, text: str, max_length: int, tokens: int | None, out: Path, dtype: str) -> None:
    """Collect second moments of keys over a text: the metric of locate-then-edit methods."""
    from prunejax.editors.metric import MOST_KAPPA
    from prunejax.editors.moments import make_moments
    from prunejax.sources import find_model, find_text

    check_file(out, "moments")
    found = make_moments(
        out,
        find_model(model, dtype),
        find_text(text),
        numbers(layers, "--layers"),
        max_length=max_length,
        max_tokens=tokens,
        corpus=Path(text).name if is_file(text) else text,
        note=say,
    )
    for tensor, (matrix, count, origin) in found.items():
        each, kappas = count / len(matrix), f"kappa {origin.kappa:.3g}, scaled {origin.scaled_kappa:.3g}"
        say(f"{tensor}: {count} keys of {len(matrix)} dimensions, {each:.3g} a dimension; {kappas}")
        if origin.scaled_kappa > MOST_KAPPA:
            say(f"{tensor}: cannot be inverted as it is; collect more text, or edit with a ridge")
    say(f"wrote {out}")


@click.command(epilog="Example: prunejax tune --editor rome --out build/tune.csv")
@click.option("--model", default="world", show_default=True, help="world, or a folder that pretrain made")
@click.option("--editor", default="rome", show_default=True, help="whose settings: rome, memit")
@click.option("--out", type=OUT, help="CSV file to write; the default is data/world/tune-EDITOR.csv")
def tune(model: str, editor: str, out: Path | None) -> None:
    """Search edit settings of the embedded model: single edits of the tune pool, a row a combination."""
    from prunejax.sources import find_model
    from prunejax.tune import best
    from prunejax.tune import tune as search

    out = out or Path(f"data/world/tune-{editor}.csv")
    check_file(out, "settings")
    found = pd.read_csv(search(find_model(model), out, Path("build/tune"), editor), dtype={"layers": str})
    say(f"best: {', '.join(f'{name}={value}' for name, value in best(found).items())}")
    say(f"wrote {out}")


@click.command(
    "train-mend", epilog="Example: prunejax train-mend --model world --layers 0,1,2 --out build/mend.safetensors"
)
@click.option("--model", default="world", show_default=True, help="world, or a folder that pretrain made")
@click.option("--layers", default="0,1,2", show_default=True, help="layers whose two projections are edited")
@click.option("--requests", default="world/train", show_default=True, help="what it learns from: as for edit")
@click.option("--rank", type=click.IntRange(min=1), default=32, show_default=True, help="rank of the network's layers")
@click.option("--steps", type=click.IntRange(min=1), default=600, show_default=True, help="training steps of ten edits")
@click.option("--seed", type=SEED, default=0, show_default=True, help="first weights, order of edits")
@click.option("--out", type=OUT, default=Path("data/mend/world.safetensors"), show_default=True, help="file to write")
def train_mend(model: str, layers: str, requests: str, rank: int, steps: int, seed: int, out: Path) -> None:
    """Train the hypernetwork of MEND; its course is written beside it as CSV."""
    from prunejax.mend_training import Training
    from prunejax.mend_training import train_mend as train
    from prunejax.sources import find_model, find_requests

    check_file(out, "hypernetwork")
    training = Training(tuple(sorted(set(numbers(layers, "--layers")))), rank, steps)
    path, course = train(find_model(model), find_requests(requests, seed, say), training, seed, out, say)
    best = course.loc[course["held_out_loss"].idxmin()]
    say(f"kept step {best['step']:.0f}: held-out loss {best['held_out_loss']:.4f}, said {best['held_out_top1']:.2f}")
    say(f"wrote {path} and {path.with_suffix('.csv').name}")


@click.command(epilog="Example: prunejax records --series world")
@click.option(
    "--out", type=OUT, default=Path("data/records"), show_default=True, help="folder of the committed records"
)
@click.option(
    "--runs",
    type=OUT,
    default=Path("build/records"),
    show_default=True,
    help="folder of the runs behind them; kept, so that this verb resumes",
)
@click.option(
    "--series",
    default="",
    help="comma-separated: series of the grid (prunejax/grid.py), enough, half, disabling; default all",
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="request orders made at once")
def records(out: Path, runs: Path, series: str, jobs: int) -> None:
    """Make the records behind the figures again: the full grid, all request orders, resumable."""
    from prunejax.study import make_records

    check_folder(out, "records")
    check_folder(runs, "runs")
    for path in make_records(out, runs, split(series), jobs):
        say(f"wrote {path}")


@click.command(epilog="Example: prunejax get counterfact")
@click.argument("name", required=False)
@click.option("--out", type=OUT, help="file to write; the default lies where --requests NAME and --text NAME look")
def get(name: str | None, out: Path | None) -> None:
    """Download a public data set once, checked by its SHA-256; without NAME, list what there is.

    It goes into the folder that the environment variable PRUNEJAX_DATA names, else into the user's cache.
    """
    from prunejax.datasets import DATASETS, cached, dataset_named, download, is_whole

    if name is None:
        if out is not None:
            raise InputError("--out without NAME: say which data set, for example prunejax get counterfact --out FILE")
        grid = Table(title="Public data sets", title_justify="left")
        for column in ("name", "what", "holds", "records", "licence", "here"):
            grid.add_column(column, justify="right" if column == "records" else "left")
        for row in DATASETS.values():
            count = "" if row.records is None else f"{row.records:,}"
            here = "yes" if is_whole(row, cached(row)) else "no"
            grid.add_row(row.name, row.what, row.holds, count, row.licence, here)
        Console(width=150).print(grid)
        return
    dataset = dataset_named(name)
    path = out or cached(dataset)
    if is_whole(dataset, path):
        say(f"{path} is there already, with the right checksum")
        return
    digest = download(dataset, path)
    say(f"downloaded {dataset.url} (licence: {dataset.licence})")
    say(f"wrote {path} (sha256 {digest})")


MAKING = (get, pretrain, moments, tune, train_mend, records)
"""All of them, in the order of the work."""
