"""What the command line's and the notebooks' short words mean: `world`, `world/tune:100`, a folder, a file,
`committed` records."""

import os
import re
from pathlib import Path

import numpy as np

from prunejax.errors import InputError
from prunejax.files import read_text
from prunejax.models.checkpoints import Model, load_model
from prunejax.requests import EditRequest, draw, read_requests
from prunejax.world.facts import World, edit_requests, load_world
from prunejax.world.text import epoch_sentences

DATA = Path(__file__).resolve().parents[1] / "data"

WORLD_FOLDER = DATA / "world"
"""The embedded model, its tokenizer and its facts."""

RECORDS = DATA / "records"
"""The committed records, from which figures are drawn."""

BUILD = DATA.parent / "build"
"""What can be thrown away: runs behind the records, drafts of figures and notebooks."""

WORLD_MOMENTS = DATA / "moments"
"""Second moments of the embedded model's keys over an epoch of the world's text, a file a layer."""


WORLD_NETWORK = DATA / "mend" / "world.safetensors"
"""MEND's hypernetwork for the embedded model."""


def find_network(name: str) -> Path:
    """The file of the hypernetwork called `world`, or a file by name."""
    return WORLD_NETWORK if name == "world" else Path(name)


def find_model(name: str) -> Model:
    """The model called `world`, or the one in a Hugging Face folder."""
    if name != "world" and not Path(name).is_dir():
        raise InputError(
            f"model {name!r}: neither 'world' nor a folder; give a Hugging Face folder of the GPT-2 family"
        )
    return load_model(WORLD_FOLDER if name == "world" else name)


def find_world() -> World:
    """The embedded world's facts."""
    return load_world(WORLD_FOLDER / "world.json")


def find_requests(source: str, seed: int) -> tuple[EditRequest, ...]:
    """The requests of `world[/POOL][:N]` (the pool's order shuffled by the seed, the first N), or of a file in its
    own order."""
    if source == "world" or re.match(r"world[/:]", source):
        match = re.fullmatch(r"world(?:/([^:]*))?(?::(.*))?", source)
        pool, count = match[1] or "report", match[2]
        world = find_world()
        world.pool(pool)
        if pool == "control":
            raise InputError(
                "pool 'control': is never edited, neighbours and questions come from it; take report, tune or train"
            )
        requests = edit_requests(world, pool)
        if count is not None and not count.isdecimal():
            raise InputError(f"requests {source!r}: {count!r} is not a number of requests")
        return draw(requests, len(requests) if count is None else int(count), seed)
    return read_requests(source)


def find_text(source: str) -> list[str]:
    """The texts of `world` (an epoch of the world's text that training did not draw) or of a file, one a line."""
    if source == "world":
        world = find_world()
        return [
            sentence.text for sentence in epoch_sentences(world, world.people, np.random.default_rng([world.seed, 4]))
        ]
    return [line for line in read_text(source, "text").splitlines() if line.strip()]


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
