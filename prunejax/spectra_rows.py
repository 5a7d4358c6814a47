"""What is recorded of spectra after some edits under some restraints: case, metric and value of every edited tensor."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import tee
from operator import itemgetter

import numpy as np
import pandas as pd
from jax import Array
from tqdm import tqdm

from prunejax.conditioning import spectra_along
from prunejax.editors.moments import Moments
from prunejax.fold import one_edit
from prunejax.restraint import Restraint, amplification, is_idle, margin, restrained_values, update_under, weight_under
from prunejax.run import Run
from prunejax.spectra import Spectrum, mean_squares, singular_values, spectrum, spectrum_of
from prunejax.sweep import Sweep
from prunejax.update import Update, dense


def spectra_rows(
    run: Run,
    original: Mapping[str, Array],
    sweeps: Iterable[Mapping[str, Sweep]],
    asked: Mapping[int, Sequence[Restraint]],
    moments: Moments | None,
) -> Iterator[tuple[int, Restraint, pd.DataFrame]]:
    """A frame (case, metric, value) a number of edits, restraint and tensor.

    `original` are the unedited weights, `asked` the restraints at each number of edits (ascending), `sweeps` the edited
    tensors at each of these. `points.spectra_of_run` says what the metrics are.
    """
    own, *others = tee(sweeps, 1 + len(run.tensors))
    updates = {
        tensor: (sweep.update for sweep in map(itemgetter(tensor), other))
        for tensor, other in zip(run.tensors, others, strict=True)
    }
    edited = {tensor: spectra_along(original[tensor], updates[tensor]) for tensor in run.tensors}
    c = {tensor: moments.of(tensor).matrix for tensor in run.tensors if moments and tensor in moments.by_tensor}
    said = {tensor: mean_squares(original[tensor], matrix).sum() for tensor, matrix in c.items()}
    for n, of_tensor in zip(tqdm(asked, desc="spectra", unit="point"), own, strict=True):
        for tensor, sweep in of_tensor.items():
            sigma, unrestrained = singular_values(sweep.update), next(edited[tensor])
            heard = mean_squares(sweep.factors.left, c[tensor]) if tensor in c else None
            for restraint in asked[n]:
                rows = list(spectrum_rows(sweep, sigma, unrestrained, restraint, tensor))
                if heard is not None:
                    share = told(restraint, sweep, heard, c[tensor]) / said[tensor]
                    rows.append((f"update:{tensor}", "drift", math.sqrt(share)))
                if restraint.spec == "none" and (following := next_edit(run, n)) is not None:
                    step = float(singular_values(following[tensor])[0])
                    rows.append((f"weight:{tensor}", "eta", step / unrestrained.sigma_min))
                yield n, restraint, pd.DataFrame(rows, columns=["case", "metric", "value"])


def next_edit(run: Run, n: int) -> dict[str, Update] | None:
    """The update of the edit after n, where there is one and it is on record by itself."""
    return one_edit(run, n + 1) if n < run.n_edits and run.facts["batch"] == 1 else None


def spectrum_rows(
    sweep: Sweep, sigma: np.ndarray, unrestrained: Spectrum, restraint: Restraint, tensor: str
) -> Iterator[tuple[str, str, float]]:
    """The restrained update's spectrum, the edited weight's, and the restraint's own numbers. `sigma` are the update's
    singular values, `unrestrained` the spectrum of W_n. An update without any edit has no kappa."""
    found = spectrum_of(restrained_values(restraint, sweep, sigma))
    after = unrestrained if is_idle(restraint, sweep) else spectrum(weight_under(restraint, sweep))
    known = found._asdict().items()
    yield from ((f"update:{tensor}", name, value) for name, value in known if sigma.size or name != "kappa")
    if sigma.size and restraint.cap is None:
        yield f"update:{tensor}", "amplification", amplification(restraint, sigma, sweep.m)
    yield from ((f"weight:{tensor}", name, value) for name, value in after._asdict().items())
    if (slack := margin(restraint, sweep.m)) is not None:
        yield f"weight:{tensor}", "margin", slack


def told(restraint: Restraint, sweep: Sweep, heard: np.ndarray, second_moment: np.ndarray) -> float:
    """The mean square of what a restrained update says to the keys of a text; `heard` is that of each of the update's
    own left directions."""
    if restraint.directions is None and restraint.cap is None:
        return float(heard @ restraint.function(sweep.sigma, sweep.m) ** 2)
    return float(mean_squares(dense(update_under(restraint, sweep)), second_moment).sum())
