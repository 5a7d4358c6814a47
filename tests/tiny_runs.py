"""A short run on the tiny model, as the tests of the run folder, of its points and of the verbs need one.

All runs share requests, contexts and settings, so that they share the one compiled program of an edit.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunejax.course import Plan
from prunejax.editors.rome import RomeSettings
from prunejax.models.checkpoints import Model
from prunejax.requests import EditRequest, Probe
from prunejax.run import Run
from prunejax.sequence import edit_sequence

TENSOR = "transformer.h.1.mlp.c_proj.weight"
CONTEXTS = ("{}", "I think that. {}")
SETTINGS = {"layers": (1,), "steps": 4, "lr": 8.0, "clamp": 100.0, "second_moment": "identity"}
"""Steps long enough that the accumulated update outgrows the weight, and a restraint has something to do."""


def request(case_id: str, prompt: str, subject: str, true: str, new: str, other: str) -> EditRequest:
    """An edit with a paraphrase, a probe and the neighbour `other`, of whom `true` holds too."""
    return EditRequest(
        case_id,
        prompt,
        subject,
        new,
        true,
        (f"I think that {prompt.format(subject)}",),
        (Probe(prompt.format(other), true),),
        (Probe(f"{subject} is", new),),
    )


REQUESTS = (
    request("007", "The capital of {} is", "France", "Paris", "Madrid", "Chad"),
    request("NA", "The capital of {} is", "Spain", "Madrid", "Rome", "France"),
    request("2", "{} lives in", "Ada Lovelace", "London", "Rome", "Grace Hopper"),
    request("3", "{} lives in", "Alan Turing", "Rome", "Paris", "Marie Curie"),
    request("4", "The mother tongue of {} is", "Ada Lovelace", "English", "Polish", "Grace Hopper"),
    request("5", "The mother tongue of {} is", "Marie Curie", "Polish", "English", "Alan Turing"),
    request("6", "{} is a", "Grace Hopper", "sailor", "capital", "Alan Turing"),
)
"""Seven edits; two case ids that a table reader would take for a number and for a missing value."""


def edit_tiny(
    folder: Path,
    model: Model,
    restrain: str = "",
    requests: Sequence[EditRequest] = REQUESTS,
    contexts: Sequence[str] = CONTEXTS,
    **changed: Any,
) -> Run:
    """The run in `folder`; `changed` are fields of the plan."""
    plan = Plan("rome", RomeSettings(**SETTINGS), restrain=restrain)
    return edit_sequence(folder, model, requests, replace(plan, **changed), contexts)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every path under `folder` with its bytes, None for folders: two equal ones mean that nothing changed."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}
