"""From the grid to the committed records, in one resumable way."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import Moments, load_moments, save_moments, second_moments
from prunejax.errors import InputError
from prunejax.files import write_through
from prunejax.grid import POOL, PRESET, SERIES, SINGLE, STORED, Series
from prunejax.intervals import summarize
from prunejax.models.checkpoints import Model, load_model
from prunejax.models.presets import preset_settings
from prunejax.points import TASKS, evaluate_run, spectra_of_run, weights_after
from prunejax.records import (
    CASE_COLUMNS,
    Provenance,
    is_score,
    merge,
    ordered,
    read_records,
    write_manifest,
    write_records,
)
from prunejax.requests import draw
from prunejax.restraint import parse
from prunejax.run import Run
from prunejax.sequence import Plan, edit_sequence
from prunejax.single import single_edits
from prunejax.sources import WORLD_FOLDER, WORLD_MOMENTS, find_text, find_world
from prunejax.world.facts import edit_requests
from prunejax.world.pretrain import pretrain_world


def make_records(out: Path, runs: Path, names: Sequence[str] = ()) -> Iterator[Path]:
    """Run the grid, or the series named, and write evaluation.csv, spectra.csv and states.safetensors into `out`, then
    the manifest.

    Models, runs and points that exist in `runs` are not made again. Yields every file written, as it is written.
    """
    if unknown := set(names) - {series.name for series in SERIES}:
        raise InputError(f"series {sorted(unknown)[0]!r}: there are {', '.join(series.name for series in SERIES)}")
    for series in SERIES:
        if names and series.name not in names:
            continue
        model, moments = model_of_seed(series.pretraining_seed, runs)
        known = moments_for(series, model, moments)
        for order in series.orders:
            run = edit_run(series, order, model, moments, runs)
            scores = evaluate_run(run, model, series.edits, series.restraints, TASKS)
            spectra = spectra_of_run(run, model, series.spectra_edits, series.restraints, known)
            for name, summary in (("evaluation", scores), ("spectra", spectra)):
                yield add_records(out / f"{series.files}{name}.csv", summary.assign(model=series.model))
            if series is SERIES[0] and order == series.orders[0]:
                yield store_states(run, model, out / "states.safetensors")
        if series is SERIES[0]:
            yield from single_records(series, model, moments, out)
    yield write_manifest(out)


def single_records(series: Series, model: Model, moments: Path, out: Path) -> Iterator[Path]:
    """Case rows and their summary of the first SINGLE requests of the first order, each edit made on its own.

    n_edits is 0 before and 1 after; sigma_max at 0 is that of W_0, at 1 that of the update alone.
    """
    rows = single_cases(series, range(SINGLE), model, moments)
    yield write_records(out / "single_cases.csv", rows)
    origin = Provenance("single", series.model, f"world/{POOL}:{SINGLE}", series.editor, PRESET, 1)
    scores = rows[rows["metric"].map(is_score)]
    yield write_records(out / "single.csv", summarize(scores, origin))


def single_cases(series: Series, numbers: Iterable[int], model: Model, moments: Path) -> pd.DataFrame:
    """Case rows of single edits of these requests, numbered in the series' first order."""
    order = series.orders[0]
    pool = edit_requests(find_world(), POOL)
    shuffled = draw(pool, len(pool), order)
    requests = [shuffled[number] for number in numbers]
    settings = settings_of(series.editor, preset_settings(PRESET, series.editor))
    contexts = editor_row(series.editor).contexts(model, order)
    known = moments_for(series, model, moments)
    edits = single_edits(model, requests, series.editor, settings, contexts, known)
    sizes = edits[edits["metric"] == "sigma_max:update"].assign(metric="sigma_max")
    sizes["before"] = edits.loc[edits["metric"] == "sigma_max:weight", "before"].iloc[0]
    kept = pd.concat([edits[~edits["metric"].str.contains(":")], sizes])
    sides = [kept.assign(n_edits=n, value=kept[side]) for n, side in ((0, "before"), (1, "after"))]
    rows = pd.concat(sides).assign(editor=series.editor, restraint="none", seed=order)
    return ordered(rows[list(CASE_COLUMNS)])


def model_of_seed(seed: int, runs: Path) -> tuple[Model, Path]:
    """The committed model for seed 0; another pretraining seed's is made once, with its second moments, and kept."""
    if seed == 0:
        return load_model(WORLD_FOLDER), WORLD_MOMENTS
    folder = runs / f"world-seed-{seed}"
    if not (folder / "model.safetensors").exists():
        pretrain_world(folder, seed)
    model, moments = load_model(folder), folder / "moments.safetensors"
    if not moments.exists():
        layers = preset_settings(PRESET, "rome")["layers"]
        save_moments(second_moments(model, find_text("world"), layers), moments)
    return model, moments


def edit_run(series: Series, order: int, model: Model, moments: Path, runs: Path, n_edits: int | None = None) -> Run:
    """One sequence of edits: the pool's requests, or the first `n_edits`, in the order that the seed shuffles them
    into."""
    requests = edit_requests(find_world(), POOL)
    plan = Plan(
        editor=series.editor,
        settings=settings_of(series.editor, preset_settings(PRESET, series.editor)),
        preset=PRESET,
        seed=order,
        source=f"world/{POOL}:{n_edits or len(requests)}",
    )
    return edit_sequence(
        runs / f"{series.model}-{series.editor}-{order}",
        model,
        draw(requests, n_edits or len(requests), order),
        plan,
        editor_row(series.editor).contexts(model, order),
        moments_for(series, model, moments),
    )


def moments_for(series: Series, model: Model, path: Path) -> Moments:
    """The second moments of the tensors that a series edits."""
    settings = settings_of(series.editor, preset_settings(PRESET, series.editor))
    return load_moments(path, editor_row(series.editor).make(settings).tensors(model))


def add_records(path: Path, summary: pd.DataFrame) -> Path:
    """Summary rows laid over those in the file, same keys replaced."""
    return write_records(path, merge(read_records(path), summary) if path.exists() else summary)


def store_states(run: Run, model: Model, path: Path) -> Path:
    """The unrestrained weights W_n of a run at the stored edit counts, as `<n>.<tensor>` float32."""
    states = {
        f"{n}.{tensor}": np.asarray(weight)
        for n in STORED
        for tensor, weight in weights_after(run, model, n, parse("none")).items()
    }
    return write_through(path, lambda part: save_file(states, part))
