"""The settings that locate-then-edit editors share, under the names of design.md."""

from collections.abc import Sequence
from dataclasses import dataclass

from prunejax.editors.value_settings import ValueSettings
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model


@dataclass(frozen=True)
class LocateSettings:
    """Layers, the value step's settings, and the metric of the solve; the defaults are the ROME authors' for GPT-2 XL.

    `second_moment` is "corpus" for C, or "identity"; `ridge` adds that share of C's mean diagonal to its diagonal.
    `patience` stops the value step so many updates after the target was first said in every context (0: never for
    that), `anchor` rescales the target value to the norm of what the unedited model holds in its place.
    """

    layers: tuple[int, ...] = (17,)
    steps: int = 20
    lr: float = 0.5
    weight_decay: float = 0.5
    clamp: float = 4.0
    kl_factor: float = 0.0625
    stop_loss: float = 0.05
    second_moment: str = "corpus"
    ridge: float = 0.0
    patience: int = 0
    anchor: bool = False

    def __post_init__(self) -> None:
        if self.second_moment not in ("corpus", "identity"):
            raise InputError(f"second_moment {self.second_moment!r}: corpus or identity")
        if self.steps < 1 or self.lr <= 0 or self.clamp <= 0:
            raise InputError("steps must be at least 1, lr and clamp above 0")
        if min(self.weight_decay, self.kl_factor, self.stop_loss, self.ridge, self.patience) < 0:
            raise InputError("weight_decay, kl_factor, stop_loss, ridge and patience must not be negative")

    @property
    def turns(self) -> int:
        """How often the value step's loop turns at most: once an update."""
        return self.steps - 1

    def value_step(self, *sites: str, **more: float) -> ValueSettings:
        """The value step's own settings; it works at the last of the layers."""
        shared = ("steps", "lr", "weight_decay", "clamp", "kl_factor", "stop_loss", "patience", "anchor")
        return ValueSettings(self.layers[-1], sites=sites, **{name: getattr(self, name) for name in shared}, **more)

    def tensors(self, model: Model) -> tuple[str, ...]:
        """The names of the tensors that are edited."""
        return edited_tensors(model, self.layers)


def edited_tensors(model: Model, layers: Sequence[int]) -> tuple[str, ...]:
    """The down projections of layers; InputError for a layer that the model has not."""
    for layer in layers:
        if not 0 <= layer < model.config.n_layers:
            raise InputError(f"layers {layer}: the model has layers 0 to {model.config.n_layers - 1}")
    return tuple(model.family.edited_tensor(layer) for layer in layers)
