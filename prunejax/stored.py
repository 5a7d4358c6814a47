"""The arrays that a run stores: the updates of its chunks and the states after its events, written and read back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prunejax.errors import InputError
from prunejax.events import Event, append_events, tables_digest
from prunejax.files import sha256, write_through
from prunejax.mesh import on_devices, on_host
from prunejax.run import Run
from prunejax.run_facts import updates_file
from prunejax.update import LowRank, Update, total


def record_chunk(
    run: Run,
    first: int,
    last: int,
    updates: Sequence[Mapping[str, Update]],
    weights: Mapping[str, Array],
    carried: Any = (),
) -> Event:
    """Write the updates of edits first..last, and the edited weights and what the editor carries after them; the event
    line comes last and makes them count."""
    return record_event(run, write_updates(run, first, last, updates), weights, carried)


def write_updates(run: Run, first: int, last: int, updates: Sequence[Mapping[str, Update]]) -> Event:
    """Write the updates of edits first..last, their factors or, of matrices, their sum; returns their event, which is
    not recorded yet and vouches for what is noted of the edits so far."""
    arrays = {}
    for tensor in run.tensors:
        made = [update[tensor] for update in updates]
        if all(isinstance(update, LowRank) for update in made):
            left, right = zip(*((on_host(part) for part in update) for update in made), strict=True)
            arrays[f"{tensor}.left"] = np.ascontiguousarray(np.concatenate(left, axis=1).T)
            arrays[f"{tensor}.right"] = np.ascontiguousarray(np.concatenate(right))
        else:
            arrays[f"{tensor}.dense"] = on_host(total(made).matrix)
    file = updates_file(first, last)
    path = write_through(run.folder / file, lambda part: save_file(arrays, part))
    tables = tables_digest(run.folder, last)
    return Event(len(run.events()), "edit", first, last, file, sha256(path), tables=tables)


def record_event(
    run: Run, event: Event, weights: Mapping[str, Array], carried: Any = (), *, after: Sequence[Event] = ()
) -> Event:
    """Write the edited weights after an event and what the editor carries, from which a run resumes to the bit, then
    the event, which makes them count, together with those that it comes `after` and would be wrong without."""
    state = {tensor: on_host(weight) for tensor, weight in weights.items()}
    state |= {name: np.asarray(on_host(leaf), order="C") for name, leaf in _leaves(carried).items()}
    path = write_through(run.folder / event.state_file, lambda part: save_file(state, part))
    return append_events(run.folder, *after, replace(event, state=sha256(path)))


def _leaves(carried: Any) -> dict[str, Any]:
    """The arrays of what an editor carries, by where they are in it."""
    found, _ = jax.tree_util.tree_flatten_with_path(carried)
    return {f"editor{jax.tree_util.keystr(path)}": leaf for path, leaf in found}


def read_state(run: Run, last: int, like: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """The edited weights stored after `last` edits, float32, of the shapes of those that they are `like`, or of any."""
    stored = _state(run, last)
    for tensor in run.tensors:
        found, shape = stored.get(tensor), like[tensor].shape if like else None
        if found is None or found.ndim != 2 or found.dtype != np.float32 or found.shape != (shape or found.shape):
            of_shape = f" of shape {shape}" if shape else ""
            raise InputError(f"run {run.folder}: the state after {last} edits holds no {tensor}{of_shape} in float32")
    return {tensor: on_devices(stored[tensor]) for tensor in run.tensors}


def read_carried(run: Run, last: int, start: Any, as_stored: Callable[[Any], Any]) -> Any:
    """What the editor carried after `last` edits: what it carries at the `start`, with what was stored of it
    (`as_stored` is its `Editor.stored`; older runs stored all) written over its leading part."""
    stored, leaves, found = _state(run, last), _leaves(start), []
    for name, leaf in leaves.items():
        part, whole = stored.get(name), np.array(on_host(leaf))
        corner = tuple(map(slice, np.shape(part)))
        if part is None or part.dtype != whole.dtype or part.ndim != whole.ndim or whole[corner].shape != part.shape:
            raise InputError(f"run {run.folder}: the state after {last} edits holds no {name} of this editor")
        whole[corner] = part
        found.append(on_devices(whole))
    carried = jax.tree.unflatten(jax.tree.structure(start), found)
    for name, leaf in _leaves(as_stored(carried)).items():
        if stored[name].shape not in (leaf.shape, leaves[name].shape):
            raise InputError(f"run {run.folder}: the state after {last} edits holds another part of {name}")
    return carried


def _state(run: Run, last: int) -> dict[str, np.ndarray]:
    """The arrays of the state after the last event at so many edits; runs made before states had checksums have one
    file for both kinds of event."""
    event = next((event for event in reversed(run.events()) if event.last == last), Event(0, "edit", last, last))
    name = event.state_file if event.state else replace(event, kind="edit").state_file
    return read_arrays(run.folder / name, event.state)


def read_arrays(path: Path, expected: str = "") -> dict[str, np.ndarray]:
    """The arrays in a file of a run; InputError where it is damaged, or its checksum not the expected one."""
    try:
        if expected and sha256(path) != expected:
            raise InputError(f"run file {path}: its checksum is not the recorded one; the file was changed or damaged")
        with safe_open(path, framework="numpy") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"run file {path}: no such file") from None
    except (SafetensorError, TypeError, OSError) as error:
        raise InputError(f"run file {path}: not a whole safetensors file ({error})") from None
