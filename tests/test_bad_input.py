"""Bad input, everywhere: one line that says what is wrong, status 2, and nothing is touched, made or run."""

import pytest

from bad_inputs import configs, contexts, deltas, moments, options, requests, run_files, runs, weights
from desk import Call, Desk
from tiny_runs import contents

TABLES = {
    "requests": requests,
    "contexts": contexts,
    "moments": moments,
    "config": configs,
    "weights": weights,
    "run": runs,
    "run file": run_files,
    "delta": deltas,
    "options": options,
}
BAD = {f"{kind}: {name}": row for kind, table in TABLES.items() for name, row in table.BAD.items()}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_status_2_and_touches_nothing(call: Call, desk: Desk, name: str) -> None:
    make, complaint = BAD[name]
    words = make(desk)
    before = contents(desk.root), contents(desk.model)
    ended = call(*words)
    assert ended.err.startswith("prunejax: ")
    assert ended.err.count("\n") == 1
    assert len(ended.err) < 2000
    assert complaint in ended.err
    assert ended.status == 2
    assert ended.out == ""
    assert (contents(desk.root), contents(desk.model)) == before
