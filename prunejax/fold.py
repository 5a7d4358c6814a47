"""The fold over a run's events: what had accumulated after n edits, W_n - W_0."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from jax import Array

from prunejax.errors import InputError
from prunejax.events import Event
from prunejax.mesh import on_devices, on_host
from prunejax.restraint import parse, update_under
from prunejax.run import Run
from prunejax.spectra import sigma_max
from prunejax.stored import read_arrays
from prunejax.sweep import Sweep
from prunejax.update import Dense, LowRank, Update, shape


def accumulated(run: Run, n_edits: int, weights: Mapping[str, Array]) -> dict[str, Update]:
    """W_n - W_0 of every edited tensor after n edits. `weights` are the unedited W_0."""
    restrained = any(event.kind == "restrain" and event.last <= n_edits and not event.raw for event in run.events())
    m = {tensor: sigma_max(weights[tensor]) for tensor in run.tensors} if restrained else {}
    return next(accumulated_along(run, [n_edits], weights, m))


def accumulated_along(
    run: Run, counts: Sequence[int], weights: Mapping[str, Array], m: Mapping[str, float]
) -> Iterator[dict[str, Update]]:
    """W_n - W_0 of every edited tensor after each of the ascending `counts`: the fold over the events, gone through
    once. `weights` are the unedited W_0, `m` their sigma_max.

    A restraint during the run replaces what had accumulated by its restrained form, unless it was `raw`: then what
    accumulates stays unrestrained. What a guard rolled back is not in it.
    """
    shapes = {tensor: weights[tensor].shape for tensor in run.tensors}
    sums = {
        t: LowRank(np.zeros((d, 0), np.float32), np.zeros((0, d_out), np.float32)) for t, (d, d_out) in shapes.items()
    }
    for done, n in pairwise([0, *counts]):
        if 0 <= n < done:
            raise ValueError(f"counts {list(counts)} do not ascend")
        if not 0 <= n <= run.n_edits:
            raise InputError(f"run {run.folder}: has {run.n_edits} edits, {n} were asked for")
        if n % run.facts["batch"] and n != run.n_edits:
            raise InputError(f"run {run.folder}: {n} edits end within a batch of {run.facts['batch']}")
        undone = run.rolled_back(n)
        for event in run.events():
            if event.kind == "edit" and event.first <= n and event.last > done and event.first not in undone:
                added = _edits(run, event, max(event.first, done + 1), min(event.last, n))
                if added is None:
                    ends = sorted({e.last for e in run.events() if e.kind == "edit"})
                    known = ", ".join(map(str, ends))
                    raise InputError(f"run {run.folder}: keeps sums of edits, after {known}; {n} is not among them")
                for tensor, update in added.items():
                    if shape(update) != shapes[tensor]:
                        raise _misfit(run, event, tensor)
                sums = {t: _joined(update, added[t]) for t, update in sums.items()}
            elif event.kind == "restrain" and done < event.last <= n and not event.raw:
                restraint = parse(event.restraint)
                held = {t: Sweep(weights[t], _on_devices(update), m[t]) for t, update in sums.items()}
                sums = {t: update_under(restraint, sweep) for t, sweep in held.items()}
        yield {t: _on_devices(update) for t, update in sums.items()}


def one_edit(run: Run, number: int) -> dict[str, Update] | None:
    """The update of the edit `number` (from 1) of every edited tensor, or None where only a sum with others is on
    record."""
    for event in run.events():
        if event.kind == "edit" and event.first <= number <= event.last:
            found = _edits(run, event, number, number)
            return found and {t: _on_devices(update) for t, update in found.items()}
    raise InputError(f"run {run.folder}: has {run.n_edits} edits, edit {number} was asked for")


def _edits(run: Run, event: Event, first: int, last: int) -> dict[str, Update] | None:
    """The updates of edits first..last of one event, one after another, of every edited tensor, on this host; None
    where the event holds but the sum of more than these."""
    arrays, edits, found = read_arrays(run.folder / event.file, event.sha256), event.last - event.first + 1, {}
    for tensor in run.tensors:
        if f"{tensor}.dense" in arrays:
            if (first, last) != (event.first, event.last):
                return None
            found[tensor] = Dense(_part(run, event, arrays, tensor, "dense"))
            continue
        left, right = (_part(run, event, arrays, tensor, side) for side in ("left", "right"))
        if len(left) != len(right) or len(left) % edits:
            raise _misfit(run, event, tensor)
        rank = len(left) // edits
        rows = slice((first - event.first) * rank, (last - event.first + 1) * rank)
        found[tensor] = LowRank(left[rows].T, right[rows])
    return found


def _part(run: Run, event: Event, arrays: Mapping[str, np.ndarray], tensor: str, part: str) -> np.ndarray:
    """The `part` ("left", "right" or "dense") of a tensor's update in the file of an event; InputError where it is no
    matrix of float32, or not finite."""
    array = arrays.get(f"{tensor}.{part}")
    if array is None or array.ndim != 2 or array.dtype != np.float32:
        raise _misfit(run, event, tensor)
    if not np.isfinite(array).all():
        raise InputError(f"run file {run.folder / event.file}: the update of {tensor} is not finite")
    return array


def _misfit(run: Run, event: Event, tensor: str) -> InputError:
    """What to say of an event whose file holds no update of this tensor."""
    edits = event.last - event.first + 1
    return InputError(f"run file {run.folder / event.file}: holds no update of {tensor} for {edits} edits")


def _joined(first: Update, second: Update) -> Update:
    """Their sum on this host, where no length of it has to be compiled for."""
    if isinstance(first, LowRank) and isinstance(second, LowRank):
        return LowRank(
            np.concatenate([on_host(first.left), second.left], axis=1),
            np.concatenate([on_host(first.right), second.right], axis=0),
        )
    return Dense(_matrix(first) + _matrix(second))


def _matrix(update: Update) -> np.ndarray:
    left, *right = (on_host(part) for part in update)
    return left @ right[0] if right else left


def _on_devices(update: Update) -> Update:
    return type(update)(*map(on_devices, update))
