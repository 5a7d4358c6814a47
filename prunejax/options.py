"""Words of the command line as values; InputError says which word is wrong and what was expected."""

import io
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from functools import wraps
from pathlib import Path
from typing import Any

import click

from prunejax.disk import telling
from prunejax.errors import InputError

OUT = click.Path(path_type=Path)
"""A file or folder, there or not yet."""


DIGITS = 18
"""The most digits of a number that means anything here: 64 bits hold it."""

SEED = click.IntRange(0, 2**32 - 1)
"""A seed: JAX takes larger ones for smaller ones."""

Verb = Callable[..., None]


def divided(place: str) -> Callable[[Verb], Verb]:
    """A verb with the option --mesh: what it loads is divided on that mesh, and of several processes the first alone
    prints and writes to the folder or file that the argument `place` names."""

    def with_mesh(verb: Verb) -> Verb:
        @click.option("--mesh", help="devices that share the model and the rows of a batch: data=1,model=8")
        @wraps(verb)
        def on_mesh(mesh: str | None, **words: Any) -> None:
            from prunejax.mesh import is_first, mesh_of, own_place

            with mesh_of(mesh), own_place(words[place]) as mine, ExitStack() as quiet:
                if not is_first():
                    quiet.enter_context(redirect_stdout(io.StringIO()))
                verb(**words | {place: mine})

        return on_mesh

    return with_mesh


DTYPE = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="what the weights are held in; edited ones are held in float32 beside them",
)


def finite(context: click.Context, option: click.Parameter, value: float) -> float:
    """The number, for an option that takes no other: click's ranges hold NaN and infinity."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.", context, option)
    return value


def say(line: str) -> None:
    """One line for the person at the terminal."""
    with telling("standard output"):
        click.echo(line)


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE texts as a mapping."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise InputError(f"--set {text!r}: write NAME=VALUE, for example --set steps=20")
        pairs[name.strip()] = value.strip()
    return pairs


def split(text: str) -> list[str]:
    """The parts of a comma-separated option."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers from a comma-separated option."""
    if not all(part.isdecimal() and len(part) <= DIGITS for part in split(text)) or not split(text):
        raise InputError(f"{option} {text!r}: whole numbers separated by commas were expected")
    return [int(part) for part in split(text)]


def parse_edits(text: str) -> list[int] | None:
    """Edit counts from --edits, None when it is not given."""
    return numbers(text, "--edits") if text else None
