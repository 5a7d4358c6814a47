"""From the grid to the committed records, in one resumable way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from prunejax.ages import by_age
from prunejax.course import Plan
from prunejax.disabling import disabling_study
from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import Moments, load_moments, make_moments
from prunejax.enough_records import world_records
from prunejax.errors import InputError
from prunejax.files import remove_parts, write_through
from prunejax.grid import PRESET, SERIES, SINGLE
from prunejax.half import half_records
from prunejax.holding import PROGRESS, beside, held_output
from prunejax.intervals import summarize
from prunejax.mend_training import Training, train_mend
from prunejax.models.checkpoints import Model, load_model
from prunejax.models.presets import preset_settings
from prunejax.points import evaluate_run, label, provenance, spectra_of_run, weights_after
from prunejax.records import (
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
from prunejax.scoring import TASKS
from prunejax.sequence import edit_sequence
from prunejax.series import POOL, Series
from prunejax.single import as_cases, single_edits
from prunejax.sources import WORLD_FOLDER, WORLD_MOMENTS, find_text, find_world
from prunejax.values import EARLY, early_values, summary_of_early
from prunejax.workers import Each, workers
from prunejax.world.facts import edit_requests
from prunejax.world.pretrain import pretrain_world


def keys_record(out: Path) -> Path:
    """The record of how many keys are enough, of the embedded model."""
    return world_records(out, load_model(WORLD_FOLDER))


def keys_study(out: Path, runs: Path, each: Each) -> Iterable[Path]:
    """`keys_record`, which is made in one piece, by one of the workers, from now on."""
    del runs
    return each(keys_record, [out])


STUDIES = {"enough": keys_study, "half": half_records, "disabling": disabling_study}
"""Records of a kind of their own beside the grid's."""


def make_records(out: Path, runs: Path, names: Sequence[str] = (), jobs: int = 1) -> Iterator[Path]:
    """Run the grid and STUDIES, or those named, and write records and stored states into `out`, then the manifest.

    Models, runs and points that exist in `runs` are not made again. `jobs` runs are worked on at once, each by a
    process that lasts, so that what it compiled serves the next. Yields every file written, as it is written.
    InputError where another process makes records in `out` or from `runs`.
    """
    known = [*(series.name for series in SERIES), *STUDIES]
    if unknown := set(names) - {*known}:
        raise InputError(f"series {sorted(unknown)[0]!r}: there are {', '.join(known)}")
    chosen = [series for series in SERIES if not names or series.name in names]
    with ExitStack() as whole:
        for folder, what in ((out, "records"), (runs, "runs")):
            whole.enter_context(held_output(folder, what))
            remove_parts(folder)
        each = whole.enter_context(workers(jobs))
        studies = [make(out, runs, each) for name, make in STUDIES.items() if not names or name in names]
        tables = measured(chosen, runs, each)
        for series in chosen:
            for order in series.orders:
                for name, rows in next(tables).items():
                    yield add_records(out / f"{series.files}{name}.csv", rows)
                if series.stored and order == series.orders[0]:
                    model, moments = prepare(series, runs)
                    run = edit_run(series, order, model, moments, runs)
                    yield store_states(run, model, series, out / f"{series.files}states.safetensors")
            if series is SERIES[0]:
                yield from single_records(series, *prepare(series, runs), out)
        yield from chain.from_iterable(studies)
        yield write_manifest(out)


def measured(chosen: Sequence[Series], runs: Path, each: Each) -> Iterator[Mapping[str, pd.DataFrame]]:
    """`measure` of every order of every series, in order; what several runs start from is made before."""
    for seed in sorted({series.pretraining_seed for series in chosen}):
        model_of_seed(seed, runs)
    for _ in each(partial(make_inputs, runs), {(s.editor, s.pretraining_seed): s for s in chosen}.values()):
        pass
    yield from each(partial(measure, runs), [(series, order) for series in chosen for order in series.orders])


def make_inputs(runs: Path, series: Series) -> None:
    """What `prepare` makes, on disk."""
    prepare(series, runs)


def measure(runs: Path, one: tuple[Series, int]) -> Mapping[str, pd.DataFrame]:
    """One run, of a series and order, edited and measured at all its points: rows by the name of the file that takes
    them."""
    series, order = one
    model, moments = prepare(series, runs)
    run = edit_run(series, order, model, moments, runs)
    known = moments_to_measure(series, model, moments, runs)
    tables = {
        "evaluation": evaluate_run(run, model, series.edits, series.scored, TASKS),
        "spectra": spectra_of_run(run, model, series.spectra_edits, series.scored, known),
    }
    if series.followed:
        rows = read_records(run.folder / "records" / "evaluation.csv")
        rows = rows[rows["restraint"].isin(series.followed) & rows["n_edits"].isin(series.edits)]
        values = early_values(run, model, [n for n in series.edits if n > EARLY], series.followed)
        tables |= {"ages": by_age(run, rows), "early": summarize(summary_of_early(values), provenance(run))}
        if order == series.orders[0]:
            tables["values"] = values
    if series.timed:
        tables["evaluation"] = pd.concat([tables["evaluation"], seconds_of(run)])
    if series.during:
        tables = {name: rows.assign(restraint=series.during) for name, rows in tables.items()}
    if series.label:
        tables = {name: rows.assign(editor=series.label) for name, rows in tables.items()}
    return {name: rows.assign(model=series.model) if "model" in rows else rows for name, rows in tables.items()}


def seconds_of(run: Run) -> pd.DataFrame:
    """How long an edit of a run took, compilation and writing included, in seconds: a summary row under its last
    edit."""
    timing = pd.read_csv(run.folder / "timing.csv")
    value = float(timing["seconds"].sum() / timing["edits"].sum())
    row = label(run, pd.DataFrame([{"case": "all", "metric": "seconds", "value": value}]), parse("none"), run.n_edits)
    return summarize(row, provenance(run))


def prepare(series: Series, runs: Path) -> tuple[Model, Path]:
    """The model of a series and its second moments; what its runs start from is made where it does not exist."""
    model, moments = model_of_seed(series.pretraining_seed, runs)
    network = network_of(series, runs)
    if network not in ("", "world") and not Path(network).exists():
        training = Training(settings_for(series, runs).layers)
        train_mend(model, edit_requests(find_world(), "train"), training, 0, Path(network))
    moments_to_measure(series, model, moments, runs)
    return model, moments


def single_records(series: Series, model: Model, moments: Path, out: Path) -> Iterator[Path]:
    """Case rows and their summary of the first SINGLE requests of the first order, each edit made on its own."""
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
    settings = settings_for(series, Path())
    contexts = editor_row(series.editor).contexts(model, order)
    known = moments_for(series, model, moments)
    edits = single_edits(model, requests, series.editor, settings, contexts, known)
    return as_cases(edits, series.editor, order)


def model_of_seed(seed: int, runs: Path) -> tuple[Model, Path]:
    """The committed model for seed 0; another pretraining seed's is made once, with its second moments, and kept."""
    if seed == 0:
        return load_model(WORLD_FOLDER), WORLD_MOMENTS
    folder = runs / f"world-seed-{seed}"
    if not (folder / "model.safetensors").exists() or beside(folder, PROGRESS).exists():
        pretrain_world(folder, seed)
    model, moments = load_model(folder), folder / "moments"
    for layer in sorted({layer for editor in ("rome", "memit") for layer in preset_settings(PRESET, editor)["layers"]}):
        if not (moments / f"{layer}.safetensors").exists():
            make_moments(moments / f"{layer}.safetensors", model, find_text("world"), [layer], corpus="world")
    return model, moments


def edit_run(series: Series, order: int, model: Model, moments: Path, runs: Path, n_edits: int | None = None) -> Run:
    """One sequence of edits: the pool's requests, or the first `n_edits`, in the order that the seed shuffles them
    into."""
    requests = edit_requests(find_world(), series.pool, asked=series.asked)
    n = n_edits or series.length or len(requests)
    plan = Plan(
        editor=series.editor,
        settings=settings_for(series, runs),
        preset=PRESET,
        restrain=series.during,
        seed=order,
        source=f"{series.source}:{n}",
        batch=series.batch,
    )
    return edit_sequence(
        runs / f"{series.folder}-{order}",
        model,
        draw(requests, n, order),
        plan,
        editor_row(series.editor).contexts(model, order),
        moments_for(series, model, moments),
    )


def settings_for(series: Series, runs: Path) -> Any:
    """The editor's settings of a series: its preset's, with the hypernetwork of the series' own model."""
    preset, network = preset_settings(PRESET, series.editor), network_of(series, runs)
    return settings_of(series.editor, preset | dict(series.changed) | ({"network": network} if network else {}))


def network_of(series: Series, runs: Path) -> str:
    """The hypernetwork of a series' model: committed for seed 0, else a file beside the model; "" if none is needed."""
    if series.editor != "mend":
        return ""
    return str(runs / series.model / "mend.safetensors") if series.pretraining_seed else "world"


def moments_for(series: Series, model: Model, path: Path) -> Moments | None:
    """The second moments of the tensors that a series edits, as far as there are any; None where it reads none."""
    row = editor_row(series.editor)
    if series.editor != "mend" and not row.reads_moments:
        return None
    return load_moments(path, row.make(settings_for(series, Path())).tensors(model))


def moments_to_measure(series: Series, model: Model, path: Path, runs: Path) -> Moments:
    """The second moments by which drift is measured: of every tensor that a series edits, made once where editing needs
    none."""
    if editor_row(series.editor).reads_moments:
        return moments_for(series, model, path)
    file = runs / f"{series.model}-{series.editor}-keys.safetensors"
    if not file.exists():
        layers = preset_settings(PRESET, series.editor)["layers"]
        make_moments(file, model, find_text("world"), layers, ("down", "up"), corpus="world")
    return load_moments(file)


def add_records(path: Path, summary: pd.DataFrame) -> Path:
    """Summary rows laid over those in the file, same keys replaced."""
    return write_records(path, merge(read_records(path), summary) if path.exists() else ordered(summary))


def store_states(run: Run, model: Model, series: Series, path: Path) -> Path:
    """The weights W_n of a run as it edited them, at the series' stored edit counts, as `<n>.<tensor>` float32."""
    states = {
        f"{n}.{tensor}": np.asarray(weight)
        for n in series.stored
        for tensor, weight in weights_after(run, model, n, parse(series.scored[0])).items()
    }
    return write_through(path, lambda part: save_file(states, part))
