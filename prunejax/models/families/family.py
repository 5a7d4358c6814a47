"""What a family of checkpoints is: how its config.json is read, and where each of its tensors lands in the decoder."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from prunejax.errors import InputError
from prunejax.models.config import DecoderConfig, Llama3Scaling, Rope

MOST, MOST_LAYERS = 1 << 30, 10_000
"""The largest size and the most layers that a config.json may state: more is a mistake, and takes memory at once."""

LEAST = 1e-9
"""What must be above 0 is at least so much."""

UNEDITABLE = "not an MLP kernel of the {} family, for example {}"


class ConfigFile(NamedTuple):
    """A config.json's values, and where they stand; every reader ends in one line where they do not fit."""

    values: Mapping[str, Any]
    where: str

    def size(self, name: str, default: int | None = None, most: int = MOST) -> int:
        """A positive whole number, at most `most`; `default` where it is absent or null."""
        value = self.values.get(name)
        value = default if value is None else value
        if type(value) is not int:
            raise InputError(f"{self.where}: a size is missing or not a whole number ({name}: {value!r})")
        if not 1 <= value <= most:
            raise InputError(f"{self.where}: sizes must be positive and at most {most:,} ({name}: {value!r})")
        return value

    def layers(self, name: str) -> int:
        """How many layers there are."""
        return self.size(name, most=MOST_LAYERS)

    def number(self, name: str, default: float, least: float = 0.0) -> float:
        """A finite number, not below `least`; `default` where it is absent."""
        return self.finite(name, self.values.get(name, default), least)

    def finite(self, name: str, value: Any, least: float = 0.0) -> float:
        """A value that stands under `name` as a finite number, not below `least`."""
        if type(value) not in (int, float) or not least <= value < math.inf:
            raise InputError(f"{self.where}: {name} {value!r} is not a number, or out of its range")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value; `default` where it is absent or null."""
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise InputError(f"{self.where}: {name} {value!r} is neither true nor false")
        return value

    def activation(self, name: str, default: str) -> str:
        """The decoder's name of an activation function."""
        known = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "silu": "silu"}
        value = self.values.get(name, default)
        if not isinstance(value, str) or value not in known:
            raise InputError(f"{self.where}: {name} {value!r} is not supported, only {', '.join(known)} are")
        return known[value]

    def refuse(self, *names: str) -> None:
        """InputError where one of these switches is on: the decoder has no such part."""
        for name in names:
            if self.values.get(name):
                raise InputError(f"{self.where}: {name} is not supported")

    def multiple(self, name: str, number: int, of: str, divisor: int) -> None:
        """InputError unless the size `name` is a multiple of the size `of`."""
        if number % divisor:
            raise InputError(f"{self.where}: {name} {number} is not a multiple of {of} {divisor}")

    def default(self, **values: Any) -> "ConfigFile":
        """The same config with what transformers takes where the file says nothing."""
        return self._replace(values=values | dict(self.values))

    def rope(self, width: int) -> Rope:
        """Rotary positions in either spelling: `rope_theta` and `rope_scaling`, or `rope_parameters` (transformers
        5)."""
        if width % 2:
            raise InputError(f"{self.where}: head_dim {width} is odd, and rotary positions turn pairs of dimensions")
        given = {"rope_theta": self.values.get("rope_theta", 10_000.0)}
        for name in ("rope_scaling", "rope_parameters"):
            more = self.values.get(name) or {}
            if not isinstance(more, Mapping):
                raise InputError(f"{self.where}: {name} {more!r} is no object")
            given |= more
        kind = given.get("rope_type", given.get("type", "default"))
        if (share := self.values.get("partial_rotary_factor") or given.get("partial_rotary_factor") or 1) != 1:
            raise InputError(f"{self.where}: partial_rotary_factor {share} is not supported, only 1 is")
        try:
            theta = self.finite("rope_theta", given["rope_theta"], LEAST)
            if kind == "default":
                return Rope(width, theta)
            if kind == "linear":
                return Rope(width, theta, divisor=self.finite("factor", given["factor"], LEAST))
            if kind == "llama3":
                names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
                *numbers, original = (self.finite(name, given[name], LEAST) for name in names)
                self.finite("high_freq_factor", given["high_freq_factor"], numbers[1] + LEAST)
                return Rope(width, theta, scaling=Llama3Scaling(*numbers, int(original)))
        except KeyError as error:
            raise InputError(f"{self.where}: rotary positions of type {kind!r} lack a number ({error})") from None
        raise InputError(
            f"{self.where}: rotary positions of type {kind!r} are not supported, default, linear, llama3 are"
        )


@dataclass(frozen=True)
class Family:
    """A checkpoint family: a name, a reader of its sizes, and a map of its tensors.

    `layer_tensors` maps suffixes behind `layer` to paths within a block, `top_tensors` full names to paths in the
    decoder; a tuple of paths means fused on the last axis. A tensor whose path the decoder has not (by its config) is
    not expected. `turned`: linear weights are stored [out, in]. `prefix` may be absent from a whole file; names that
    end in one of `ignored` are not weights.
    """

    name: str
    sizes: Callable[[ConfigFile], DecoderConfig]
    prefix: str
    layer: str
    top_tensors: Mapping[str, str]
    layer_tensors: Mapping[str, str | tuple[str, ...]]
    turned: bool = True
    ignored: tuple[str, ...] = ()

    def edited_tensor(self, layer: int, kernel: str = "down") -> str:
        """The checkpoint's name of a layer's MLP kernel, "down" (keys to values) or "up"."""
        suffix = next(s for s, path in self.layer_tensors.items() if path == f"{kernel}.kernel")
        return f"{self.layer.format(layer)}{suffix}"

    def kernel_of(self, tensor: str) -> tuple[int, str]:
        """The (layer, "down" or "up") that a checkpoint's tensor name stands for; InputError when it is no editable
        kernel."""
        for part in tensor.split("."):
            if part.isdecimal() and len(part) < 10:
                for kernel in ("down", "up"):
                    if tensor == self.edited_tensor(int(part), kernel):
                        return int(part), kernel
        raise InputError(f"tensor {tensor}: {UNEDITABLE.format(self.name, self.edited_tensor(0))}")
