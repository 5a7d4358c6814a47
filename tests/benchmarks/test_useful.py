"""Useful operations against a count by hand, and those of the published code against PyTorch's own counter."""

from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.rates import Refusal, Work, reached, refuse_below
from benchmarks.recipe import Job, Recipe
from benchmarks.useful import Row, costs, memit_work, rome_work, rows_of, spread_work
from benchmarks.whole import rome_whole
from prunejax.models.config import DecoderConfig
from tiny import EDITS, TEMPLATES, save_tiny

SMALL = DecoderConfig(n_layers=4, n_heads=2, d_model=4, d_ff=8, vocab_size=10, n_positions=32)
RECIPE = Recipe(layers=(1,), steps=3)


def test_a_layer_costs_two_operations_a_weight() -> None:
    assert costs(SMALL) == (32, 64, 32, 64, 64, 16)
    gated = DecoderConfig(4, 4, 8, 16, 10, 32, n_kv_heads=2, d_head=4, gated=True)
    assert costs(gated) == (2 * 8 * 16, 2 * 2 * 8 * 8, 2 * 16 * 8, 2 * 2 * 8 * 16, 2 * 16 * 8, 4 * 16)


def test_the_rows_of_a_request(tiny_model) -> None:
    """The rows of "{} lives in the", Ada Lovelace, whose target has several tokens."""
    tokenizer, (_, request, last) = tiny_model.tokenizer, EDITS
    rows = rows_of(tokenizer, request, TEMPLATES)
    after = len(tokenizer(" lives in the")["input_ids"])
    target = len(tokenizer(" " + request.target_new)["input_ids"])
    subject = len(tokenizer(request.subject)["input_ids"])
    assert rows[0] == (0, subject - 1, 1 + after + target - 1, target)
    assert [row.template for row in rows] == [0, *(len(tokenizer(t[:-3])["input_ids"]) for t in TEMPLATES[1:]), 0]
    assert rows[-1] == (0, subject - 1, 1, 1)
    assert all(row.suffix == rows[0].suffix for row in rows[:-1])
    assert rows_of(tokenizer, last, ["{}"])[0].suffix == len(tokenizer(" Madrid")["input_ids"])


def test_rome_by_hand() -> None:
    """One context: two tokens of a prefix, one before the subject's last, three from there on of which one is read; and
    the KL row: one token, then the subject's last. A layer is 256 a token and 16 a pair; the edit is in layer 1 of 4.

    Below (layers 0 and 1): 4 + 2 tokens; of the first row they see 3 + 4 + 5 + 6 tokens, of the other 1 + 2.
    Once: the tokens before the subject's last, one a row, in layer 2 (they see 3 and 1 tokens), and their keys and
    values in layer 3; two tokens of the suffix have the same queries, keys and values in layer 2 in every evaluation.
    The prefix: layer 1's down projection, layer 2 (1 + 2 tokens are seen), keys and values in layer 3.
    Layer 2 of an evaluation: q, k, v of one token a row, o and MLP of 3 + 1; seen are 4 + 5 + 6 and 2.
    Layer 3: keys and values of 3 + 1 tokens, all else of one that is read in each row; seen are 6 and 2.
    A gradient: the same, and once more the pairs within the suffix: layer 2 1 + 2 + 3 and 1, layer 3 3 and 1.
    """
    rows = [Row(2, 1, 3, 1), Row(0, 1, 1, 1)]
    below = 2 * (6 * 256 + 21 * 16)
    before = 2 * 256 + 4 * 16 + 2 * 64 + 2 * 96
    prefix = 2 * 64 + 2 * 256 + 3 * 16 + 2 * 64
    forward = (2 * 96 + 4 * 160 + 17 * 16) + (4 * 64 + 2 * 192 + 8 * 16)
    backward = forward + (7 + 4) * 16
    solve, head = 2 * 8 * 8, 2 * 2 * 4 * 10
    once, loop, logits = rome_work(SMALL, rows, RECIPE)
    assert once == Work(below + before + prefix + solve, (6, 4, 8))
    assert loop == Work(3 * forward + 2 * backward, (4, 4, 8))
    assert logits == Work(5 * head, (2, 4, 10))


def test_memit_of_one_layer_and_request_is_rome_s_value_step_and_its_own_solve() -> None:
    rows = [Row(2, 1, 3, 1), Row(0, 1, 1, 1)]
    both = rome_work(SMALL, rows, RECIPE), memit_work(SMALL, [rows], RECIPE)
    rome, memit = (sum(work.flops for work in works) for works in both)
    assert memit - rome == 4 * 8 + 2 * 8 * 4


def test_memit_between_two_layers_by_hand() -> None:
    """Layers 0 and 1, two requests of two rows: what is read behind the first solve, up to the subject's last token:
    the prefix once. In layer 0 the down projection; in layer 1 keys and values of all, q, o and up of the subject; then
    of the bare prompts (the first rows) layer 1's down projection for the residual stream behind it."""
    request = [Row(0, 1, 3, 1), Row(2, 1, 3, 1), Row(0, 1, 1, 1)]
    recipe = RECIPE._replace(layers=(0, 1))
    tokens, subjects, seen = 2 + 2 * (2 + 2), 2 * 2, 2 * (2 + 4)
    expected = tokens * 64 + tokens * 64 + subjects * (32 + 32 + 64) + seen * 16 + 4 * 64
    assert spread_work(SMALL, [request, request], recipe) == expected


def test_the_published_code_does_what_is_counted(torch: ModuleType, tmp_path: Path) -> None:
    """Of PyTorch's counter every product of one edit; attention in its plain form, which the counter knows."""
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.original_model import load_original
    from benchmarks.original_rome import rome_edit

    folder = save_tiny(tmp_path / "tiny")
    original = load_original(folder)
    original.model.set_attn_implementation("eager")
    config = DecoderConfig(3, 2, 16, 64, original.model.config.vocab_size, 64)
    recipe = RECIPE._replace(layers=(0,))
    for request in (EDITS[0], EDITS[2]):  # the published code cannot part a character of several tokens
        with FlopCounterMode(display=False) as counter:
            rome_edit(original, request, TEMPLATES, torch.eye(64), recipe)
        rows = rows_of(original.tokenizer, request, TEMPLATES)
        counted = sum(work.flops for work in rome_whole(config, rows, recipe))
        assert counted - 2 * 64**2 == counter.get_total_flops()  # it leaves out the product with a vector


def test_a_rate_is_weighed_by_time_and_a_slow_side_is_refused() -> None:
    rates = {(1, 1, 1): 1e9, (2, 2, 2): 4e9}
    found = reached([Work(1e9, (1, 1, 1)), Work(4e9, (2, 2, 2))], rates.get, 4.0)
    assert found == (5.0, 2.5, 0.5)
    refuse_below("rome", 0.35)
    with pytest.raises(Refusal, match=r"rome: PyTorch reached 34% of its own matrix-product rate, under 35%"):
        refuse_below("rome", 0.34)


def test_jobs_are_told_apart_by_everything_they_hold(tmp_path: Path) -> None:
    """A side keeps what it has loaded by its job."""
    jobs = {Job(tmp_path, RECIPE), Job(tmp_path, RECIPE, dtype="bfloat16"), Job(tmp_path, RECIPE._replace(steps=2))}
    assert len(jobs) == 3
