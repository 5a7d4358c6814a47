"""Words of the command line as values; InputError says which word is wrong and what was expected."""

from collections.abc import Sequence
from pathlib import Path

import click

from prunejax.errors import InputError

OUT = click.Path(path_type=Path)
"""A file or folder, there or not yet."""


def say(line: str) -> None:
    """One line for the person at the terminal."""
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
    if not all(part.isdecimal() for part in split(text)) or not split(text):
        raise InputError(f"{option} {text!r}: whole numbers separated by commas were expected")
    return [int(part) for part in split(text)]


def parse_edits(text: str) -> list[int] | None:
    """Edit counts from --edits, None when it is not given."""
    return numbers(text, "--edits") if text else None
