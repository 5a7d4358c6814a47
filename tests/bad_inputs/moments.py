"""Bad second moments, and bad words for their verb."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from bad_inputs.breaking import Break, Table, changed, new_edit, safetensors, with_file
from desk import Desk
from prunejax.editors.moments import ORIGIN, Origin, SecondMoment, save_moments
from tiny_runs import TENSOR

SETTINGS = ["layers=1"]
EYE = np.eye(64, dtype=np.float32)
OTHER = TENSOR.replace("h.1", "h.2")


def moments(
    matrix: np.ndarray = EYE, count: object = 99, tensor: str = TENSOR, metadata: dict[str, str] | None = None
) -> Break:
    """The edit with a file of one second moment; without a count for None."""
    arrays = {f"{tensor}.second_moment": matrix}
    arrays |= {} if count is None else {f"{tensor}.count": np.asarray(count)}
    return file(save(arrays, metadata))


def file(content: bytes) -> Break:
    """The edit with a file of second moments of this content."""
    return with_file("moments", content, "moments.safetensors", set=SETTINGS)


def of_other_weights(desk: Desk) -> list[object]:
    moment = SecondMoment(EYE, 99, Origin("text", "0" * 64, "f" * 64, 64, 1.0, 1.0, "0.1.0"))
    path = save_moments({TENSOR: moment}, desk.root / "moments.safetensors")
    return new_edit(desk, moments=path, set=SETTINGS)


def folder(fill: Callable[[Path], object]) -> Break:
    """The edit with a folder of second moments."""

    def words(desk: Desk) -> list[object]:
        (desk.root / "moments").mkdir()
        fill(desk.root / "moments")
        return new_edit(desk, moments=desk.root / "moments", set=SETTINGS)

    return words


def verb(*words: object, text: str = "text.txt") -> Break:
    """The verb itself."""
    return lambda desk: [
        *("moments", "--model", desk.model, "--text", desk.root / text, "--out", desk.root / "new", *words)
    ]


def of_text(content: bytes) -> Break:
    """The verb itself on a text of this content."""

    def words(desk: Desk) -> list[object]:
        (desk.root / "bad.txt").write_bytes(content)
        return verb("--layers", "1", text="bad.txt")(desk)

    return words


BAD: Table = {
    "missing": (changed(moments="nowhere.safetensors"), "moments nowhere.safetensors: no such file"),
    "needed": (changed(set=SETTINGS), "needs --moments FILE"),
    "cut off": (file(save({f"{TENSOR}.second_moment": EYE})[:-10]), "not a whole safetensors file"),
    "empty": (file(b""), "not a whole safetensors file"),
    "text": (file(b"The capital of France is Paris." * 9), "not a whole safetensors file"),
    "a header of another length": (file(safetensors({}, length=1 << 60)), "not a whole safetensors file"),
    "no tensors": (file(safetensors({})), "holds no <tensor>.second_moment"),
    "of another size": (moments(EYE[:48, :48]), "the model's keys have 64 dimensions"),
    "of no size": (moments(EYE[:0, :0]), f"{TENSOR}.second_moment is not a finite square matrix"),
    "of other weights": (of_other_weights, f"{TENSOR} is that of another model (weights ffffffff, "),
    "of too few keys": (moments(count=9), "9 keys cannot fill 64 dimensions; collect more "),
    "of another layer": (moments(tensor=OTHER), f"none for {TENSOR}"),
    "NaN": (moments(np.full((64, 64), np.nan, np.float32)), "is not a finite square matrix"),
    "infinite": (moments(np.full((64, 64), np.inf, np.float32)), "is not a finite square matrix"),
    "too large for float32": (moments(EYE.astype(np.float64) * 1e300), "is not a finite square matrix"),
    "not square": (moments(EYE[:32]), "is not a finite square matrix"),
    "a vector": (moments(EYE[0]), "is not a finite square matrix"),
    "whole numbers": (moments(EYE.astype(np.int32)), "second_moment holds int32, float32 was expected"),
    "truth values": (moments(EYE.astype(bool)), "second_moment holds bool, float32 was expected"),
    "complex numbers": (moments(EYE.astype(np.complex64)), "second_moment holds complex64, float32 was expected"),
    "zeros": (moments(0 * EYE), "is no second moment, its diagonal is negative or 0"),
    "negative": (moments(-EYE), "is no second moment, its diagonal is negative or 0"),
    "singular": (moments(EYE * 0 + 1), "the second moment is singular"),
    "without a count": (moments(count=None), f"{TENSOR}.count is missing"),
    "a count of 0": (moments(count=0), f"{TENSOR}.count is not a whole number above 0"),
    "a negative count": (moments(count=-99), f"{TENSOR}.count is not a whole number above 0"),
    "a count that is no number": (moments(count=np.nan), f"{TENSOR}.count is not a whole number above 0"),
    "a broken count": (moments(count=99.5), f"{TENSOR}.count is not a whole number above 0"),
    "two counts": (moments(count=[99, 99]), f"{TENSOR}.count is not a whole number above 0"),
    "an origin that is none": (moments(metadata={ORIGIN: "{"}), "is not what prunejax writes"),
    "an origin nested without end": (moments(metadata={ORIGIN: "[" * 100_000}), "is not what prunejax writes"),
    "an origin of other fields": (moments(metadata={ORIGIN: f'{{"{TENSOR}": {{}}}}'}), "is not what prunejax writes"),
    "an empty folder": (folder(lambda path: None), "no file in this folder has"),
    "a folder with a bad file": (
        folder(lambda path: (path / "a.safetensors").write_bytes(b"x")),
        "a.safetensors: not a whole safetensors file",
    ),
    "of no layer": (verb("--layers", "3"), "the model has layers 0 to 2"),
    "of no numbers": (verb("--layers", "all"), "--layers 'all': whole numbers"),
    "of a layer of 5,000 digits": (verb("--layers", "9" * 5000), "--layers '9999"),
    "of no tokens": (verb("--layers", "1", "--tokens", "0"), "--tokens"),
    "of no length": (verb("--layers", "1", "--max-length", "0"), "--max-length"),
    "of no text": (verb("--layers", "1", text="nowhere.txt"), "nowhere.txt: no such file"),
    "of blank lines": (of_text(b"\n \n"), "text: no tokens in it"),
    "of a text that is not UTF-8": (of_text(b"Rome\nParis \xe9\n"), "bad.txt: line 2 is not UTF-8 text"),
    "of a folder as text": (verb("--layers", "1", text="run"), "is a folder, a file was expected"),
    "of a device without end": (verb("--layers", "1", text="/dev/zero"), "is a device, a file was expected"),
}
