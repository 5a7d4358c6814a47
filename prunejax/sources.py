"""What the command line's short words mean: `world`, `world/tune:100`, a folder, a file."""

import re
from pathlib import Path

from prunejax.errors import InputError
from prunejax.models.checkpoints import Model, load_model
from prunejax.requests import EditRequest, draw, read_requests
from prunejax.world.facts import World, edit_requests, load_world

WORLD_FOLDER = Path(__file__).resolve().parents[1] / "data" / "world"
"""The embedded model, its tokenizer and its facts."""


def find_model(name: str) -> Model:
    """The model called `world`, or the one in a Hugging Face folder."""
    if name != "world" and not Path(name).is_dir():
        raise InputError(f"model {name!r}: neither 'world' nor a folder; give a Hugging Face folder of the GPT-2 family")
    return load_model(WORLD_FOLDER if name == "world" else name)


def find_world() -> World:
    """The embedded world's facts."""
    return load_world(WORLD_FOLDER / "world.json")


def find_requests(source: str, seed: int) -> tuple[EditRequest, ...]:
    """The requests of `world[/POOL][:N]` (the pool's order shuffled by the seed, the first N), or of a file in its own order."""
    if source == "world" or re.match(r"world[/:]", source):
        match = re.fullmatch(r"world(?:/([^:]*))?(?::(.*))?", source)
        pool, count = match[1] or "report", match[2]
        world = find_world()
        world.pool(pool)
        if pool == "control":
            raise InputError("pool 'control': is never edited, neighbours and questions come from it; take report, tune or train")
        requests = edit_requests(world, pool)
        if count is not None and not count.isdecimal():
            raise InputError(f"requests {source!r}: {count!r} is not a number of requests")
        return draw(requests, len(requests) if count is None else int(count), seed)
    return read_requests(source)
