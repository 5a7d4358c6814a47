"""Second moments of keys: C = E[k k^T] over the tokens of a text, the metric in which locate-then-edit methods are
gentle; and their files, which say what they were made of."""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prunejax.editors.condition import cholesky, condition_number
from prunejax.editors.key_sums import add_texts, mean_of
from prunejax.errors import InputError
from prunejax.files import sha256, write_through
from prunejax.models.checkpoints import Model
from prunejax.models.tensors import FLOATS
from prunejax.progress import Progress, resumable

MAX_LENGTH = 1024
"""The longest sequence, in tokens, unless the caller says otherwise: the cost of a longer context buys no keys."""
ORIGIN = "prunejax.origin"
"""The entry of a file's metadata that holds the origin of each of its second moments, as JSON by tensor. It is one
entry because the format does not keep several in order, and a file made again has to be the same to the byte."""


class Origin(NamedTuple):
    """What a second moment was made of: the corpus by name, the SHA-256 of the texts that were read (each in UTF-8 and
    ended by a newline, so that it is the file's own where a file has a text on every line), the SHA-256 of the model's
    weights, the longest sequence in tokens, kappa(C), its scaled form (`condition_number`), and the version of
    prunejax."""

    corpus: str
    texts: str
    model: str
    max_length: int
    kappa: float
    scaled_kappa: float
    version: str


class SecondMoment(NamedTuple):
    """matrix: the uncentred mean of key key^T, float32 [d_in, d_in]; count: how many tokens it is the mean of; origin:
    None where nobody wrote it down."""

    matrix: np.ndarray
    count: int
    origin: Origin | None = None


class Moments(NamedTuple):
    """Second moments by tensor name, and the SHA-256 of the file they came from."""

    by_tensor: dict[str, SecondMoment]
    sha256: str

    def of(self, tensor: str) -> SecondMoment:
        """One tensor's second moment, or an InputError that names what the file holds."""
        if tensor not in self.by_tensor:
            raise InputError(f"moments: none for {tensor}, the file holds {', '.join(sorted(self.by_tensor))}")
        return self.by_tensor[tensor]


def second_moments(
    model: Model,
    texts: Iterable[str],
    layers: Sequence[int],
    kernels: Sequence[str] = ("down",),
    *,
    max_length: int = MAX_LENGTH,
    max_tokens: int | None = None,
    corpus: str = "",
    progress: Progress | None = None,
) -> dict[str, SecondMoment]:
    """C = E[k k^T] of each layer's down projection (or of others of its `kernels`) over all tokens of `texts`, or over
    the first `max_tokens` of them, by tensor name.

    Texts are read as they are needed and never held together. One longer than `max_length` or the model's positions is
    cut into pieces, each its own sequence: no token is lost, but those of later pieces do not see the earlier ones.
    What the tokenizer puts before a text stands there once. `corpus` is a name for the texts. With `progress` the sums
    are saved now and then, and taken up again, to the bit (`make_moments`); it knows the model by its checksum alone,
    not what has been edited.
    A count well under 10 d_ff leaves C near-singular: an edit then moves along directions that the text merely did not
    visit.
    """
    layers = check_layers(model, layers)
    width = min(max_length, model.config.n_positions)
    facts = {"work": "moments", "model": model.sha256, "dtype": model.dtype, "layers": layers, "kernels": kernels}
    facts |= {"max_length": width, "tokens": max_tokens, "text": corpus}
    own = progress.of(**facts) if progress else None
    sums, count, digest = add_texts(model, texts, width, layers, kernels, max_tokens, own)
    if not count:
        raise InputError("text: no tokens in it")
    places = [(layer, kernel) for layer in layers for kernel in kernels]
    found = {}
    for place, pair in zip(places, sums, strict=True):
        matrix = mean_of(pair, count)
        kappas = condition_numbers(matrix, count)
        origin = Origin(corpus, digest, model.sha256, width, *kappas, version("prunejax"))
        found[model.family.edited_tensor(*place)] = SecondMoment(matrix, count, origin)
    return found


def make_moments(
    out: str | Path,
    model: Model,
    texts: Iterable[str],
    layers: Sequence[int],
    kernels: Sequence[str] = ("down",),
    *,
    note: Callable[[str], object] = warnings.warn,
    **how: Any,
) -> dict[str, SecondMoment]:
    """Write `second_moments` to the file `out`, and return them. What is cut by whatever goes on where it was saved
    last, when it is asked for again; `note` is told what a person should know of that."""
    with resumable(Path(out), "moments", note) as progress:
        found = second_moments(model, texts, layers, kernels, progress=progress, **how)
        save_moments(found, out)
    return found


def check_layers(model: Model, layers: Sequence[int]) -> tuple[int, ...]:
    """The layers in order, each once; InputError if there are none, or one that the model has not."""
    ordered = tuple(sorted(set(layers)))
    if not ordered or ordered[0] < 0 or ordered[-1] >= model.config.n_layers:
        raise InputError(f"layers {list(ordered)}: the model has layers 0 to {model.config.n_layers - 1}")
    return ordered


def condition_numbers(matrix: np.ndarray, count: int) -> tuple[float, float]:
    """kappa(C) and its scaled form (`condition_number`); both inf for fewer keys than dimensions, of which no inverse
    exists whatever rounding pretends. It takes minutes for ten thousand dimensions on two cores."""
    if count < len(matrix):
        return math.inf, math.inf
    c, factor = matrix.astype(np.float64), cholesky(matrix)
    return condition_number(c, factor), condition_number(c, factor, scaled=True)


def save_moments(moments: dict[str, SecondMoment], path: str | Path) -> Path:
    """Write `<tensor>.second_moment` and `<tensor>.count` as safetensors, origins in its metadata; returns the path."""
    arrays = {f"{tensor}.second_moment": moment.matrix for tensor, moment in moments.items()}
    arrays |= {f"{tensor}.count": np.array(moment.count, np.int64) for tensor, moment in moments.items()}
    origins = {tensor: _written(moment.origin) for tensor, moment in moments.items() if moment.origin}
    metadata = {ORIGIN: json.dumps(origins, sort_keys=True)} if origins else None
    return write_through(path, lambda part: save_file(arrays, part, metadata=metadata))


def load_moments(path: str | Path, tensors: Sequence[str] = ()) -> Moments:
    """The second moments in a file written by `save_moments` (or by anyone who keeps its format), or in a folder of
    such files, of which those that hold one of `tensors` are read.

    The checksum is the file's own, and of several files that of their checksums in the order of their names: a run
    that needs one file does not change when others are added.
    """
    if not Path(path).is_dir():
        return _load_file(Path(path))
    files = [_load_file(file) for file in sorted(Path(path).glob("*.safetensors"))]
    used = [file for file in files if file.by_tensor.keys() & set(tensors)]
    if not used:
        wanted = ", ".join(tensors) or "any tensor"
        raise InputError(f"moments {path}: no file in this folder has {wanted}; make one with 'prunejax moments'")
    merged = {tensor: moment for file in used for tensor, moment in file.by_tensor.items()}
    joined = "".join(file.sha256 for file in used).encode()
    return Moments(merged, used[0].sha256 if len(used) == 1 else hashlib.sha256(joined).hexdigest())


def _written(origin: Origin) -> dict[str, str]:
    """An origin as text throughout: JSON has no infinity."""
    return {name: str(value) for name, value in origin._asdict().items()}


def _read(facts: dict[str, str]) -> Origin:
    return Origin(**{name: Origin.__annotations__[name](value) for name, value in facts.items()})


def _load_file(path: Path) -> Moments:
    try:
        with safe_open(path, framework="numpy") as handle:
            arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            metadata = handle.metadata() or {}
    except FileNotFoundError:
        raise InputError(f"moments {path}: no such file; make it with 'prunejax moments'") from None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(f"moments {path}: not a whole safetensors file ({error})") from None
    try:
        origins = {tensor: _read(facts) for tensor, facts in json.loads(metadata.get(ORIGIN, "{}")).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"moments {path}: its metadata {ORIGIN} is not what prunejax writes; make it again") from None
    found = {}
    for name, matrix in arrays.items():
        tensor, _, kind = name.rpartition(".")
        if kind != "second_moment":
            continue
        if str(matrix.dtype) not in FLOATS.values():
            raise InputError(f"moments {path}: {name} holds {matrix.dtype}, float32 was expected")
        with np.errstate(over="ignore"):
            matrix = matrix.astype(np.float32)
        if matrix.ndim != 2 or not matrix.size or len(set(matrix.shape)) > 1 or not np.isfinite(matrix).all():
            raise InputError(f"moments {path}: {name} is not a finite square matrix")
        if (lengths := np.diag(matrix)).min() < 0 or not lengths.any():
            raise InputError(f"moments {path}: {name} is no second moment, its diagonal is negative or 0")
        if f"{tensor}.count" not in arrays:
            raise InputError(f"moments {path}: {tensor}.count is missing")
        count = arrays[f"{tensor}.count"]
        if count.ndim or count.dtype.kind not in "iuf" or not (count >= 1 and count % 1 == 0):
            raise InputError(f"moments {path}: {tensor}.count is not a whole number above 0")
        found[tensor] = SecondMoment(matrix, int(count), origins.get(tensor))
    if not found:
        raise InputError(f"moments {path}: holds no <tensor>.second_moment")
    return Moments(found, sha256(path))
