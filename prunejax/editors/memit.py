"""MEMIT and its sequential form: a batch of facts by one least-squares solve a layer (Meng et al. 2023)."""

from dataclasses import dataclass

from prunejax.editors.editor import Editor
from prunejax.editors.metric import corpus_metric
from prunejax.editors.settings import LocateSettings
from prunejax.editors.spread import Choice, spread
from prunejax.errors import InputError


@dataclass(frozen=True)
class MemitSettings(LocateSettings):
    """Settings of MEMIT; the defaults are its authors' for GPT-2 XL. `moment_weight` is lambda."""

    layers: tuple[int, ...] = (13, 14, 15, 16, 17)
    clamp: float = 0.75
    moment_weight: float = 20_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.layers) != sorted(set(self.layers)) or not self.layers:
            raise InputError(f"layers {list(self.layers)}: they are edited in order, each once")
        if self.moment_weight <= 0:
            raise InputError("moment_weight must be above 0")


def memit(settings: MemitSettings, *, sequential: bool = False) -> Editor:
    """The editor dW_l = (lambda C_l + K K^T)^-1 K R^T (as [d_in, d_out]) for each layer l in order.

    The target values Z replace the residual stream after the last layer; R = (Z - Z_now) / (layers still to edit), with
    keys K and Z_now read from the model that the layers below have already changed. A key is the mean over groups of
    contexts of the group's mean: the bare prompt weighs as much as all prefixes together. Earlier batches are not
    remembered, unless `sequential`: then S = lambda C + K_p K_p^T with the keys K_p of all earlier ones.
    """
    choice = Choice(settings.layers, settings.value_step("residual"), remembers=sequential)
    return spread(settings, choice, lambda *of: corpus_metric(*of, settings, settings.moment_weight))
