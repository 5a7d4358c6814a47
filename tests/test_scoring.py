"""What a model is asked: the tasks that are named and no other, the same answers together as one by one."""

import pandas as pd
import pytest

from prunejax import scoring
from prunejax.models.checkpoints import Model
from prunejax.scoring import TASKS, Asked, ask, score, score_model
from prunejax.world.tasks import Item
from tiny_runs import REQUESTS


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "evaluation_items", lambda world: {"entailment": [Item("Ada is", "true")]})
    monkeypatch.setattr(scoring, "held_out_text", lambda: ["Ada lives in Rome."])


@pytest.mark.parametrize("task", TASKS)
def test_a_task_that_is_not_asked_is_not_laid_out(tiny_model: Model, task: str) -> None:
    alone = ask(tiny_model.tokenizer, REQUESTS[:2], [task])
    assert [name for name, part in alone._asdict().items() if part is not None] == [task]
    both = ask(tiny_model.tokenizer, REQUESTS[:2], TASKS).only([task])
    assert [name for name, part in both._asdict().items() if part is not None] == [task]
    assert both.only([]) == Asked()


def test_tasks_together_say_what_each_says_alone(tiny_model: Model) -> None:
    asked = ask(tiny_model.tokenizer, REQUESTS[:2], TASKS)
    together = score(tiny_model, asked)
    each = pd.concat([score(tiny_model, asked.only([task])) for task in TASKS], ignore_index=True)
    pd.testing.assert_frame_equal(together, each)
    pd.testing.assert_frame_equal(together, score_model(tiny_model, REQUESTS[:2], TASKS))
    assert {"efficacy", "ability:entailment", "perplexity"} <= set(together["metric"])
