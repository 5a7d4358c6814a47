"""NSE: sequential MEMIT on the loudest neurons, with target values of the unedited model (Jiang et al. 2024)."""

from dataclasses import dataclass

from prunejax.editors.editor import Editor
from prunejax.editors.memit import MemitSettings
from prunejax.editors.metric import corpus_metric
from prunejax.editors.spread import Choice, spread
from prunejax.errors import InputError


@dataclass(frozen=True)
class NseSettings(MemitSettings):
    """Settings of NSE; the defaults are its authors' for GPT-2 XL. `least` and `most` (their alpha and upper) bound how
    long a residual is that is worked on, `keep` (their p) is the share of sum |k| that the written neurons hold."""

    moment_weight: float = 10_000.0
    least: float = 35.0
    most: float = 150.0
    keep: float = 1.0
    passes: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep <= 1:
            raise InputError("keep must be above 0 and at most 1")
        if not 0 <= self.least < self.most or self.passes < 1:
            raise InputError("least must be below most, both not negative, and passes at least 1")


def nse(settings: NseSettings) -> Editor:
    """MEMIT's editor with S = lambda C + K_p K_p^T, restricted to neurons I: rows of dW outside I are 0.

    Target values are found on the unedited model ("weights rewinding"), whatever was edited since. The batch is gone
    through `passes` times: requests whose residual ||z - z_now|| is at most `least` are done, and those at or above
    `most` are left out without a word, as published; `update_norm` 0 tells of them. Both are absolute norms, so they
    belong to one model.
    """
    names = ("passes", "least", "most", "keep")
    choice = Choice(
        settings.layers,
        settings.value_step("residual"),
        remembers=True,
        rewound=True,
        **{name: getattr(settings, name) for name in names},
    )
    weight, whole = settings.moment_weight, settings.keep < 1
    return spread(settings, choice, lambda *of: corpus_metric(*of, settings, weight, whole=whole))
