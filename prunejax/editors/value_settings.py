"""The settings of the value step, and when it stops."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ValueSettings:
    """Settings of the value step, under the names of design.md; `steps` counts loss evaluations, so one update fewer
    is made. `sites` is what the target value replaces at `layer`: the MLP's output ("value", ROME), the residual stream
    after the layer ("residual", MEMIT), or the MLP's output beside an attention output that may move too ("attention",
    "value", PMET).

    It stops at a total loss below `stop_loss`; `patience` updates after the target was first the arg-max at every label
    of every context (ENCORE; 0: never for that); or, with `stop_kl`, where it is and the KL term is at most that
    (PMET). Where it is, the target's negative log-likelihood weighs `said_weight` (PMET; 1: as always). With `anchor`
    the target value is rescaled to the norm of what the unedited model holds in its place (`anchor`).
    """

    layer: int
    steps: int = 20
    lr: float = 0.5
    weight_decay: float = 0.5
    clamp: float = 4.0
    kl_factor: float = 0.0625
    stop_loss: float = 0.05
    sites: tuple[str, ...] = ("value",)
    patience: int = 0
    stop_kl: float = 0.0
    said_weight: float = 1.0
    anchor: bool = False
