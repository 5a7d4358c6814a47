"""The checkpoint families, one row each; what differs between them is all in their own files."""

from collections.abc import Mapping
from typing import Any

from prunejax.errors import InputError
from prunejax.models.config import DecoderConfig
from prunejax.models.families.family import ConfigFile, Family
from prunejax.models.families.gpt2 import GPT2
from prunejax.models.families.gptj import GPTJ
from prunejax.models.families.llama import LLAMA
from prunejax.models.families.mistral import MISTRAL
from prunejax.models.families.qwen2 import QWEN2
from prunejax.models.families.qwen3 import QWEN3

FAMILIES: Mapping[str, Family] = {family.name: family for family in (GPT2, GPTJ, LLAMA, MISTRAL, QWEN2, QWEN3)}


def read_config(config: Mapping[str, Any], where: str) -> tuple[Family, DecoderConfig]:
    """The family and the sizes that a config.json describes; InputError, one line, for what is not supported."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"{where}: model_type {kind!r} is not supported, only {', '.join(FAMILIES)} are")
    return FAMILIES[kind], FAMILIES[kind].sizes(ConfigFile(config, where))
