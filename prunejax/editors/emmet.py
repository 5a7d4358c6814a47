"""EMMET: a batch of facts stored exactly, or nearly (Gupta et al. 2024)."""

from dataclasses import dataclass

from prunejax.editors.editor import Editor
from prunejax.editors.memit import MemitSettings
from prunejax.editors.metric import corpus_metric
from prunejax.editors.spread import Choice, spread
from prunejax.errors import InputError


@dataclass(frozen=True)
class EmmetSettings(MemitSettings):
    """Settings of EMMET; the defaults are its authors' for GPT-2 XL. `moment_weight` is their weight w of C, `slack`
    the epsilon on the Gram matrix."""

    layers: tuple[int, ...] = (17,)
    moment_weight: float = 1000.0
    slack: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slack <= 0:
            raise InputError("slack must be above 0: similar subjects make the Gram matrix singular")


def emmet(settings: EmmetSettings) -> Editor:
    """The editor dW = S^-1 K (K^T S^-1 K + epsilon I)^-1 R^T with S = w C: K^T dW = R^T as epsilon goes to 0.

    A single request has epsilon 0, as released, so it is stored exactly, by one key throughout. Of several it is MEMIT
    with lambda = w epsilon, to rounding: w and epsilon are one number, and only their product matters.
    """
    choice = Choice(settings.layers, settings.value_step("residual"), slack=settings.slack, slack_alone=0.0)
    return spread(settings, choice, lambda *of: corpus_metric(*of, settings, settings.moment_weight))
