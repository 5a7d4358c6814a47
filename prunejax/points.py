"""Measure a run at its points: after n edits, under a restraint, scores and spectra become rows in the run's records
folder."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from jax import Array
from tqdm import tqdm

from prunejax.editors.moments import Moments
from prunejax.errors import InputError
from prunejax.evaluate.abilities import ability_scores
from prunejax.evaluate.editing import Prepared, editing_scores, prepare
from prunejax.evaluate.perplexity import perplexity
from prunejax.files import sha256
from prunejax.intervals import summarize
from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.records import CASE_COLUMNS, Provenance, merge, read_records, write_records
from prunejax.requests import EditRequest
from prunejax.restraint import Restraint, is_idle, parse, weight_under
from prunejax.run import Run, accumulated_along
from prunejax.sources import WORLD_FOLDER, find_model, find_world
from prunejax.spectra import sigma_max
from prunejax.spectra_rows import spectra_rows
from prunejax.sweep import Sweep
from prunejax.world.tasks import evaluation_items, held_out_text

TASKS = ("editing", "abilities", "perplexity")


def evaluate_run(
    run: Run, model: Model, edits: Sequence[int] | None, restraints: Sequence[str], tasks: Sequence[str]
) -> pd.DataFrame:
    """Score the run after each number of edits under each restraint; the summary of these points, with intervals
    within the run.

    The first n requests are scored after n edits, all of them at n = 0 (the unedited model). Case rows go to
    records/evaluation.csv count by count; points that are on record are not computed again. A restraint that leaves
    the update as it is, to the bit, repeats the rows of `none`. Abilities and perplexity ask about the embedded world:
    of another model they say nothing.
    """
    wanted = resolve_tasks(tasks)
    path = run.folder / "records" / "evaluation.csv"
    rows = read_records(path) if path.exists() else empty_rows()
    counts, parsed = resolve_edits(run, edits), resolve_restraints(restraints)
    needed = [n for n in counts if any(missing_tasks(rows[rows["n_edits"] == n], one, wanted) for one in parsed)]
    sweeps = sweeps_along(run, model, needed)
    with tqdm(total=len(counts) * len(parsed), desc="evaluate", unit="point") as progress:
        for n in counts:
            if n not in needed:
                progress.update(len(parsed))
                continue
            here, accumulated = rows[rows["n_edits"] == n], next(sweeps)
            asked = prepare(model.tokenizer, run.requests[:n] or run.requests) if "editing" in wanted else ()
            for restraint in parsed:
                here = evaluate_point(run, model, n, restraint, accumulated, wanted, asked, here)
                progress.update()
            rows = read_records(write_records(path, merge(rows, here)))  # as a later call will find them, rounded
    chosen = rows[rows["n_edits"].isin(counts) & rows["restraint"].isin([restraint.spec for restraint in parsed])]
    return summarize(chosen, provenance(run))


def evaluate_point(
    run: Run,
    model: Model,
    n: int,
    restraint: Restraint,
    sweeps: Mapping[str, Sweep],
    wanted: Sequence[str],
    asked: Sequence[EditRequest] | Prepared,
    here: pd.DataFrame,
) -> pd.DataFrame:
    """`here`, the case rows on record after n edits, with those of one restraint, of which `asked` are the requests to
    score; `here` itself if none is missing."""
    missing = missing_tasks(here, restraint, wanted)
    if not missing:
        return here
    plain = here[here["restraint"] == "none"]
    if all(is_idle(restraint, sweep) for sweep in sweeps.values()) and all(on_record(plain, task) for task in missing):
        scored = plain[plain["metric"].map(task_of).isin(missing)]
    else:
        edited = model.with_weights({tensor: weight_under(restraint, sweep) for tensor, sweep in sweeps.items()})
        scored = score_model(edited, asked, missing)
    return merge(here, label(run, scored[["case", "metric", "value"]], restraint, n))


def score_model(model: Model, asked: Sequence[EditRequest] | Prepared, tasks: Sequence[str]) -> pd.DataFrame:
    """Case, metric and value of one model: editing scores of the requests that are `asked`, or were prepared for
    several models, the world's abilities, perplexity of held-out text."""
    forward, parts = forward_of(model), []
    if "editing" in tasks:
        prepared = asked if isinstance(asked, Prepared) else prepare(model.tokenizer, asked)
        parts.append(editing_scores(forward, prepared))
    if "abilities" in tasks:
        parts.append(ability_scores(forward, model.tokenizer, evaluation_items(find_world())))
    if "perplexity" in tasks:
        value = perplexity(forward, model.tokenizer, held_out_text())
        parts.append(pd.DataFrame([{"case": "all", "metric": "perplexity", "value": value}]))
    return pd.concat(parts, ignore_index=True)


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
    path = run.folder / "records" / "spectra.csv"
    rows = read_records(path) if path.exists() else empty_rows()
    counts, parsed = resolve_edits(run, edits), resolve_restraints(restraints)
    known = rows[(rows["metric"] == "drift") | (moments is None)].groupby("n_edits")["restraint"].unique()
    unknown = {n: [one for one in parsed if one.spec not in known.get(n, ())] for n in counts}
    if missing := {n: some for n, some in unknown.items() if some}:
        original = {tensor: model.weight(tensor) for tensor in run.tensors}
        found = spectra_rows(run, original, sweeps_along(run, model, list(missing)), missing, moments)
        fresh = [label(run, frame, restraint, n) for n, restraint, frame in found]
        rows = merge(rows, pd.concat(fresh, ignore_index=True))
        write_records(path, rows)
    chosen = rows[rows["n_edits"].isin(counts) & rows["restraint"].isin([restraint.spec for restraint in parsed])]
    return summarize(chosen, provenance(run))


def model_of(run: Run, name: str | None) -> Model:
    """The unedited model a run was made from, checked by its checksum."""
    described: Mapping[str, str] = run.facts["model"]
    if name is None and described["sha256"] != sha256(WORLD_FOLDER / "model.safetensors"):
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


def task_of(metric: str) -> str:
    """The task that a metric belongs to."""
    return {"ability": "abilities", "perplexity": "perplexity"}.get(metric.partition(":")[0], "editing")


def missing_tasks(known: pd.DataFrame, restraint: Restraint, wanted: Sequence[str]) -> list[str]:
    """The wanted tasks of which rows of one number of edits hold no metric under a restraint."""
    under = known[known["restraint"] == restraint.spec]
    return [task for task in wanted if not on_record(under, task)]


def on_record(known: pd.DataFrame, task: str) -> bool:
    """Whether rows of one point hold a task's metrics."""
    return task in set(known["metric"].map(task_of))


def empty_rows() -> pd.DataFrame:
    """No case rows yet."""
    return pd.DataFrame(columns=list(CASE_COLUMNS))


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
