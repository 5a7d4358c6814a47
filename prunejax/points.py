"""Measure a run at its points: after n edits, under a restraint, scores and spectra become rows in the run's records
folder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from jax import Array
from tqdm import tqdm

from prunejax.disk import check_file
from prunejax.editors.moments import Moments
from prunejax.errors import InputError
from prunejax.files import remove_parts_of, sha256
from prunejax.fold import accumulated_along
from prunejax.holding import held_output
from prunejax.intervals import summarize
from prunejax.models.checkpoints import Model
from prunejax.records import CASE_COLUMNS, Provenance, merge, read_records, write_records
from prunejax.restraint import Restraint, is_idle, parse, weight_under
from prunejax.run import Run
from prunejax.scoring import TASKS, Asked, ask, score
from prunejax.sources import WORLD_FOLDER, find_model
from prunejax.spectra import sigma_max
from prunejax.spectra_rows import spectra_rows
from prunejax.sweep import Sweep


def evaluate_run(
    run: Run, model: Model, edits: Sequence[int] | None, restraints: Sequence[str], tasks: Sequence[str]
) -> pd.DataFrame:
    """Score the run after each number of edits under each restraint; the summary of these points, with intervals
    within the run.

    The first n requests are scored after n edits, all of them at n = 0 (the unedited model). Case rows go to
    records/evaluation.csv count by count; points that are on record are not computed again. A restraint that leaves
    the update as it is, to the bit, repeats the rows of `none`. Abilities and perplexity ask about the embedded world:
    of another model they say nothing. InputError where another process writes this file; the run may be edited
    meanwhile.
    """
    wanted = resolve_tasks(tasks)
    path = run.folder / "records" / "evaluation.csv"
    counts, parsed = resolve_edits(run, edits), resolve_restraints(restraints)
    if needed_counts(rows_in(path), counts, parsed, wanted):
        check_file(path, "records")
        with held_output(path, "records"):
            remove_parts_of(path)
            score_counts(run, model, counts, parsed, wanted, path)
    rows = rows_in(path)  # as a later call will find them, rounded
    chosen = rows[rows["n_edits"].isin(counts) & rows["restraint"].isin([restraint.spec for restraint in parsed])]
    return summarize(chosen, provenance(run))


def score_counts(
    run: Run, model: Model, counts: Sequence[int], restraints: Sequence[Restraint], wanted: Sequence[str], path: Path
) -> None:
    """Write the case rows of these numbers of edits that are not on record, one number after the other."""
    rows = rows_in(path)
    needed = needed_counts(rows, counts, restraints, wanted)
    with tqdm(total=len(counts) * len(restraints), desc="evaluate", unit="point") as progress:
        progress.update((len(counts) - len(needed)) * len(restraints))
        general = ask(model.tokenizer, (), [task for task in wanted if task != "editing"])
        # All counts are gone along, known or not: where the sum of edits is cut may show in its last bit.
        for n, sweeps in zip(counts, sweeps_along(run, model, counts), strict=True):
            if n not in needed:
                continue
            requests = run.requests[:n] or run.requests
            asked = general._replace(editing=ask(model.tokenizer, requests, {"editing"}.intersection(wanted)).editing)
            here = rows[rows["n_edits"] == n]
            for restraint in restraints:
                here = pd.concat([here, evaluate_point(run, model, n, restraint, sweeps, asked, here)])
                progress.update()
            rows = merge(rows, here)
            write_records(path, rows)


def evaluate_point(
    run: Run,
    model: Model,
    n: int,
    restraint: Restraint,
    sweeps: Mapping[str, Sweep],
    asked: Asked,
    here: pd.DataFrame,
) -> pd.DataFrame:
    """The case rows after n edits under one restraint that are not yet among those `here`, of what is `asked`."""
    wanted = [task for task, part in asked._asdict().items() if part is not None]
    missing = missing_tasks(here, restraint.spec, wanted)
    if not missing:
        return here.head(0)
    plain = here[here["restraint"] == "none"]
    if all(is_idle(restraint, sweep) for sweep in sweeps.values()) and not missing_tasks(plain, "none", missing):
        scored = plain[tasks_of(plain).isin(missing)]
    else:
        edited = model.with_weights({tensor: weight_under(restraint, sweep) for tensor, sweep in sweeps.items()})
        scored = score(edited, asked.only(missing))
    return label(run, scored[["case", "metric", "value"]], restraint, n)


def sweeps_along(run: Run, model: Model, counts: Sequence[int]) -> Iterator[dict[str, Sweep]]:
    """W_0, W_n - W_0 and sigma_max(W_0) of every edited tensor after each of the ascending counts: what restraints of
    that point share."""
    original = {tensor: model.weight(tensor) for tensor in run.tensors}
    m = {tensor: sigma_max(weight) for tensor, weight in original.items()} if counts else {}
    for sums in accumulated_along(run, counts, original, m):
        yield {tensor: Sweep(original[tensor], update, m[tensor]) for tensor, update in sums.items()}


def weights_after(run: Run, model: Model, n: int, restraint: Restraint) -> dict[str, Array]:
    """W_0 + F(W_n - W_0) of every edited tensor."""
    (sweeps,) = sweeps_along(run, model, [n])
    return {tensor: weight_under(restraint, sweep) for tensor, sweep in sweeps.items()}


def spectra_of_run(
    run: Run, model: Model, edits: Sequence[int] | None, restraints: Sequence[str], moments: Moments | None = None
) -> pd.DataFrame:
    """Spectra after each number of edits under each restraint, of the weight W_0 + F(D) and of the update F(D); also
    written to records/spectra.csv.

    `margin` is m ln(base) (below 1 a log map amplifies just above m), `amplification` the largest F(s)/s over the
    update's singular values, `eta` the norm of the next edit over sigma_min of the unrestrained weight (the bound of
    `theory` says something below 1), and with `moments` `drift` how much of what the unedited weight says to the keys
    of their text has changed.
    """
    if not run.tensors:
        raise InputError(f"run {run.folder}: edits no weights, so there are no spectra")
    path = run.folder / "records" / "spectra.csv"
    rows = rows_in(path)
    counts, parsed = resolve_edits(run, edits), resolve_restraints(restraints)
    known = rows[(rows["metric"] == "drift") | (moments is None)].groupby("n_edits")["restraint"].unique()
    unknown = {n: [one for one in parsed if one.spec not in known.get(n, ())] for n in counts}
    if missing := {n: some for n, some in unknown.items() if some}:
        check_file(path, "records")
        with held_output(path, "records"):
            remove_parts_of(path)
            original = {tensor: model.weight(tensor) for tensor in run.tensors}
            found = spectra_rows(run, original, sweeps_along(run, model, list(missing)), missing, moments)
            fresh = [label(run, frame, restraint, n) for n, restraint, frame in found]
            rows = merge(rows_in(path), pd.concat(fresh, ignore_index=True))
            write_records(path, rows)
    chosen = rows[rows["n_edits"].isin(counts) & rows["restraint"].isin([restraint.spec for restraint in parsed])]
    return summarize(chosen, provenance(run))


def model_of(run: Run, name: str | None) -> Model:
    """The unedited model a run was made from, checked by its checksum."""
    described: Mapping[str, str] = run.facts["model"]
    if name is None and not is_of_world(run):
        raise InputError(
            f"run {run.folder}: was made from model {described['name']!r}, not from the embedded one; "
            "give its folder with --model"
        )
    model = find_model(name or "world", described.get("dtype", "float32"))
    if model.sha256 != described["sha256"]:
        raise InputError(
            f"run {run.folder}: was made from another model than {name} (its weights have another checksum)"
        )
    return model


def is_of_world(run: Run) -> bool:
    """Whether a run was made from the embedded model, which is always at hand."""
    return run.facts["model"]["sha256"] == sha256(WORLD_FOLDER / "model.safetensors")


def resolve_edits(run: Run, edits: Sequence[int] | None) -> list[int]:
    """Edit counts to measure; all recorded edits when none are named."""
    chosen = sorted(set(edits if edits is not None else [run.n_edits]))
    if chosen[-1] > run.n_edits:
        raise InputError(f"run {run.folder}: has {run.n_edits} edits, {chosen[-1]} were asked for")
    return chosen


def resolve_restraints(specs: Sequence[str]) -> list[Restraint]:
    """The restraints that are named, each once."""
    if not specs:
        raise InputError("restraint: none is named; give at least one, for example none,log:1.2")
    return [parse(spec) for spec in dict.fromkeys(specs)]


def resolve_tasks(tasks: Sequence[str]) -> list[str]:
    """Task names; `all` stands for every one."""
    if unknown := [task for task in tasks or [""] if task not in (*TASKS, "all")]:
        raise InputError(f"task {unknown[0]!r}: there are {', '.join(TASKS)}, or all")
    return [task for task in TASKS if task in tasks or "all" in tasks]


def tasks_of(rows: pd.DataFrame) -> pd.Series:
    """The task that each row's metric belongs to."""
    task = {"ability": "abilities", "perplexity": "perplexity"}
    metrics = rows["metric"].unique()
    return rows["metric"].map({metric: task.get(metric.partition(":")[0], "editing") for metric in metrics})


def missing_tasks(known: pd.DataFrame, spec: str, wanted: Sequence[str]) -> list[str]:
    """The wanted tasks of which rows of one number of edits hold no metric under a restraint."""
    there = set(tasks_of(known[known["restraint"] == spec]))
    return [task for task in wanted if task not in there]


def needed_counts(
    rows: pd.DataFrame, counts: Sequence[int], restraints: Sequence[Restraint], wanted: Sequence[str]
) -> list[int]:
    """The numbers of edits of which the rows lack a wanted task under a restraint."""
    known = {n: rows[rows["n_edits"] == n] for n in counts}
    return [n for n in counts if any(missing_tasks(known[n], one.spec, wanted) for one in restraints)]


def rows_in(path: Path) -> pd.DataFrame:
    """The case rows in a file, none where it is not there yet."""
    return read_records(path) if path.exists() else pd.DataFrame(columns=list(CASE_COLUMNS))


def label(run: Run, rows: pd.DataFrame, restraint: Restraint, n: int) -> pd.DataFrame:
    """Rows with the columns that say where they come from."""
    return rows.assign(editor=run.facts["editor"], restraint=restraint.spec, n_edits=n, seed=run.facts["seed"])[
        list(CASE_COLUMNS)
    ]


def provenance(run: Run) -> Provenance:
    """What summaries of a run repeat on every row."""
    facts = run.facts
    return Provenance(
        run.folder.name,
        facts["model"]["name"],
        facts["requests"]["source"],
        facts["editor"],
        facts["preset"],
        facts["batch"],
    )
