"""Published editing settings, one table, each with its origin; settings of different origins are never mixed in a
comparison."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from prunejax.errors import InputError


class Preset(NamedTuple):
    """Settings of an editor for a model, and where they were published."""

    name: str
    editors: tuple[str, ...]
    origin: str
    settings: Mapping[str, Any]


ROME_FAMILY = ("rome", "r-rome")
VALUE_STEP = {"steps": 20, "lr": 0.5, "weight_decay": 0.5, "kl_factor": 0.0625, "stop_loss": 0.05}
"""What the ROME and MEMIT authors use for GPT-2 XL, the clamp apart."""
LLAMA = VALUE_STEP | {"steps": 25, "weight_decay": 1e-3, "clamp": 4.0}
"""What EasyEdit and the PRUNE repository use for Llama: one of three recipes that circulate."""

PRESETS = (
    Preset(
        "world",
        ROME_FAMILY,
        "prunejax, the search on the tune pool in data/world/tune-rome.csv; what is not searched as in gpt2-xl",
        {"layers": (0,), **VALUE_STEP, "clamp": 2.0, "ridge": 1.0},
    ),
    Preset(
        "world",
        ("memit",),
        "prunejax, the search on the tune pool in data/world/tune-memit.csv; what is not searched as in gpt2-xl",
        {"layers": (0, 1), **VALUE_STEP, "clamp": 0.75, "moment_weight": 100.0, "ridge": 1.0},
    ),
    Preset("world", ("mend",), "prunejax, data/mend/README.md", {"layers": (0, 1, 2), "network": "world"}),
    Preset(
        "gpt2-xl",
        ROME_FAMILY,
        "ROME release, hparams/ROME/gpt2-xl.json; the PRUNE repository has the same",
        {"layers": (17,), **VALUE_STEP, "clamp": 4.0},
    ),
    Preset(
        "gpt2-xl",
        ("memit",),
        "MEMIT release, its settings for GPT-2 XL; the PRUNE repository has the same",
        {"layers": (13, 14, 15, 16, 17), **VALUE_STEP, "clamp": 0.75, "moment_weight": 20_000.0},
    ),
    Preset(
        "gpt-j-6b",
        ROME_FAMILY,
        "ROME release, its settings for GPT-J; the PRUNE repository has the same",
        {"layers": (5,), **VALUE_STEP, "clamp": 4.0},
    ),
    Preset(
        "gpt-j-6b",
        ("memit",),
        "MEMIT release, its settings for GPT-J; the PRUNE repository has the same",
        {"layers": (3, 4, 5, 6, 7, 8), **VALUE_STEP, "steps": 25, "clamp": 0.75, "moment_weight": 15_000.0},
    ),
    Preset(
        "llama-2-7b",
        ROME_FAMILY,
        "PRUNE repository, hparams/ROME, second moment of 100,000 texts (EasyEdit has the identity instead)",
        {"layers": (5,), **LLAMA},
    ),
    Preset(
        "llama-2-7b",
        ("memit",),
        "PRUNE repository, hparams/MEMIT; EasyEdit has the same",
        {"layers": (4, 5, 6, 7, 8), **LLAMA, "moment_weight": 15_000.0},
    ),
    Preset(
        "llama-3-8b",
        ROME_FAMILY,
        "PRUNE repository, hparams/ROME, second moment of 10,000 texts (EasyEdit: layer 5, the identity)",
        {"layers": (4,), **LLAMA},
    ),
    Preset(
        "llama-3-8b",
        ("memit",),
        "PRUNE repository, hparams/MEMIT, second moments of 10,000 texts",
        {"layers": (4, 5, 6, 7, 8), **LLAMA, "moment_weight": 15_000.0},
    ),
    Preset(
        "llama-3-8b-alphaedit",
        ("memit",),
        "AlphaEdit repository, hparams/MEMIT: the value step differs from the PRUNE repository's in every setting",
        {"layers": (4, 5, 6, 7, 8), **VALUE_STEP, "steps": 25, "lr": 0.1, "clamp": 0.75, "moment_weight": 15_000.0},
    ),
    Preset(
        "gpt2-xl", ("mend",), "PRUNE repository, hparams/MEND; the network must be trained", {"layers": (45, 46, 47)}
    ),
    Preset("gpt-j-6b", ("mend",), "PRUNE repository, hparams/MEND; as above", {"layers": (25, 26, 27)}),
    Preset("llama-2-7b", ("mend",), "PRUNE repository, hparams/MEND; as above", {"layers": (29, 30, 31)}),
    Preset("llama-3-8b", ("mend",), "PRUNE repository, hparams/MEND; as above", {"layers": (29, 30, 31), "scale": 0.5}),
)


def preset_settings(name: str, editor: str) -> Mapping[str, Any]:
    """A preset's settings for an editor; InputError when there is no such preset or none for this editor."""
    named = [preset for preset in PRESETS if preset.name == name]
    if not named:
        raise InputError(f"preset {name!r}: there are {', '.join(dict.fromkeys(p.name for p in PRESETS))}")
    for preset in named:
        if editor in preset.editors:
            return preset.settings
    others = ", ".join(other for preset in named for other in preset.editors)
    raise InputError(f"preset {name!r}: is for {others}, not for {editor}")
