"""Published editing settings, one table, each with its origin; settings of different origins are never mixed in a
comparison."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from prunejax.errors import InputError


class Preset(NamedTuple):
    """Settings of an editor for a model, and where they were published."""

    editors: tuple[str, ...]
    origin: str
    settings: Mapping[str, Any]


ROME_FAMILY = ("rome", "r-rome")

PRESETS: Mapping[str, Preset] = {
    "world": Preset(
        ROME_FAMILY,
        "prunejax, the search on the tune pool in data/world/tune.csv; what is not searched as in gpt2-xl",
        {
            "layers": (0,),
            "steps": 20,
            "lr": 0.5,
            "weight_decay": 0.5,
            "clamp": 2.0,
            "kl_factor": 0.0625,
            "stop_loss": 0.05,
            "ridge": 1.0,
        },
    ),
    "gpt2-xl": Preset(
        ROME_FAMILY,
        "ROME release, hparams/ROME/gpt2-xl.json",
        {
            "layers": (17,),
            "steps": 20,
            "lr": 0.5,
            "weight_decay": 0.5,
            "clamp": 4.0,
            "kl_factor": 0.0625,
            "stop_loss": 0.05,
        },
    ),
}


def preset_settings(name: str, editor: str) -> Mapping[str, Any]:
    """A preset's settings for an editor; InputError when there is no such preset or it is not for this editor."""
    if name not in PRESETS:
        raise InputError(f"preset {name!r}: there are {', '.join(PRESETS)}")
    if editor not in PRESETS[name].editors:
        raise InputError(f"preset {name!r}: is for {', '.join(PRESETS[name].editors)}, not for {editor}")
    return PRESETS[name].settings
