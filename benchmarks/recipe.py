"""What both sides of a comparison are told: settings, and a folder with model, requests, contexts, second moments."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prunejax.files import read_json
from prunejax.requests import EditRequest, read_requests

CONTEXTS = Path(__file__).parent / "contexts.json"
"""21 templates: the bare prompt, ten prefixes of 5 tokens and ten of 10, openings of ordinary English sentences."""

REQUESTS, MOMENTS = "requests.jsonl", "moments.safetensors"


class Recipe(NamedTuple):
    """An editor's settings under the names of design.md; those that are given here are the ROME authors' for GPT-2 XL,
    but for the layer and the early stop, which is off: every edit takes all its steps."""

    layers: tuple[int, ...] = (5,)
    steps: int = 20
    lr: float = 0.5
    weight_decay: float = 0.5
    clamp: float = 4.0
    kl_factor: float = 0.0625
    stop_loss: float = 0.0
    second_moment: str = "corpus"
    moment_weight: float = 20_000.0


class Job(NamedTuple):
    """A folder of `yardstick.make`, how to edit it, and what it runs on: device "cpu" or "gpu", weights held in `dtype`
    (float32 or bfloat16)."""

    folder: Path
    recipe: Recipe
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def model(self) -> Path:
        """The Hugging Face folder."""
        return self.folder / "model"

    @property
    def moments(self) -> Path:
        """The file of second moments, of which there is none where the recipe takes the identity."""
        return self.folder / MOMENTS


def requests_of(job: Job) -> tuple[EditRequest, ...]:
    """The requests of a job, in order."""
    return read_requests(job.folder / REQUESTS)


def rome_contexts() -> tuple[str, ...]:
    """The 21 templates of ROME, the bare one first."""
    return tuple(read_json(CONTEXTS, "contexts"))


def memit_contexts() -> tuple[tuple[str, ...], ...]:
    """The two groups of MEMIT: the bare prompt, and five prefixes of 10 tokens."""
    templates = rome_contexts()
    return (templates[:1], templates[11:16])


def flat(contexts: Sequence[Sequence[str]]) -> list[str]:
    """All templates of the groups, in order. `prunejax.contexts` has the same, but loads jax, which PyTorch's side must
    not."""
    return [template for group in contexts for template in group]
