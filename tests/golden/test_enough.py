"""The committed moment rows of TinyStories-656K, whose checkpoint lies with the reference numbers, measured again."""

from pathlib import Path

import pandas as pd

from prunejax.enough import nested_moments
from prunejax.enough_live import held_against
from prunejax.enough_records import FILE, Trial, moment_rows
from prunejax.models.checkpoints import load_model
from prunejax.records import read_records
from prunejax.sources import RECORDS, find_requests, find_text


def test_a_shuffle_of_tinystories_is_what_was_recorded(shared: Path) -> None:
    model = load_model(shared / "data" / "models" / "TinyStories-656K")
    texts = tuple(find_text(str(shared / "data" / "text" / "wiki.test.raw")))
    requests = find_requests(f"{shared / 'data' / 'counterfact' / 'counterfact-edit.json'}:50", 1)
    records = read_records(RECORDS / FILE)
    rows = records[(records["model"] == model.name) & (records["seed"] == 1)]
    counts = [5 * model.config.d_ff, 10 * model.config.d_ff, int(rows["keys"].max())]
    trial = Trial("wiki.test.raw", texts, "counterfact-edit.json:50", {1: requests}, 0, (0.0, 1.0))
    live = pd.DataFrame(moment_rows(model, list(nested_moments(model, texts, 0, counts, 1)), trial, 1))
    check = held_against(records, live, model.name, 1)
    assert check.agrees, check.rows[~check.rows["agrees"]]
    assert len(check.rows) == 24
    assert not held_against(records, live, model.name, 2).agrees
