"""What half precision costs, on record: the same edits on weights that are held, computed with, stored and summed in
bfloat16 or float16, beside float32.

The arms, by what stands after "world/" in the column `model`; DTYPE is one of HALVES:

float32           weights and arithmetic in float32
float32/prefixes  the same with other sampled prefixes, a control: how far apart two runs of the same edits are anyway
DTYPE             weights and arithmetic in DTYPE; edited kernels in float32, rounded where they are used
DTYPE/summed      the same, but edited kernels are kept in DTYPE too: every edit is rounded into them
DTYPE/exact       the edited kernels of the DTYPE arm, unrounded, read by float32 arithmetic; the rest as DTYPE holds it
DTYPE/stored      the same, edited kernels as a file in DTYPE holds them (`delta.edited`)

All have the float32 arm's requests, contexts (but for the control) and second moments. The embedded model's own file is
in float16: there holding costs nothing, and only arithmetic can. A copy in bfloat16 is written beside the runs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from tqdm import tqdm

from prunejax.base_checkpoint import find_base
from prunejax.contexts import Contexts
from prunejax.course import Plan
from prunejax.delta import delta_of_run, edited
from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import Moments, load_moments
from prunejax.evaluate.difference import difference
from prunejax.files import read_text
from prunejax.grid import ORDERS, PRESET
from prunejax.intervals import summarize, wilson
from prunejax.models.checkpoints import Model, config_of, load_decoder, load_model, save_model
from prunejax.models.presets import preset_settings
from prunejax.points import weights_after
from prunejax.records import CASE_COLUMNS, Provenance, ordered, read_records, write_records
from prunejax.requests import EditRequest
from prunejax.restraint import parse
from prunejax.run import Run
from prunejax.scoring import TASKS, Asked, ask, score
from prunejax.sequence import edit_sequence
from prunejax.series import POOL
from prunejax.sources import WORLD_FOLDER, WORLD_MOMENTS, find_requests
from prunejax.update import apply
from prunejax.world.tasks import held_out_text

FILE = "half.csv"
HALVES = ("bfloat16", "float16")
EDITORS = ("rome", "memit")
TRIALS = tuple((editor, order) for editor in EDITORS for order in ORDERS)
COUNTS = (1, 10, 100)
"""After how many edits the arms are measured: in editing scores, and after the last of them in everything."""
OTHER_PREFIXES = 100
"""Added to an order: the seed of the control's prefixes."""
SENTENCES, TEXTS = 8, 12
"""Held-out sentences to a text, which fill the model's positions, and how many texts."""
REPORTED = ("efficacy_top1", "generalization_top1", "locality_top1", "ability", "perplexity")

Number = tuple[str, str, float]
"""Case, metric and value of what is one number of a model."""


class Edits(NamedTuple):
    """What the arms of one editor and order have in common; `counts` as COUNTS."""

    editor: str
    settings: Any
    requests: Sequence[EditRequest]
    contexts: Contexts
    moments: Moments | None
    order: int
    counts: Sequence[int] = COUNTS


class Point(NamedTuple):
    """A model after n edits, and numbers of it that are no scores."""

    n: int
    model: Model
    numbers: Sequence[Number]


def half_records(out: Path, runs: Path, each: Callable[..., Iterable[pd.DataFrame]] = map) -> Iterator[Path]:
    """Write half.csv into `out`. A trial that was measured is kept in `runs` and not measured again; `each` is `map`,
    or a pool's, which measures several at once."""
    trials = tqdm(each(partial(measure, runs), TRIALS), desc="half precision", total=len(TRIALS), unit="order")
    yield write_records(out / FILE, ordered(pd.concat([unedited(runs), *trials], ignore_index=True)))


def measure(runs: Path, trial: tuple[str, int]) -> pd.DataFrame:
    """Summary rows of every arm of an editor and order. Trials do not touch one another: processes may share `runs`."""
    folder = runs / f"half-{trial[0]}-{trial[1]}"
    if not (folder / FILE).exists():
        world = load_model(WORLD_FOLDER)
        edits = edits_of(world, *trial)
        write_records(folder / FILE, pd.concat(arms(edits, world, runs, folder), ignore_index=True))
    return read_records(folder / FILE)


def edits_of(world: Model, editor: str, order: int) -> Edits:
    """The beginning of the study's own run of an editor and order: its settings, requests and contexts."""
    settings = settings_of(editor, preset_settings(PRESET, editor))
    requests = find_requests(f"world/{POOL}:{COUNTS[-1]}", order)
    moments = load_moments(WORLD_MOMENTS, settings.tensors(world))
    return Edits(editor, settings, requests, editor_row(editor).contexts(world, order), moments, order)


def arms(edits: Edits, world: Model, runs: Path, folder: Path) -> Iterator[pd.DataFrame]:
    """The rows of one arm after another; runs lie in `folder`, checkpoints in `runs`."""
    prefixes = editor_row(edits.editor).contexts(world, edits.order + OTHER_PREFIXES)
    asked = asked_of(edits, world)
    for arm, own in (("float32", edits), ("float32/prefixes", edits._replace(contexts=prefixes))):
        run = edit(own, world, folder / arm.replace("/", "-"))
        yield rows_of(arm, own, edited_points(own, run, world), asked)
    for dtype in HALVES:
        checkpoint = held_in(dtype, runs)
        half = load_model(checkpoint, dtype)
        run = edit(edits, half, folder / dtype)
        yield rows_of(dtype, edits, edited_points(edits, run, half), asked)
        yield rows_of(f"{dtype}/summed", edits, summed_points(edits, half), asked)
        both = zip(*stored_points(edits, run, load_model(checkpoint)), strict=True)
        for arm, points in zip(("exact", "stored"), both, strict=True):
            yield rows_of(f"{dtype}/{arm}", edits, points, asked)


def asked_of(edits: Edits, world: Model) -> dict[int, Asked]:
    """What is asked after each number of edits: about the edits, after the last of them everything."""
    return {
        n: ask(world.tokenizer, edits.requests[:n], TASKS if n == edits.counts[-1] else ("editing",))
        for n in edits.counts
    }


def held_in(dtype: str, runs: Path) -> Path:
    """The folder of the embedded model whose file is in `dtype`: its own, or a copy that is written into `runs`."""
    config, _ = config_of(WORLD_FOLDER)
    if config["dtype"] == dtype:
        return WORLD_FOLDER
    decoder, family = load_decoder(WORLD_FOLDER)
    tokenizer = read_text(WORLD_FOLDER / "tokenizer.json", "tokenizer")
    return save_model(decoder, family, config | {"dtype": dtype}, tokenizer, runs / f"half-world-{dtype}")


def edit(edits: Edits, model: Model, folder: Path) -> Run:
    """The run of an arm whose edited kernels are in float32."""
    plan = Plan(edits.editor, edits.settings, PRESET, seed=edits.order, source=source_of(edits))
    return edit_sequence(folder, model, edits.requests, plan, edits.contexts, edits.moments)


def edited_points(edits: Edits, run: Run, model: Model) -> Iterator[Point]:
    """The model as the run left it."""
    found = pd.read_csv(run.folder / "diagnostics.csv")["probability"]
    original = {tensor: model.weight(tensor) for tensor in run.tensors}
    for n in edits.counts:
        weights = weights_after(run, model, n, parse("none"))
        yield Point(n, model.with_weights(weights), [*norms("update", weights, original), surprise(found[:n])])


def summed_points(edits: Edits, model: Model) -> Iterator[Point]:
    """The model whose edited kernels are kept in its own dtype, rounded after every edit; `rounding` is their distance
    from W_0 and the same updates summed in float32."""
    editor = editor_row(edits.editor).make(edits.settings)
    state = editor.init(model, edits.moments, len(edits.requests))
    batches = editor.prepare(model, edits.requests, edits.contexts, 1)
    original = {tensor: model.weight(tensor) for tensor in editor.tensors(model)}
    kept, exact, found, key = original, original, [], jax.random.key(edits.order)
    for number, batch in enumerate(tqdm(batches, desc="summed", unit="edit")):
        rng = jax.random.fold_in(key, number)
        with jax.default_matmul_precision("highest"):  # as a run edits; scores are computed outside of it, as a run's
            updates, _, state, noted = editor.step(model.with_weights(kept), state, batch, rng)
            kept = {t: rounded(apply(weight, updates[t]), model.dtype) for t, weight in kept.items()}
            exact = {t: apply(weight, updates[t]) for t, weight in exact.items()}
        found.append(np.asarray(noted["probability"]).item())
        if number + 1 in edits.counts:
            numbers = [*norms("update", kept, original), *norms("rounding", kept, exact), surprise(found)]
            yield Point(number + 1, model.with_weights(kept), numbers)


def rounded(weight: Array, dtype: str) -> Array:
    """A float32 weight to the nearest number of a dtype, in float32."""
    return weight.astype(dtype).astype(jnp.float32)


def stored_points(edits: Edits, run: Run, model: Model) -> Iterator[tuple[Point, Point]]:
    """The run's kernels W_0 + D, unrounded and as its checkpoint's file stores them, under `model`, which is that
    checkpoint in float32; `rounding` is the distance of the two."""
    base = find_base(run.facts["model"], str(model.folder), f"run {run.folder}")
    original = {tensor: model.weight(tensor) for tensor in run.tensors}
    for n in edits.counts:
        delta, exact = delta_of_run(run, base, n, parse("none")), weights_after(run, model, n, parse("none"))
        stored = {}
        for tensor in run.tensors:
            kernel = base.kernel(tensor)
            array = edited(kernel, delta.factors(tensor), tensor).array.astype(np.float32)
            stored[tensor] = jnp.asarray(array.T if kernel.turned else array)
        sizes = norms("update", exact, original)
        apart = norms("rounding", stored, exact)
        yield Point(n, model.with_weights(exact), sizes), Point(n, model.with_weights(stored), [*sizes, *apart])


def norms(kind: str, weights: Mapping[str, Array], others: Mapping[str, Array]) -> list[Number]:
    """||W - W'||_F of every tensor, in float64."""
    apart = {t: np.asarray(weights[t], np.float64) - np.asarray(others[t], np.float64) for t in weights}
    return [(f"{kind}:{tensor}", "frobenius", float(np.linalg.norm(part))) for tensor, part in apart.items()]


def surprise(probabilities: Iterable[float]) -> Number:
    """The perplexity of the targets under the values that were found: exp of the mean of -ln p at the value steps'
    last evaluations."""
    with np.errstate(divide="ignore"):
        return "target", "perplexity", float(np.exp(-np.mean(np.log(list(probabilities)))))


def rows_of(arm: str, edits: Edits, points: Iterable[Point], asked: Mapping[int, Asked]) -> pd.DataFrame:
    """Summary rows of REPORTED and of the numbers of an arm's points, of what is `asked` after so many edits."""
    tables = []
    for n, model, numbers in points:
        scored = score(model, asked[n])
        scored = scored[scored["metric"].str.partition(":")[0].isin(REPORTED)]
        tables.append(pd.concat([scored, as_frame(numbers)]).assign(n_edits=n))
    return summary(arm, pd.concat(tables), edits.editor, edits.order, source_of(edits))


def unedited(runs: Path) -> pd.DataFrame:
    """Rows at 0 edits, of the editor "none": float32, every DTYPE, and DTYPE/exact, weights that DTYPE holds read by
    float32 arithmetic, where the embedded model's own file does not hold them already."""
    world = load_model(WORLD_FOLDER)
    models = {"float32": world}
    for dtype in HALVES:
        checkpoint = held_in(dtype, runs)
        models[dtype] = load_model(checkpoint, dtype)
        if checkpoint != WORLD_FOLDER:
            models[f"{dtype}/exact"] = load_model(checkpoint)
    layers = sorted({layer for editor in EDITORS for layer in preset_settings(PRESET, editor)["layers"]})
    weights = {tensor: world.weight(tensor) for tensor in map(world.family.edited_tensor, layers)}
    sizes = norms("weight", weights, {tensor: jnp.zeros_like(weight) for tensor, weight in weights.items()})
    tables = [summary("float32", as_frame(sizes).assign(n_edits=0), "none", 0, "none")]
    asked = ask(world.tokenizer, (), [task for task in TASKS if task != "editing"])
    for arm, model in models.items():
        scored = score(model, asked)
        tables.append(summary(arm, scored.assign(n_edits=0), "none", 0, "none"))
        if arm != "float32":
            tables.append(on_text(arm, model, world))
    return pd.concat(tables, ignore_index=True)


def on_text(arm: str, model: Model, world: Model) -> pd.DataFrame:
    """A model beside float32 on held-out text (`difference`): locality_top1:text, the share of positions at which both
    find the same token likeliest, and drift:logits, the largest difference of a logit over the largest logit."""
    said = held_out_text()[: SENTENCES * TEXTS]
    found = difference(world, model, [" ".join(said[i : i + SENTENCES]) for i in range(0, len(said), SENTENCES)])
    rows = summary(arm, as_frame([("logits", "drift", found.logits)]).assign(n_edits=0), "none", 0, "none")
    same = wilson(round(found.argmax * found.positions), found.positions)._asdict()
    return pd.concat([rows, rows.assign(metric="locality_top1:text", n=found.positions, **same)], ignore_index=True)


def as_frame(numbers: Sequence[Number]) -> pd.DataFrame:
    """Numbers as columns case, metric, value."""
    return pd.DataFrame(numbers, columns=["case", "metric", "value"])


def summary(arm: str, rows: pd.DataFrame, editor: str, order: int, source: str) -> pd.DataFrame:
    """Case rows of an arm as summary rows."""
    origin = Provenance(f"half-{editor}-{arm.replace('/', '-')}-{order}", f"world/{arm}", source, editor, PRESET, 1)
    labelled = rows.assign(editor=editor, restraint="none", seed=order)
    return summarize(labelled[list(CASE_COLUMNS)], origin)


def source_of(edits: Edits) -> str:
    """What the requests are called."""
    return f"world/{POOL}:{len(edits.requests)}"
