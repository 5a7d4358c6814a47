"""PyTorch's own GPT-2 reads the folders that prunejax writes, and says the same."""

from pathlib import Path
from types import ModuleType

import numpy as np

from prunejax.models.checkpoints import load_model
from prunejax.models.decoder import logits
from prunejax.sources import WORLD_FOLDER
from prunejax.world.tasks import held_out_text

TOLERANCE = 1e-4


def logits_of_torch(torch: ModuleType, folder: Path, ids: list[int]) -> np.ndarray:
    from transformers import GPT2LMHeadModel

    theirs = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return theirs(torch.tensor([ids])).logits[0].numpy()


def largest_difference(torch: ModuleType, folder: Path, texts: tuple[str, ...]) -> float:
    model = load_model(folder)
    differences = []
    for text in texts:
        ids = model.tokenizer(text)["input_ids"]
        ours = logits(model.decoder, np.array([ids]), np.arange(len(ids))[None])[0]
        differences.append(np.abs(np.asarray(ours) - logits_of_torch(torch, folder, ids)).max())
    return float(max(differences))


def test_a_random_checkpoint(torch: ModuleType, tiny_folder: Path) -> None:
    assert largest_difference(torch, tiny_folder, ("The capital of France is Paris.",)) < TOLERANCE


def test_the_embedded_model(torch: ModuleType) -> None:
    """Float16 on disk is read as float32 by both. The tolerance is absolute, on logits of a size of some tens."""
    texts = held_out_text(8)
    assert largest_difference(torch, WORLD_FOLDER, tuple(texts)) < TOLERANCE
