"""Second moments of keys: C = E[k k^T] over the tokens of a text, the metric in which locate-then-edit methods are
gentle."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from prunejax.errors import InputError
from prunejax.files import sha256, write_through
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder, Overrides
from prunejax.tokens import pad_right


class SecondMoment(NamedTuple):
    """matrix: the uncentred mean of key key^T, float32 [d_in, d_in]; count: how many tokens it is the mean of."""

    matrix: np.ndarray
    count: int


class Moments(NamedTuple):
    """Second moments by tensor name, and the SHA-256 of the file they came from."""

    by_tensor: dict[str, SecondMoment]
    sha256: str

    def of(self, tensor: str) -> SecondMoment:
        """One tensor's second moment, or an InputError that names what the file holds."""
        if tensor not in self.by_tensor:
            raise InputError(f"moments: none for {tensor}, the file holds {', '.join(sorted(self.by_tensor))}")
        return self.by_tensor[tensor]


READ = {"down": "key", "up": "up_input"}
"""The tap that holds what each kernel of an MLP reads."""


@partial(jax.jit, static_argnames=("layers", "kernels"))
def key_products(
    decoder: Decoder,
    overrides: Overrides,
    tokens: Array,
    positions: Array,
    layers: tuple[int, ...],
    kernels: tuple[str, ...],
) -> list[Array]:
    """The sum over tokens of key key^T [d_in, d_in], a layer and kernel each; padding does not count."""
    run = partial(decoder.run_layers, overrides=overrides)
    products, residual, at = [], decoder.embed(tokens, positions), 0
    for layer in layers:
        residual = run(residual, positions, at, layer).residual
        seen = run(residual, positions, layer, layer + 1, taps=tuple(READ[kernel] for kernel in kernels))
        for kernel in kernels:
            read = seen.taps[READ[kernel]][0]
            key = jnp.where(positions[..., None] >= 0, read, 0.0).reshape(-1, read.shape[-1])
            products.append(jnp.matmul(key.T, key, precision="highest"))
        residual, at = seen.residual, layer + 1
    return products


def second_moments(
    model: Model, texts: Iterable[str], layers: Sequence[int], rows: int = 16, kernels: Sequence[str] = ("down",)
) -> dict[str, SecondMoment]:
    """C = E[k k^T] of each layer's down projection (or of others of its `kernels`) over all tokens of `texts`, by
    tensor name.

    Texts longer than the model's positions are cut into pieces, each its own sequence. Products are summed in float64
    on the host. A count well under 10 d_ff leaves C near-singular: an edit then moves along directions that the text
    merely did not visit.
    """
    layers = tuple(sorted(set(layers)))
    if not layers or layers[0] < 0 or layers[-1] >= model.config.n_layers:
        raise InputError(f"layers {list(layers)}: the model has layers 0 to {model.config.n_layers - 1}")
    width = model.config.n_positions
    ids = model.tokenizer(list(texts))["input_ids"] if texts else []
    pieces = sorted((row[i : i + width] for row in ids for i in range(0, len(row), width)), key=len)
    if not pieces:
        raise InputError("text: no tokens in it")
    places = [(layer, kernel) for layer in layers for kernel in kernels]
    widths = {"down": model.config.d_ff, "up": model.config.d_model}
    sums = [np.zeros((widths[kernel], widths[kernel])) for _, kernel in places]
    for start in tqdm(range(0, len(pieces), rows), desc="moments", unit="batch"):
        batch = pieces[start : start + rows]
        batch = batch + [[]] * (rows - len(batch))
        longest = min(width, -(-max(map(len, batch)) // 16) * 16)
        tokens, positions = pad_right(batch, longest)
        products = key_products(model.decoder, model.overrides, tokens, positions, layers, tuple(kernels))
        for total, product in zip(sums, products, strict=True):
            total += np.asarray(product, np.float64)
    count = sum(map(len, pieces))
    return {
        model.family.edited_tensor(*place): SecondMoment((total / count).astype(np.float32), count)
        for place, total in zip(places, sums, strict=True)
    }


def save_moments(moments: dict[str, SecondMoment], path: str | Path) -> Path:
    """Write `<tensor>.second_moment` and `<tensor>.count` as safetensors; returns the path."""
    arrays = {f"{tensor}.second_moment": moment.matrix for tensor, moment in moments.items()}
    arrays |= {f"{tensor}.count": np.array(moment.count, np.int64) for tensor, moment in moments.items()}
    return write_through(path, lambda part: save_file(arrays, part))


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


def _load_file(path: Path) -> Moments:
    try:
        with safe_open(path, framework="numpy") as handle:
            arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"moments {path}: no such file; make it with 'prunejax moments'") from None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(f"moments {path}: not a whole safetensors file ({error})") from None
    found = {}
    for name, matrix in arrays.items():
        tensor, _, kind = name.rpartition(".")
        if kind != "second_moment":
            continue
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
            raise InputError(f"moments {path}: {name} is not a finite square matrix")
        if f"{tensor}.count" not in arrays:
            raise InputError(f"moments {path}: {tensor}.count is missing")
        found[tensor] = SecondMoment(matrix.astype(np.float32), int(arrays[f"{tensor}.count"]))
    if not found:
        raise InputError(f"moments {path}: holds no <tensor>.second_moment")
    return Moments(found, sha256(path))
