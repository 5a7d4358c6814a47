"""Score a model: what it is asked, laid out once for all its edited versions, and the case rows of its answers."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from prunejax.evaluate import abilities, editing, perplexity
from prunejax.evaluate.abilities import Exam
from prunejax.evaluate.editing import Prepared
from prunejax.evaluate.likelihood import Completions
from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.requests import EditRequest
from prunejax.sources import find_world
from prunejax.world.tasks import evaluation_items, held_out_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASKS = ("editing", "abilities", "perplexity")


class Asked(NamedTuple):
    """Everything one or many versions of a model are asked, a field a task; None is not asked."""

    editing: Prepared | None = None
    abilities: Exam | None = None
    perplexity: Completions | None = None

    def only(self, tasks: Collection[str]) -> "Asked":
        """The same of these tasks alone."""
        return Asked(**{task: part for task, part in self._asdict().items() if task in tasks})


def ask(tokenizer: "PreTrainedTokenizerBase", requests: Sequence[EditRequest], tasks: Collection[str]) -> Asked:
    """What `tasks` ask: the requests, the embedded world's held-out items, its held-out text."""
    return Asked(
        editing.prepare(tokenizer, requests) if "editing" in tasks else None,
        abilities.prepare(tokenizer, evaluation_items(find_world())) if "abilities" in tasks else None,
        perplexity.prepare(tokenizer, held_out_text()) if "perplexity" in tasks else None,
    )


def score(model: Model, asked: Asked) -> pd.DataFrame:
    """Case, metric and value of one model: editing scores, abilities, and the perplexity of the text, as far as they
    are asked. Abilities and perplexity ask about the embedded world: of another model they say nothing."""
    forward, parts = forward_of(model), []
    if asked.editing is not None:
        parts.append(editing.editing_scores(forward, asked.editing))
    if asked.abilities is not None:
        parts.append(abilities.ability_scores(forward, asked.abilities))
    if asked.perplexity is not None:
        value = perplexity.perplexity(forward, asked.perplexity)
        parts.append(pd.DataFrame([{"case": "all", "metric": "perplexity", "value": value}]))
    return pd.concat(parts, ignore_index=True)


def score_model(model: Model, requests: Sequence[EditRequest], tasks: Collection[str]) -> pd.DataFrame:
    """`score` of what these tasks `ask`, for one model alone."""
    return score(model, ask(model.tokenizer, requests, tasks))
