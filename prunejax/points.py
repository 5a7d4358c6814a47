"""Measure a run at its points: after n edits, under a restraint, scores and spectra become rows in the run's records
folder."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from jax import Array
from tqdm import tqdm

from prunejax.editors.moments import Moments
from prunejax.errors import InputError
from prunejax.evaluate.abilities import ability_scores
from prunejax.evaluate.editing import editing_scores, prepare
from prunejax.evaluate.perplexity import perplexity
from prunejax.files import sha256
from prunejax.intervals import summarize
from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.records import CASE_COLUMNS, Provenance, merge, read_records, write_records
from prunejax.restraint import Restraint, amplification, margin, parse, restrain, restrained_weight
from prunejax.run import Run, accumulated, one_edit
from prunejax.sources import WORLD_FOLDER, find_model, find_world
from prunejax.spectra import Svd, drift, edited_spectrum, rank_bound, sigma_max, spectrum, svd
from prunejax.update import Update, dense
from prunejax.world.tasks import evaluation_items, held_out_text

TASKS = ("editing", "abilities", "perplexity")
SPECTRUM = ("sigma_max", "sigma_min", "kappa", "frobenius", "rank")


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
    with tqdm(total=len(counts) * len(parsed), desc="evaluate", unit="point") as progress:
        for n in counts:
            before = here = rows[rows["n_edits"] == n]
            for restraint in parsed:
                here = evaluate_point(run, model, n, restraint, wanted, here)
                progress.update()
            if here is not before:
                rows = read_records(write_records(path, merge(rows, here)))  # as a later call will find them, rounded
    chosen = rows[rows["n_edits"].isin(counts) & rows["restraint"].isin([restraint.spec for restraint in parsed])]
    return summarize(chosen, provenance(run))


def evaluate_point(
    run: Run, model: Model, n: int, restraint: Restraint, wanted: Sequence[str], here: pd.DataFrame
) -> pd.DataFrame:
    """`here`, the case rows on record after n edits, with those of one restraint; `here` itself if none is missing."""
    missing = [task for task in wanted if not on_record(here[here["restraint"] == restraint.spec], task)]
    if not missing:
        return here
    plain = here[here["restraint"] == "none"]
    if is_idle(run, model, n, restraint) and all(on_record(plain, task) for task in missing):
        scored = plain[plain["metric"].map(task_of).isin(missing)]
    else:
        edited = model.with_weights(weights_after(run, model, n, restraint))
        scored = score_model(edited, run.requests[:n] or run.requests, missing)
    return merge(here, label(run, scored[["case", "metric", "value"]], restraint, n))


def score_model(model: Model, requests: Sequence, tasks: Sequence[str]) -> pd.DataFrame:
    """Case, metric and value of one model: editing scores of `requests`, the world's abilities, perplexity of
    held-out text."""
    forward, parts = forward_of(model), []
    if "editing" in tasks:
        parts.append(editing_scores(forward, prepare(model.tokenizer, requests)))
    if "abilities" in tasks:
        parts.append(ability_scores(forward, model.tokenizer, evaluation_items(find_world())))
    if "perplexity" in tasks:
        value = perplexity(forward, model.tokenizer, held_out_text())
        parts.append(pd.DataFrame([{"case": "all", "metric": "perplexity", "value": value}]))
    return pd.concat(parts, ignore_index=True)


def weights_after(run: Run, model: Model, n: int, restraint: Restraint) -> dict[str, Array]:
    """W_0 + F(W_n - W_0) of every edited tensor."""
    original = {tensor: model.weight(tensor) for tensor in run.tensors}
    sums = accumulated(run, n, original)
    return {t: restrained_weight(restraint, original[t], sums[t], sigma_max(original[t])) for t in run.tensors}


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
    counts, parsed, fresh = resolve_edits(run, edits), resolve_restraints(restraints), []
    for n in tqdm(counts, desc="spectra", unit="point"):
        known = rows[(rows["n_edits"] == n) & ((rows["metric"] == "drift") | (moments is None))]
        missing = [restraint for restraint in parsed if restraint.spec not in set(known["restraint"])]
        if missing:
            fresh += spectra_after(run, model, n, missing, moments)
    if fresh:
        rows = merge(rows, pd.concat(fresh, ignore_index=True))
        write_records(path, rows)
    chosen = rows[rows["n_edits"].isin(counts) & rows["restraint"].isin([restraint.spec for restraint in parsed])]
    return summarize(chosen, provenance(run))


def spectra_after(
    run: Run, model: Model, n: int, restraints: Sequence[Restraint], moments: Moments | None
) -> Iterator[pd.DataFrame]:
    """Case rows of the spectra after n edits, a frame a tensor and restraint."""
    original = {tensor: model.weight(tensor) for tensor in run.tensors}
    for tensor, update in accumulated(run, n, original).items():
        weight, factors = original[tensor], svd(update) if rank_bound(update) else None  # once for all restraints
        for restraint in restraints:
            found = list(spectrum_rows(weight, update, factors, restraint, tensor))
            if moments is not None and tensor in moments.by_tensor:
                changed = restrain(restraint, update, sigma_max(weight), factors) if factors else update
                found.append((f"update:{tensor}", "drift", drift(changed, weight, moments.of(tensor).matrix)))
            if restraint.spec == "none" and n < run.n_edits and run.facts["batch"] == 1:
                smallest = edited_spectrum(weight, update).sigma_min
                found.append((f"weight:{tensor}", "eta", sigma_max(dense(one_edit(run, n + 1)[tensor])) / smallest))
            yield label(run, pd.DataFrame(found, columns=["case", "metric", "value"]), restraint, n)


def spectrum_rows(
    weight: Array, update: Update, factors: Svd | None, restraint: Restraint, tensor: str
) -> Iterator[tuple[str, str, float]]:
    """Case, metric and value of one tensor: the restrained update's spectrum, the edited weight's, and the
    restraint's own numbers. `factors` are the update's own, None for an update without any."""
    m = sigma_max(weight)
    if factors is None:
        held = {"sigma_max": 0.0, "sigma_min": 0.0, "kappa": float("nan"), "frobenius": 0.0, "rank": 0.0}
        yield from ((f"update:{tensor}", name, held[name]) for name in SPECTRUM if name != "kappa")
        after = spectrum(weight)
    else:
        restrained = restrain(restraint, update, m, factors)
        found = spectrum(restrained)
        yield from ((f"update:{tensor}", name, getattr(found, name)) for name in SPECTRUM)
        yield f"update:{tensor}", "amplification", amplification(restraint, factors.sigma, m)
        after = edited_spectrum(weight, restrained)
    yield from ((f"weight:{tensor}", name, getattr(after, name)) for name in SPECTRUM)
    if (slack := margin(restraint, m)) is not None:
        yield f"weight:{tensor}", "margin", slack


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


def on_record(known: pd.DataFrame, task: str) -> bool:
    """Whether rows of one point hold a task's metrics."""
    return task in set(known["metric"].map(task_of))


def is_idle(run: Run, model: Model, n: int, restraint: Restraint) -> bool:
    """Whether a restraint leaves every update of the run as it is after n edits."""
    original = {tensor: model.weight(tensor) for tensor in run.tensors}
    sums = accumulated(run, n, original)
    return all(restrain(restraint, sums[t], sigma_max(original[t])) is sums[t] for t in run.tensors)


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
