"""How many keys are enough, on record: moment rows of what second moments of ever longer prefixes of a text do to the
keys of edit requests, and to the edits themselves."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from prunejax.contexts import Contexts
from prunejax.editors import editor_row, settings_of
from prunejax.editors.key_sums import read_rows
from prunejax.editors.metric import MOST_KAPPA
from prunejax.editors.moments import Moments, SecondMoment
from prunejax.enough import compare_inverses, nested_moments
from prunejax.errors import InputError
from prunejax.grid import PRESET
from prunejax.intervals import over_cases, student
from prunejax.models.checkpoints import Model
from prunejax.models.presets import preset_settings
from prunejax.records import MOMENT_COLUMNS, is_score, ordered, read_records, write_records
from prunejax.requests import EditRequest
from prunejax.series import POOL
from prunejax.single import single_edits
from prunejax.sources import RECORDS, find_requests, find_text
from prunejax.values import keys_and_values

FILE = "enough.csv"
PER_DIMENSION = (0.5, 1, 2, 5, 10, 20, 50, 100)
"""Counts of keys over d_in, as far as the text goes; all of the text comes after them."""
EDITED = (0.5, 1, 2, 5, 10, 20)
"""Those of them with which edits are made too, and with all of the text."""
SEEDS = (0, 1, 2)
REQUESTS = 40
"""Requests of the world that each seed draws."""
MEASURED = ("efficacy_top1", "generalization_top1", "locality_top1", "sigma_max:update")
IDENTITY = "second_moment=identity"


class Edits(NamedTuple):
    """How single edits are made with each second moment: an editor of one layer, its settings, of which the ridge is
    replaced, and contexts."""

    editor: str
    settings: Any
    contexts: Contexts


class Trial(NamedTuple):
    """What second moments are tried on.

    corpus    a name for the texts
    source    a name for the requests
    requests  by seed; a seed shuffles the texts, and has requests of its own
    layer     whose down projection reads the keys
    ridges    one after the other; 0 is the published method
    edits     None: no edits are made
    """

    corpus: str
    texts: Sequence[str]
    source: str
    requests: Mapping[int, Sequence[EditRequest]]
    layer: int
    ridges: Sequence[float]
    edits: Edits | None = None


def enough_records(out: Path, model: Model, trial: Trial) -> Path:
    """Measure every seed (`moment_rows`) and write the rows into `out`, in place of those of a model of this name; rows
    of others stay. Returns the path."""
    counts, tables = counts_of(model, trial.texts), []
    for seed in trial.requests:
        moments = list(nested_moments(model, trial.texts, trial.layer, counts, seed))
        rows = moment_rows(model, moments, trial, seed)
        tables.append(pd.DataFrame(rows).assign(seed=seed))
    made = pd.concat(tables).assign(
        model=model.name,
        weights=model.sha256[:8],
        corpus=trial.corpus,
        texts=hashlib.sha256("".join(f"{text}\n" for text in trial.texts).encode()).hexdigest()[:8],
        requests=trial.source,
        tensor=model.family.edited_tensor(trial.layer),
        d_in=model.config.d_ff,
    )[list(MOMENT_COLUMNS)]
    before = read_records(out) if out.exists() else made.iloc[:0]
    return write_records(out, ordered(pd.concat([before[before["model"] != model.name], made])))


def world_records(out: Path, model: Model) -> Path:
    """The rows of the embedded model in the folder `out`. Where that has no such file yet, rows of other models are the
    committed ones: their checkpoints are not in this repository."""
    path = out / FILE
    if not path.exists() and (RECORDS / FILE).exists():
        write_records(path, read_records(RECORDS / FILE))
    return enough_records(path, model, world_trial(model))


def world_trial(model: Model, seeds: Sequence[int] = SEEDS) -> Trial:
    """The world's text, requests of the pool that reports, and ROME with its preset, without a ridge and with its
    own."""
    settings, source = settings_of("rome", preset_settings(PRESET, "rome")), f"world/{POOL}:{REQUESTS}"
    edits = Edits("rome", settings, editor_row("rome").contexts(model, 0))
    requests = {seed: find_requests(source, seed) for seed in seeds}
    return Trial("world", tuple(find_text("world")), source, requests, settings.layers[0], (0.0, settings.ridge), edits)


def counts_of(model: Model, texts: Sequence[str]) -> list[int]:
    """PER_DIMENSION times d_in as far as the text goes, and the number of all its tokens."""
    total, d_in = sum(len(row) for _, row in read_rows(model.tokenizer, texts)), model.config.d_ff
    if total <= d_in:
        raise InputError(f"text: {total} tokens in it, and keys of {d_in} dimensions need more; take a longer text")
    return [*(int(share * d_in) for share in PER_DIMENSION if share * d_in < total), total]


def moment_rows(model: Model, moments: Sequence[SecondMoment], trial: Trial, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of one seed and of second moments of different counts (`keys`).

    kappa, scaled_kappa  of C + ridge mean(diag C) I
    cosine, cost         `compare_inverses` with the longest, of the keys at the requests' subjects' last tokens: mean
                         and t interval over requests
    MEASURED             of single edits, for counts that are EDITED: mean and interval over requests; `IDENTITY`, of no
                         keys, stands beside them

    Where a scaled kappa is above MOST_KAPPA editors refuse C: cosine and cost are NaN, and there are no rows of edits.
    The t intervals of numbers that cannot be negative end at 0.
    """
    requests, edits = trial.requests[seed], trial.edits
    keys, _ = keys_and_values(model, requests, trial.layer)
    by_count = {moment.count: moment for moment in moments}
    edited = {*(int(share * model.config.d_ff) for share in EDITED), max(by_count)}
    for ridge in trial.ridges:
        for count, rows in compare_inverses(moments, keys, ridge).groupby("count"):
            key = {"settings": f"ridge={ridge:g}", "keys": count}
            yield from (key | one_number(metric, rows[metric].iloc[0]) for metric in ("kappa", "scaled_kappa"))
            inverted = rows["scaled_kappa"] <= MOST_KAPPA
            yield from (key | over_requests(metric, rows[metric].where(inverted)) for metric in ("cosine", "cost"))
            if edits and count in edited and inverted.all():
                yield from (key | row for row in edit_rows(model, requests, edits, ridge, by_count[count]))
    if edits:
        key = {"settings": IDENTITY, "keys": 0}
        yield from (key | row for row in edit_rows(model, requests, edits, 0.0, None))


def edit_rows(
    model: Model, requests: Sequence[EditRequest], edits: Edits, ridge: float, moment: SecondMoment | None
) -> Iterator[dict[str, Any]]:
    """MEASURED after single edits with a second moment, or with the identity for None."""
    settings = replace(edits.settings, ridge=ridge, second_moment="corpus" if moment else "identity")
    moments = Moments(dict.fromkeys(settings.tensors(model), moment), "") if moment else None
    cases = single_edits(model, requests, edits.editor, settings, edits.contexts, moments)
    return (over_requests(metric, cases.loc[cases["metric"] == metric, "after"]) for metric in MEASURED)


def one_number(metric: str, value: float) -> dict[str, Any]:
    """A number that is no mean."""
    return {"metric": metric, "n": 1, "mean": value, "lo": value, "hi": value, "nan_count": 0}


def over_requests(metric: str, values: pd.Series) -> dict[str, Any]:
    """The mean of a metric over requests, with its interval."""
    mean, lo, hi = over_cases(values) if is_score(metric) else student(values)
    lo = lo if metric == "cosine" else max(lo, 0.0)
    return {"metric": metric, "n": len(values), "mean": mean, "lo": lo, "hi": hi, "nan_count": values.isna().sum()}
