"""The text that names a restraint during a run, and what is no such text."""

import pytest

from prunejax.errors import InputError
from prunejax.restraint import parse
from prunejax.schedule import Schedule, parse_schedule


def test_schedule():
    schedule = parse_schedule("log:1.2@50")
    assert (schedule.restraint, schedule.every, schedule.raw) == (parse("log:1.2"), 50, False)
    assert parse_schedule("rescale:log:e@1,raw") == Schedule(parse("rescale:log:e"), 1, raw=True)


@pytest.mark.parametrize(
    "spec",
    [
        "log:1.2",
        "log:1.2@",
        "@50",
        "log:1.2@0",
        "log:1.2@-5",
        "log:1.2@5.5",
        "clip@5,RAW",
        "clip@5,raw,raw",
        "clip@5@6",
    ],
)
def test_bad_schedule_is_one_clear_line(spec):
    with pytest.raises(InputError, match="SPEC@EDITS or SPEC@EDITS,raw") as caught:
        parse_schedule(spec)
    assert "\n" not in str(caught.value)


def test_bad_restraint_in_a_schedule_names_the_restraint():
    with pytest.raises(InputError, match="restraint 'log:1': BASE must be"):
        parse_schedule("log:1@50")
