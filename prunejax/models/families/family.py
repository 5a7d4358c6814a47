"""What a family of checkpoints is: how its config.json is read, and where each of its tensors lands in the decoder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from prunejax.errors import InputError
from prunejax.models.config import DecoderConfig, Llama3Scaling, Rope

UNEDITABLE = "not an MLP kernel of the {} family, for example {}"


class ConfigFile(NamedTuple):
    """A config.json's values, and where they stand; every reader ends in one line where they do not fit."""

    values: Mapping[str, Any]
    where: str

    def size(self, name: str, default: int | None = None) -> int:
        """A positive whole number; `default` where it is absent or null."""
        value = self.values.get(name)
        value = default if value is None else value
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise InputError(f"{self.where}: a size is missing or not a number ({name}: {value!r})") from None
        if number < 1:
            raise InputError(f"{self.where}: sizes must be positive ({name}: {value!r})")
        return number

    def number(self, name: str, default: float) -> float:
        """A number; `default` where it is absent."""
        try:
            return float(self.values.get(name, default))
        except (TypeError, ValueError):
            raise InputError(f"{self.where}: {name} {self.values[name]!r} is not a number") from None

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value; `default` where it is absent or null."""
        value = self.values.get(name)
        return default if value is None else bool(value)

    def activation(self, name: str, default: str) -> str:
        """The decoder's name of an activation function."""
        known = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "silu": "silu"}
        value = self.values.get(name, default)
        if value not in known:
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
        given = {"rope_theta": self.values.get("rope_theta", 10_000.0)}
        given |= (self.values.get("rope_scaling") or {}) | (self.values.get("rope_parameters") or {})
        kind = given.get("rope_type", given.get("type", "default"))
        if (share := self.values.get("partial_rotary_factor") or given.get("partial_rotary_factor") or 1) != 1:
            raise InputError(f"{self.where}: partial_rotary_factor {share} is not supported, only 1 is")
        try:
            rope = Rope(width, float(given["rope_theta"]))
            if kind == "default":
                return rope
            if kind == "linear":
                return Rope(width, rope.theta, divisor=float(given["factor"]))
            if kind == "llama3":
                low, high = float(given["low_freq_factor"]), float(given["high_freq_factor"])
                original = int(given["original_max_position_embeddings"])
                return Rope(width, rope.theta, scaling=Llama3Scaling(float(given["factor"]), low, high, original))
        except (KeyError, TypeError, ValueError) as error:
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
            if part.isdecimal():
                for kernel in ("down", "up"):
                    if tensor == self.edited_tensor(int(part), kernel):
                        return int(part), kernel
        raise InputError(f"tensor {tensor}: {UNEDITABLE.format(self.name, self.edited_tensor(0))}")
