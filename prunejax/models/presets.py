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

LOW = {"weight_decay": 0.5, "clamp": 0.75}
"""What the MEMIT authors and those who follow them use."""
WORLD = {"layers": (0, 1), **VALUE_STEP, **LOW}
GPT2_XL = {"layers": (13, 14, 15, 16, 17), **VALUE_STEP, **LOW}
GPT_J = {"layers": (3, 4, 5, 6, 7, 8), **VALUE_STEP, "steps": 25, **LOW}
LLAMAS = {"layers": (4, 5, 6, 7, 8), **VALUE_STEP, "steps": 25, **LOW}
FINE_TUNING = {"steps": 25, "lr": 5e-4, "stop_loss": 0.01}
NULL_SPACE = {"key_ridge": 10.0, "cut": "absolute", "threshold": 0.02}

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
        {**WORLD, "moment_weight": 100.0, "ridge": 1.0},
    ),
    Preset(
        "world",
        ("memit-seq",),
        "prunejax, as memit, which it is for a single batch",
        {**WORLD, "moment_weight": 100.0, "ridge": 1.0},
    ),
    Preset(
        "world",
        ("emmet",),
        "prunejax, as memit: the weight of C times the slack is its moment_weight",
        {**WORLD, "moment_weight": 1000.0, "slack": 0.1, "ridge": 1.0},
    ),
    Preset(
        "world",
        ("alphaedit",),
        "prunejax, the search on the tune pool in data/world/tune-alphaedit.csv; the value step as memit",
        {**WORLD, "cut": "relative", "threshold": 0.1, "key_ridge": 10.0},
    ),
    Preset(
        "world",
        ("nse",),
        "prunejax, the search on the tune pool in data/world/tune-nse.csv; the value step and C as memit",
        {**WORLD, "moment_weight": 100.0, "ridge": 1.0, "least": 20.0, "most": 1e6, "keep": 0.8},
    ),
    Preset(
        "world",
        ("encore",),
        "prunejax, the search on the tune pool in data/world/tune-encore.csv; the value step and C as memit",
        {**WORLD, "moment_weight": 100.0, "ridge": 1.0, "key_ridge": 1.0, "patience": 4},
    ),
    Preset(
        "world",
        ("pmet",),
        "prunejax, the search on the tune pool in data/world/tune-pmet.csv; what is not searched as memit",
        {**WORLD, "clamp": 8.0, "moment_weight": 100.0, "ridge": 1.0},
    ),
    Preset(
        "world",
        ("ultraedit",),
        "prunejax, the search on the tune pool in data/world/tune-ultraedit.csv, one batch of 60",
        {"layers": (2,), "lr": 0.003, "key_ridge": 1.0},
    ),
    Preset(
        "world",
        ("ft-l",),
        "prunejax, the search on the tune pool in data/world/tune-ft-l.csv",
        {"layers": (0,), "steps": 20, "stop_loss": 0.05, "lr": 0.01, "box": 0.01},
    ),
    Preset(
        "world",
        ("ft-m",),
        "prunejax, the search on the tune pool in data/world/tune-ft-m.csv",
        {"layers": (1,), "steps": 20, "stop_loss": 0.05, "lr": 0.002, "box": 0.0},
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
        ("memit", "memit-seq"),
        "AlphaEdit repository, hparams/MEMIT: the value step differs from the PRUNE repository's in every setting",
        {**LLAMAS, "lr": 0.1, "moment_weight": 15_000.0},
    ),
    Preset("gpt2-xl", ("memit-seq",), "AlphaEdit repository, its MEMIT_seq", {**GPT2_XL, "moment_weight": 20_000.0}),
    Preset("gpt-j-6b", ("memit-seq",), "AlphaEdit repository, its MEMIT_seq", {**GPT_J, "moment_weight": 15_000.0}),
    Preset(
        "gpt2-xl",
        ("emmet",),
        "unified-model-editing, its settings for GPT-2 XL",
        {**GPT2_XL, "layers": (17,), "moment_weight": 1000.0, "slack": 0.1},
    ),
    Preset(
        "gpt-j-6b",
        ("emmet",),
        "unified-model-editing, its settings for GPT-J",
        {**GPT_J, "layers": (5,), "moment_weight": 1.0, "slack": 0.1},
    ),
    Preset(
        "llama-2-7b",
        ("emmet",),
        "unified-model-editing, its settings for Llama-2",
        {"layers": (5,), **LLAMA, "moment_weight": 1.0, "slack": 0.1},
    ),
    Preset(
        "llama-2-7b-easyedit",
        ("emmet",),
        "EasyEdit, hparams/EMMET: a weight of C 100,000 times that of unified-model-editing",
        {"layers": (5,), **LLAMA, "moment_weight": 100_000.0, "slack": 0.1},
    ),
    Preset(
        "llama-3-8b",
        ("emmet",),
        "ENCORE repository, its EMMET for Llama-3",
        {**LLAMAS, "layers": (5,), "moment_weight": 100_000.0, "slack": 0.1},
    ),
    Preset("gpt2-xl", ("alphaedit",), "AlphaEdit repository, hparams/AlphaEdit", {**GPT2_XL, **NULL_SPACE}),
    Preset("gpt-j-6b", ("alphaedit",), "AlphaEdit repository, hparams/AlphaEdit", {**GPT_J, **NULL_SPACE}),
    Preset(
        "llama-3-8b", ("alphaedit",), "AlphaEdit repository, hparams/AlphaEdit", {**LLAMAS, "lr": 0.1, **NULL_SPACE}
    ),
    Preset("llama-2-7b", ("alphaedit",), "ENCORE repository, its AlphaEdit", {**LLAMAS, "lr": 0.1, **NULL_SPACE}),
    Preset(
        "gpt2-xl",
        ("nse",),
        "NSE repository, its settings for GPT-2 XL; layers as MEMIT",
        {**GPT2_XL, "moment_weight": 10_000.0, "least": 35.0, "most": 150.0, "keep": 1.0},
    ),
    Preset(
        "gpt-j-6b",
        ("nse",),
        "NSE repository, its settings for GPT-J; layers as MEMIT",
        {**GPT_J, "moment_weight": 15_000.0, "least": 15.0, "most": 100.0, "keep": 0.8},
    ),
    Preset(
        "llama-3-8b",
        ("nse",),
        "NSE repository, its settings for Llama-3; layers as MEMIT",
        {**LLAMAS, "lr": 0.1, "moment_weight": 15_000.0, "least": 2.5, "most": 50.0, "keep": 1.0},
    ),
    Preset(
        "gpt2-xl",
        ("encore",),
        "ENCORE repository, its settings for GPT-2 XL",
        {**GPT2_XL, "moment_weight": 20_000.0, "key_ridge": 10.0, "patience": 4},
    ),
    Preset(
        "llama-2-7b",
        ("encore",),
        "ENCORE repository, its settings for Llama-2",
        {**LLAMAS, "moment_weight": 15_000.0, "key_ridge": 10.0, "patience": 3},
    ),
    Preset(
        "llama-3-8b",
        ("encore",),
        "ENCORE repository, its settings for Llama-3, second moments of 10,000 texts",
        {**LLAMAS, "moment_weight": 15_000.0, "key_ridge": 20.0, "patience": 2},
    ),
    Preset(
        "gpt-j-6b",
        ("pmet",),
        "PMET repository, its settings for GPT-J",
        {**GPT_J, "steps": 30, "lr": 0.2, "kl_factor": 1.0, "moment_weight": 6000.0},
    ),
    Preset(
        "llama-2-7b",
        ("pmet",),
        "EasyEdit, hparams/PMET",
        {**LLAMAS, "steps": 20, "clamp": 1.0, "moment_weight": 15_000.0},
    ),
    Preset(
        "gpt-j-6b",
        ("ultraedit",),
        "UltraEdit repository, its settings for GPT-J; published with 100 edits at once",
        {"layers": tuple(range(18, 27)), "lr": 1e-6, "key_ridge": 1.0},
    ),
    Preset(
        "gpt2-xl", ("ft-l",), "ROME release, hparams/FT, with its box", {"layers": (0,), **FINE_TUNING, "box": 5e-4}
    ),
    Preset(
        "gpt-j-6b", ("ft-l",), "ROME release, hparams/FT, with its box", {"layers": (0,), **FINE_TUNING, "box": 5e-5}
    ),
    Preset(
        "llama-2-7b",
        ("ft-l", "ft-m"),
        "EasyEdit, hparams/FT: no box, whatever the method is called",
        {"layers": (21,), **FINE_TUNING, "box": 0.0},
    ),
    Preset(
        "llama-3-8b",
        ("ft-l", "ft-m"),
        "EasyEdit, hparams/FT: no box, whatever the method is called",
        {"layers": (21,), **FINE_TUNING, "box": 0.0},
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
