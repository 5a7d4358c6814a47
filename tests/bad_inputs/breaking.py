"""What the tables share: words of verbs, and files that are not what they say."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

from desk import Desk

Break = Callable[[Desk], list[object]]
"""Damages a desk and gives the words of a verb."""

Table = dict[str, tuple[Break, str]]


def changed(**options: object) -> Break:
    """The edit into a new folder with some options changed."""
    return lambda desk: new_edit(desk, **options)


def new_edit(desk: Desk, **options: object) -> list[object]:
    """The words of the edit into a new folder, some options changed."""
    return desk.edit(**({"out": desk.root / "new"} | options))


def with_file(option: str, content: str | bytes, name: str = "bad", **options: object) -> Break:
    """The edit into a new folder, one option of which names a file of this content."""

    def words(desk: Desk) -> list[object]:
        path = desk.root / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return new_edit(desk, **{option: path} | options)

    return words


def on_model(change: Callable[[Path], object], **options: object) -> Break:
    """The edit of a copy of the model, changed, into a new folder."""

    def words(desk: Desk) -> list[object]:
        folder = Path(shutil.copytree(desk.model, desk.root / "model"))
        change(folder)
        return new_edit(desk, model=folder, **options)

    return words


def on_run(change: Callable[[Path], object], *verb: object) -> Break:
    """A verb on the run, changed; `spectra` unless another is named."""

    def words(desk: Desk) -> list[object]:
        change(desk.run)
        name, *options = verb or ("spectra",)
        return [name, desk.run, "--model", desk.model, *options]

    return words


def json_file(name: str, **changes: object) -> Callable[[Path], object]:
    """Changes entries of an object in a JSON file of a folder; `...` removes one."""

    def change(folder: Path) -> None:
        path = folder / name
        values = json.loads(path.read_text(encoding="utf-8")) | changes
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))

    return change


def content(name: str, text: str | bytes) -> Callable[[Path], object]:
    """Gives a file of a folder another content."""
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def truncated(name: str, lost: int) -> Callable[[Path], object]:
    """Cuts bytes off the end of a file of a folder."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-lost])


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of this header (bytes, or what becomes JSON) and data, its `length` as told or as it is."""
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(written) if length is None else length).to_bytes(8, "little") + written + data


def parts(path: Path) -> tuple[dict[str, dict], bytes]:
    """The header and the data of a safetensors file."""
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    return json.loads(whole[8:end]), whole[end:]


def header(name: str, change: Callable[[dict[str, dict]], object]) -> Callable[[Path], object]:
    """Changes the header of a safetensors file in a folder; its data stays."""

    def rewrite(folder: Path) -> None:
        entries, data = parts(folder / name)
        change(entries)
        (folder / name).write_bytes(safetensors(entries, data))

    return rewrite


class Trace:
    """What leaves a trace where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def pickled(*names: str) -> Callable[[Path], object]:
    """Puts pickles that leave a trace in the place of files."""

    def change(folder: Path) -> None:
        for name in names:
            (folder / name).write_bytes(pickle.dumps(Trace(folder / "trace")))

    return change


def lacking(*names: str) -> Callable[[Path], object]:
    """Removes files."""
    return lambda folder: [(folder / name).unlink() for name in names]


def both(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    """One change after another."""
    return lambda folder: [change(folder) for change in changes]
