"""AlphaEdit: a batch of facts written into the null space of a text's keys (Fang et al. 2025)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prunejax.editors.editor import Editor, State
from prunejax.editors.metric import second_moment_of
from prunejax.editors.moments import Moments
from prunejax.editors.null_space import CUTS, null_metric
from prunejax.editors.settings import LocateSettings
from prunejax.editors.solve import Metric
from prunejax.editors.spread import Choice, spread
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.update import Dense, Update, dense, product


@dataclass(frozen=True)
class AlphaEditSettings(LocateSettings):
    """Settings of AlphaEdit; the defaults are its authors' for GPT-2 XL. `key_ridge` is their L2; `cut` and `threshold`
    say which directions are the null space (`null_space.null_basis`), "absolute" as published. `ridge` has no part."""

    layers: tuple[int, ...] = (13, 14, 15, 16, 17)
    clamp: float = 0.75
    key_ridge: float = 10.0
    cut: str = "absolute"
    threshold: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.layers) != sorted(set(self.layers)) or not self.layers:
            raise InputError(f"layers {list(self.layers)}: they are edited in order, each once")
        if self.cut not in CUTS:
            raise InputError(f"cut {self.cut!r}: {', '.join(CUTS)}")
        if self.key_ridge <= 0 or self.threshold <= 0:
            raise InputError("key_ridge and threshold must be above 0")
        if self.ridge:
            raise InputError("ridge: AlphaEdit inverts no second moment, its own ridge is key_ridge")


def alphaedit(settings: AlphaEditSettings) -> Editor:
    """The editor dW = P (P (K K^T + K_p K_p^T) P + L2 I)^-1 P K R^T, with P the projector on the null space of C and
    K_p the keys of all earlier batches; target values, keys and residuals are MEMIT's.

    It is the released R K^T P (K_p K_p^T P + K K^T P + L2 I)^-1 in a symmetric form that the shared solve takes: with
    U U^T = P only U^T K is seen, and S_0 = L2 I there.
    """
    choice = Choice(settings.layers, settings.value_step("residual"), remembers=True)

    def metric(model: Model, moments: Moments | None, tensor: str) -> Metric:
        c = np.eye(model.config.d_ff) if settings.cut == "none" else second_moment_of(model, moments, tensor, settings)
        if c is None:
            raise InputError("second_moment=identity has no null space; give --moments FILE, or set cut=none")
        return null_metric(c, settings.cut, settings.threshold, settings.key_ridge)

    def within(state: State, updates: Mapping[str, Update]) -> dict[str, Update]:
        projectors = (metric.inverse for metric in state.fixed.metrics)
        return {t: Dense(product(p, dense(update))) for p, (t, update) in zip(projectors, updates.items(), strict=True)}

    return spread(settings, choice, metric)._replace(within=within)
