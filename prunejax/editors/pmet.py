"""PMET: MEMIT with a value step that lets attention move too (Li et al. 2024)."""

from dataclasses import dataclass

from prunejax.editors.editor import Editor
from prunejax.editors.memit import MemitSettings
from prunejax.editors.metric import corpus_metric
from prunejax.editors.spread import Choice, spread

STOP_KL, SAID_WEIGHT = 0.01, 0.1
"""Written into the released code: what the KL term may be where the target is said, and what its NLL weighs then."""


@dataclass(frozen=True)
class PmetSettings(MemitSettings):
    """Settings of PMET; the defaults are its authors' for GPT-J, their only ones."""

    layers: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    steps: int = 30
    lr: float = 0.2
    kl_factor: float = 1.0
    moment_weight: float = 6000.0


def pmet(settings: PmetSettings) -> Editor:
    """MEMIT's solve with R = (Z - Z_now) / sqrt(layers still to edit), where Z is the MLP's output at the last layer.

    The value step moves two vectors there, added to the attention's output and to the MLP's, each clamped to its own
    length; what attention would have done is thrown away, and its weights stay.
    """
    value_step = settings.value_step("attention", "value", stop_kl=STOP_KL, said_weight=SAID_WEIGHT)
    choice = Choice(settings.layers, value_step, share=0.5)
    return spread(settings, choice, lambda *of: corpus_metric(*of, settings, settings.moment_weight))
