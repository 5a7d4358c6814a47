"""MEND's hypernetwork: what turns the two factors of a gradient into those of an edit (Mitchell et al. 2022)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prunejax.errors import InputError
from prunejax.files import write_through

Place = tuple[int, str]
"""An edited kernel: its layer, and "up" or "down"."""


class Residual(NamedTuple):
    """A low-rank layer x + f(scale_p * (U V x + bias) + shift_p), the scale and shift those of the place p: `first` V^T
    [d, r], `second` U^T [r, d], `bias` [d], `scale` and `shift` [places, d]."""

    first: Array
    second: Array
    bias: Array
    scale: Array
    shift: Array


class Network(NamedTuple):
    """The two layers that all kernels of one shape share, a ReLU in the first, and what their inputs are normalised by:
    mean and deviation [places, d] of concatenated (u, delta), d = d_in + d_out."""

    hidden: Residual
    output: Residual
    mean: Array
    deviation: Array


class Hypernetwork(NamedTuple):
    """A network a kernel shape ("up", "down"), and of each place the step alpha by which its edit is scaled."""

    networks: Mapping[str, Network]
    alpha: Mapping[Place, Array]


def places_of(layers: Sequence[int]) -> tuple[Place, ...]:
    """Both kernels of every layer."""
    return tuple((layer, kernel) for layer in layers for kernel in ("up", "down"))


def transform(network: Network, row: int, u: Array, delta: Array) -> tuple[Array, Array]:
    """The edit's factors u~ [T, d_in] and delta~ [T, d_out] from the gradient's u and delta; a token whose delta is
    zero, which the loss does not read, stays zero."""
    x = (jnp.concatenate([u, delta], axis=-1) - network.mean[row]) / network.deviation[row]
    x = x + jax.nn.relu(_inner(network.hidden, row, x))
    x = x + _inner(network.output, row, x)
    read = jnp.any(delta != 0, axis=-1, keepdims=True)
    return tuple(jnp.where(read, part, 0.0) for part in jnp.split(x, [u.shape[-1]], axis=-1))


def misfit(hypernetwork: Hypernetwork, width: int, layers: int) -> str:
    """The name of a part that has not the shape of a network for so many layers of a model with d_in + d_out = `width`;
    "" if all fit."""
    for kernel, network in hypernetwork.networks.items():
        wanted = {"mean": (layers, width), "deviation": (layers, width)}
        found = {"mean": network.mean, "deviation": network.deviation}
        for side in ("hidden", "output"):
            layer = getattr(network, side)
            rank = layer.first.shape[-1:]
            shapes = Residual((width, *rank), (*rank, width), (width,), (layers, width), (layers, width))
            wanted |= {f"{side}.{part}": shape for part, shape in shapes._asdict().items()}
            found |= {f"{side}.{part}": array for part, array in layer._asdict().items()}
        if wrong := [part for part, shape in wanted.items() if found[part].shape != shape]:
            return f"{kernel}.{wrong[0]}"
    return next((f"alpha.{layer}.{kernel}" for (layer, kernel), a in hypernetwork.alpha.items() if a.shape), "")


def _inner(layer: Residual, row: int, x: Array) -> Array:
    product = jnp.matmul(jnp.matmul(x, layer.first, precision="highest"), layer.second, precision="highest")
    return layer.scale[row] * (product + layer.bias) + layer.shift[row]


def identity_network(key: Array, d: int, rank: int, mean: Array, deviation: Array) -> Network:
    """A network that changes nothing but the normalisation, whatever `key` has drawn: the second factors are zero."""

    def layer(key: Array) -> Residual:
        first = jax.random.normal(key, (d, rank)) * (2 / (d + rank)) ** 0.5
        return Residual(first, jnp.zeros((rank, d)), jnp.zeros(d), jnp.ones_like(mean), jnp.zeros_like(mean))

    hidden, output = jax.random.split(key)
    return Network(layer(hidden), layer(output), mean, deviation)


def save_hypernetwork(hypernetwork: Hypernetwork, path: str | Path) -> Path:
    """Write it as safetensors, float16 but for alpha and the normalisation; returns the path."""
    arrays = {f"alpha.{layer}.{kernel}": np.asarray(a, np.float32) for (layer, kernel), a in hypernetwork.alpha.items()}
    for kernel, network in hypernetwork.networks.items():
        arrays |= {f"{kernel}.{part}": np.asarray(getattr(network, part), np.float32) for part in ("mean", "deviation")}
        for side in ("hidden", "output"):
            layer = getattr(network, side)._asdict()
            arrays |= {f"{kernel}.{side}.{part}": np.asarray(array, np.float16) for part, array in layer.items()}
    return write_through(path, lambda part: save_file(arrays, part))


def load_hypernetwork(path: str | Path) -> Hypernetwork:
    """A hypernetwork that `save_hypernetwork` wrote, in float32."""
    try:
        with safe_open(path, framework="numpy") as handle:
            stored = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        if strange := [name for name, array in stored.items() if array.dtype not in (np.float16, np.float32)]:
            raise TypeError(f"{strange[0]} holds {stored[strange[0]].dtype}")
        arrays = {name: jnp.asarray(array, jnp.float32) for name, array in stored.items()}
        networks = {}
        for kernel in ("up", "down"):
            layers = [
                Residual(*(arrays[f"{kernel}.{side}.{part}"] for part in Residual._fields))
                for side in ("hidden", "output")
            ]
            networks[kernel] = Network(*layers, arrays[f"{kernel}.mean"], arrays[f"{kernel}.deviation"])
        named = [name.split(".") for name in arrays if name.startswith("alpha.")]
        alpha = {(int(layer), kernel): arrays[f"alpha.{layer}.{kernel}"] for _, layer, kernel in named}
    except FileNotFoundError:
        raise InputError(f"network {path}: no such file; make it with 'prunejax train-mend'") from None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"network {path}: not a hypernetwork that 'prunejax train-mend' wrote ({error})") from None
    order = sorted(alpha, key=lambda place: (place[0], place[1] == "down"))
    return Hypernetwork(networks, {place: alpha[place] for place in order})
