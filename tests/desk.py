"""A desk for the tests of the verbs: a folder with all that an edit reads, and a run; and how a verb ended."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from prunejax.requests import write_requests
from tiny import TEXTS
from tiny_runs import CONTEXTS, REQUESTS, SETTINGS


class Ended(NamedTuple):
    """How a verb ended: its exit status and what it wrote to the two streams."""

    status: int
    out: str
    err: str


Call = Callable[..., Ended]


class Desk(NamedTuple):
    """A folder with all that an edit reads, and a finished run."""

    root: Path
    model: Path

    @property
    def run(self) -> Path:
        return self.root / "run"

    def edit(self, **changed: object) -> list[object]:
        """The words of the edit that made the run, some options changed; None drops one, a list repeats it."""
        values = {name: ",".join(map(str, v)) if isinstance(v, tuple) else v for name, v in SETTINGS.items()}
        options: dict[str, object] = {
            "model": self.model,
            "requests": self.root / "requests.jsonl",
            "editor": "rome",
            "set": [f"{name}={value}" for name, value in values.items()],
            "contexts": self.root / "contexts.json",
            "out": self.run,
        } | changed
        words: list[object] = ["edit"]
        for name, value in options.items():
            for one in value if isinstance(value, list) else [value]:
                words += [] if one is None else [f"--{name.removesuffix('_')}", one]
        return words


def prepare_desk(root: Path, model: Path) -> Desk:
    root.mkdir(exist_ok=True)
    write_requests(root / "requests.jsonl", REQUESTS)
    (root / "contexts.json").write_text(json.dumps(CONTEXTS))
    (root / "text.txt").write_text("\n\n".join(TEXTS))
    return Desk(root, model)
