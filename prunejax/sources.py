"""What the command line's and the notebooks' short words mean: `world`, `world/tune:100`, a folder, a file, `FILE:100`,
a downloaded data set, `committed` records."""

import os
import re
import warnings
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np

from prunejax.datasets import DATASETS, find_dataset
from prunejax.errors import InputError
from prunejax.files import is_file, is_there, read_lines
from prunejax.models.checkpoints import Model, load_model
from prunejax.requests import EditRequest, draw, draw_subjects, name_unusable, sift_requests
from prunejax.world.facts import World, edit_requests, load_world
from prunejax.world.tasks import guard_text
from prunejax.world.text import epoch_sentences

DATA = Path(__file__).resolve().parents[1] / "data"

WORLD_FOLDER = DATA / "world"
"""The embedded model, its tokenizer and its facts."""

RECORDS = DATA / "records"
"""The committed records, from which figures are drawn."""

BUILD = DATA.parent / "build"
"""What can be thrown away: runs behind the records, drafts of figures and notebooks."""

GUARD_LINES = 200
"""Of a longer text a guard reads so many lines."""

WORLD_MOMENTS = DATA / "moments"
"""Second moments of the embedded model's keys over an epoch of the world's text, a file a layer."""


WORLD_NETWORK = DATA / "mend" / "world.safetensors"
"""MEND's hypernetwork for the embedded model."""


def find_network(name: str) -> Path:
    """The file of the hypernetwork called `world`, or a file by name."""
    return WORLD_NETWORK if name == "world" else Path(name)


def find_model(name: str, dtype: str = "float32") -> Model:
    """The model called `world`, the one in a Hugging Face folder, or the one of a hub name such as
    `openai-community/gpt2-xl`, which is downloaded once; its weights held in `dtype`."""
    return load_model(model_folder(name), dtype)


def model_folder(name: str) -> Path:
    """The folder of a model: `world`, a folder, or a hub name's copy in the hub's own cache.

    Of a hub name only config, tokenizer and safetensors are fetched, no code. InputError where there is no such model
    or no network.
    """
    if name == "world":
        return WORLD_FOLDER
    if is_there(name) and Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) or Path(name).parent.exists():
        raise InputError(
            f"model {name!r}: neither 'world' nor a folder nor a hub name (OWNER/NAME); give a Hugging Face folder"
        )
    from huggingface_hub import snapshot_download  # takes half a second to import

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "merges.txt"]))
    except Exception as error:  # its errors are those of every library that it talks through
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"model {name!r}: no folder of that name, and the hub does not give it ({type(error).__name__}: {reason}); "
            "download it where there is a network, and give the folder"
        ) from None


def find_world() -> World:
    """The embedded world's facts."""
    return load_world(WORLD_FOLDER / "world.json")


def find_requests(source: str, seed: int, note: Callable[[str], object] = warnings.warn) -> tuple[EditRequest, ...]:
    """The requests of `world[/POOL][:N]` (the pool's order shuffled by the seed, the first N); of a file or downloaded
    data set in its own order; or of `FILE:N` or `NAME:N`, N of different subjects drawn by the seed.

    A path that exists is never read as `FILE:N`. In a file or data set as a whole every record must be usable; a draw
    is among the usable ones, and `note` is told how many were not, and which.
    """
    if _is_world(source):
        match = re.fullmatch(r"world(?:/([^:]*))?(?::(.*))?", source)
        pool, count = match[1] or "report", match[2]
        world = find_world()
        world.pool(pool)
        if pool == "control":
            raise InputError(
                "pool 'control': is never edited, neighbours and questions come from it; take report, tune or train"
            )
        requests = edit_requests(world, pool)
        return draw(requests, len(requests) if count is None else _number(source, count), seed)
    name, _, count = source.rpartition(":")
    if is_there(source) or not (is_file(name) or name in DATASETS):
        name, count = source, None
    path = _find_file(name, "requests")
    requests, unusable = sift_requests(path)
    if unusable and (count is None or not requests):
        instead = f"; {source}:N draws N of the {len(requests)} others" * bool(requests)
        raise InputError(name_unusable(path, unusable) + instead)
    if count is None:
        return requests
    drawn = draw_subjects(requests, _number(source, count), seed)
    if unusable:
        total = len(requests) + len(unusable)
        note(f"{len(unusable)} of {total} records are unusable, not drawn from: {name_unusable(path, unusable)}")
    return drawn


def requests_name(source: str) -> str:
    """What a run calls the requests of `source` from whatever folder they were read: a file's name, other words as
    they are."""
    return source if _is_world(source) else Path(source).name


def find_text(source: str) -> Iterable[str]:
    """The texts of `world` (an epoch of the world's text that training did not draw), or of a file or a downloaded data
    set, one a line, read as they are asked for; blank lines are none."""
    if source == "world":
        world = find_world()
        return [
            sentence.text for sentence in epoch_sentences(world, world.people, np.random.default_rng([world.seed, 4]))
        ]
    return (line for line in read_lines(_find_file(source, "text"), "text") if line.strip())


def find_guard_text(source: str, model: str) -> tuple[str, ...]:
    """What the guard of a run of `model` asks for perplexity: `world`'s own text, or the first lines of a file. The
    embedded model need not name one; another must, for the world's text says nothing of it."""
    if not source and model != "world":
        raise InputError(
            "guard: of a model other than world give --guard-text, a file with some lines of ordinary text"
        )
    if source in ("", "world"):
        return guard_text()
    return tuple(islice(find_text(source), GUARD_LINES))


def _is_world(source: str) -> bool:
    return source == "world" or re.match(r"world[/:]", source) is not None


def _number(source: str, count: str) -> int:
    if not count.isdecimal() or len(count) > 18:
        raise InputError(f"requests {source!r}: {count!r} is not a number of requests")
    return int(count)


def _find_file(source: str, holds: str) -> Path:
    """The file of that path, or of the downloaded data set of that name; a path that exists comes first."""
    path = Path(source)
    if is_there(path) or source not in DATASETS:
        if not is_there(path) and path.name == source and not path.suffix:
            raise InputError(f"{holds} {source!r}: neither a file nor a data set; prunejax get lists those")
        return path
    return find_dataset(source, holds)


def find_records(source: str) -> Path:
    """The folder of the `committed` records, or a folder by name; when `prunejax reproduce --live` has made all records
    again, the folder of those."""
    if os.environ.get("PRUNEJAX_LIVE"):
        return BUILD / "live-records"
    return RECORDS if source == "committed" else Path(source)


def figures_folder() -> Path:
    """Where a notebook saves its figures: what `prunejax reproduce` says, else build/figures; figures/ changes only
    when asked to."""
    return Path(os.environ.get("PRUNEJAX_FIGURES") or BUILD / "figures")
