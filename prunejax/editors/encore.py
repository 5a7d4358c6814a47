"""ENCORE: sequential MEMIT that stops searching early and keeps updates small (Gupta et al. 2025)."""

from dataclasses import dataclass

from prunejax.editors.editor import Editor
from prunejax.editors.memit import MemitSettings
from prunejax.editors.metric import corpus_metric
from prunejax.editors.spread import Choice, spread
from prunejax.errors import InputError


@dataclass(frozen=True)
class EncoreSettings(MemitSettings):
    """Settings of ENCORE; the defaults are its authors' for GPT-2 XL. `key_ridge` is their lambda_n."""

    patience: int = 4
    key_ridge: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key_ridge < 0:
            raise InputError("key_ridge must not be negative")


def encore(settings: EncoreSettings) -> Editor:
    """The editor dW = (lambda C + lambda_n I + K_p K_p^T + K K^T)^-1 K R^T, and a value step that stops `patience`
    updates after the target is said in every context.

    Said means that each of its tokens is the arg-max where it is predicted, per context. The released code counts right
    tokens over all prompts and compares with the number of prompts, which fires at the wrong time for targets of
    several tokens.
    """
    choice = Choice(settings.layers, settings.value_step("residual"), remembers=True)
    given = (settings, settings.moment_weight, settings.key_ridge)
    return spread(settings, choice, lambda *of: corpus_metric(*of, *given))
