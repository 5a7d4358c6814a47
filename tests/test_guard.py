"""What a guard is, and when it calls a model broken."""

import math

import pytest

from prunejax.errors import InputError
from prunejax.guard import Guard, Look, broken, parse_guard

WHOLE = Look(perplexity=3.0, ratio=1.0, norm=0.5, denominator=4.0, held=0.9)


def test_a_guard_is_what_its_words_say() -> None:
    assert parse_guard("") is None
    assert parse_guard("rollback@10") == Guard("rollback", 10)
    said = "stop@50,perplexity=1.5,norm=0.7,denominator=0.1,held=0.5,most=3"
    assert parse_guard(said) == Guard("stop", 50, 1.5, 0.7, 0.1, 0.5, 3)


@pytest.mark.parametrize(
    "spec",
    [
        *("rollback", "rollback@0", "rollback@-1", "rollback@1.5", "undo@10", "@10", "rollback@10,", "rollback@10,2"),
        *("rollback@10,perplexity", "rollback@10,perplexity=", "rollback@10,perplexity=nan", "rollback@10,kappa=1"),
        *("rollback@10,perplexity=1", "stop@1,held=1.5", "stop@1,held=-0.1", "stop@1,most=0", "stop@1,most=2.5"),
        *("stop@1,norm=-1", "stop@1,denominator=nan", "stop@1,held=0.5,held=0.6", "stop@1,every=2", "stop@9999999999"),
    ],
)
def test_other_words_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match="guard"):
        parse_guard(spec)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"ratio": 1.5}, ""),
        ({"ratio": 2.1}, "perplexity 2.1 times that of the unedited model (at most 1.5)"),
        ({"ratio": math.nan}, "perplexity nan times"),
        ({"ratio": math.inf}, "perplexity inf times"),
        ({"norm": 3.1}, "an update of 3.1 times the norm of the weight (at most 3)"),
        ({"norm": math.nan}, "an update of nan times"),
        ({"denominator": 0.09}, "a denominator of 0.09 (at least 0.1)"),
        ({"denominator": math.nan}, "a denominator of nan"),
        ({"held": 0.4}, "40% of the edits are held (at least 50%)"),
    ],
)
def test_a_model_is_broken_past_a_threshold(changed: dict[str, float], said: str) -> None:
    found = broken(Guard("stop", 1, norm=3.0, denominator=0.1, held=0.5), WHOLE._replace(**changed))
    assert said in found
    assert bool(found) == bool(said)


def test_what_has_no_threshold_is_not_asked() -> None:
    assert broken(Guard("stop", 1), Look(3.0, 1.0, 1e9, math.nan, 0.0)) == ""
