"""Write a Hugging Face folder of an edited model: the base's files, byte for byte, but for the bytes of the edited
tensors, and a model card."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from prunejax.base_checkpoint import Base
from prunejax.delta import Delta, digest, edited
from prunejax.disk import check_folder, telling
from prunejax.errors import InputError
from prunejax.model_card import model_card
from prunejax.models.tensors import INDEX, WEIGHTS

CARD, BASE_CARD = "README.md", "README.base.md"
"""The exported folder's card, and the name that the base model's own card is kept under."""

WEIGHTS_OF_OTHERS = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".gguf", ".npz"),
    ".index.json",
)
"""How files end that hold, or lead to, the unedited weights in other formats: they are left out."""

TEMPLATES = "additional_chat_templates"
"""The one folder within a folder that transformers reads."""


def write_folder(delta: Delta, base: Base, out: Path) -> tuple[str, ...]:
    """Write the edited model into the new folder `out`, whole or not at all; returns the names of edited tensors whose
    bytes are not those that the delta records.

    Such a tensor's update and base are right, by their checksums: another machine's arithmetic rounded a few elements
    the other way. Files are copied, an edited tensor's bytes are overwritten in the copy at the place that the file's
    header names, so layout, metadata and all other tensors stay as they are; one tensor at a time is in memory.
    """
    check_out(out, base.folder)
    target, places = out.resolve(), {base.kernel(tensor).stored.name: tensor for tensor in delta.tensors}
    with telling(out):
        target.parent.mkdir(parents=True, exist_ok=True)
        part, differ = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.")), []
        try:
            for source, name in tqdm(list(copied(base)), desc="write", unit="file"):
                (part / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source, part / name)
                for stored, start in (tensor_offsets(source) if source in base.files else {}).items():
                    if tensor := places.get(stored):
                        array = edited(base.kernel(tensor), delta.factors(tensor), tensor).array
                        overwrite(part / name, start, array)
                        differ += [tensor] if digest(array) != delta.facts["tensors"][tensor]["sha256"] else []
                sync(part / name)
            (part / CARD).write_text(model_card(delta.facts, (part / BASE_CARD).exists()), encoding="utf-8")
            sync(part / CARD)
            part.chmod(0o755)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return tuple(differ)


def check_out(out: Path, base: Path) -> None:
    """InputError unless `out` is free: not there or an empty folder, and outside the base model's folder; DiskError
    where it could not be written."""
    if out.resolve().is_relative_to(base.resolve()):
        raise InputError(f"--out {out}: lies in the folder of the base model, which is never written to")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"--out {out}: exists; nothing is overwritten, choose another")
    check_folder(out.resolve().parent, "--out")


def copied(base: Base) -> Iterator[tuple[Path, str]]:
    """The base's files that the exported folder has too, and their names there: its weights, and all else but hidden
    files, folders, and weights in other formats."""
    files = sorted(path for path in base.folder.iterdir() if path.is_file() and not path.name.startswith("."))
    indexed = base.files != (base.folder / WEIGHTS,)
    for path in files:
        kept = path in base.files or (path.name == INDEX and indexed) or not path.name.endswith(WEIGHTS_OF_OTHERS)
        if kept and path.name != BASE_CARD:
            yield path, BASE_CARD if path.name == CARD else path.name
    for path in sorted((base.folder / TEMPLATES).glob("*.jinja")):
        yield path, f"{TEMPLATES}/{path.name}"


def tensor_offsets(path: Path) -> dict[str, int]:
    """Where each tensor's bytes begin in a safetensors file: behind eight bytes, that many bytes of header, and the
    tensors before it."""
    with path.open("rb") as handle:
        size = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(size))
    header.pop("__metadata__", None)
    return {name: 8 + size + entry["data_offsets"][0] for name, entry in header.items()}


def overwrite(path: Path, start: int, array: np.ndarray) -> None:
    """Put an array's bytes into a file."""
    with path.open("r+b") as handle:
        handle.seek(start)
        handle.write(array.tobytes())


def sync(path: Path) -> None:
    """See to it that a file is on the disk before its folder gets its name."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
