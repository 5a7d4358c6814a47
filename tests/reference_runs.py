"""Runs on the reference checkpoints (tests/models/references), recorded by hand: an editor would need a tokenizer."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from prunejax.models.checkpoints import config_of, name_of
from prunejax.models.families import read_config
from prunejax.models.tensors import weight_files, weights_digest
from prunejax.run import Run, create_run
from prunejax.stored import record_chunk
from prunejax.update import LowRank
from tiny_runs import CONTEXTS, REQUESTS

REFERENCES = Path(__file__).parent / "models" / "references"
NAMES = sorted(folder.name for folder in REFERENCES.iterdir())


def record_run(folder: Path, base: Path, n: int = 3, scale: float = 0.3, layers: tuple[int, ...] = (1,)) -> Run:
    """n random rank-one edits of the down projections of some layers of the checkpoint `base`."""
    family, sizes = read_config(*config_of(base))
    tensors = [family.edited_tensor(layer) for layer in layers]
    facts = {
        "editor": "rome",
        "preset": "none",
        "settings": {"layers": list(layers), "lr": 0.5},
        "restrain": "",
        "seed": 0,
        "batch": 1,
        "tensors": tensors,
        "model": {"name": name_of(base), "sha256": weights_digest(weight_files(base))},
        "requests": {"source": "requests.jsonl", "n": len(REQUESTS), "sha256": "1" * 64},
        "contexts": {"n": 2, "sha256": "2" * 64},
        "moments": None,
        "versions": {"prunejax": "0.1.0"},
        "device": "cpu",
    }
    run, rng = create_run(folder, facts, REQUESTS, CONTEXTS), np.random.default_rng(5)

    def draw(*size: int) -> jnp.ndarray:
        return jnp.asarray(scale * rng.normal(size=size), jnp.float32)

    edits = [{t: LowRank(draw(sizes.d_ff, 1), draw(1, sizes.d_model)) for t in tensors} for _ in range(n)]
    record_chunk(run, 1, n, edits, {})
    return run


def summed(run: Run, tensor: str) -> np.ndarray:
    """What the edits on record add to a tensor, [d_in, d_out], one after another in float64."""
    total = np.float64(0)
    for event in run.events():
        factors = load_file(run.folder / event.file)
        for left, right in zip(factors[f"{tensor}.left"], factors[f"{tensor}.right"], strict=True):
            total = total + np.outer(np.float64(left), np.float64(right))
    return total


def stored_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint as it is stored."""
    return {name: array for file in weight_files(folder) for name, array in load_file(file).items()}
