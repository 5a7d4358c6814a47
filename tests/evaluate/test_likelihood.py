"""Likelihoods: each row run once, each answer scored as if it were alone."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunejax.errors import InputError
from prunejax.evaluate.likelihood import host_rows, lay_out, likelihoods
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import logits
from prunejax.models.forward import forward_of
from prunejax.tokens import CompletionTokens, pad_right

PROMPT = (5, 6, 7)
COMPLETIONS = [
    CompletionTokens((*PROMPT, 8), 3),
    CompletionTokens((*PROMPT, 9), 3),
    CompletionTokens((*PROMPT, 8, 10, 11), 3),
    CompletionTokens((*PROMPT, 12, 10), 3),
    CompletionTokens((*PROMPT, 8, 10, 11, 12, 13), 6),
    CompletionTokens((20, 21), 1),
    CompletionTokens((*PROMPT, 8), 3),
]


whole_logits = jax.jit(logits)


def alone(model: Model, ids: tuple[int, ...]) -> np.ndarray:
    """Logits [T, V] of one row, in a width that serves all rows here."""
    tokens, positions = pad_right([ids], 8)
    return np.asarray(whole_logits(model.decoder, tokens, positions)[0, : len(ids)], np.float64)


def oracle(model: Model, ids: tuple[int, ...], start: int) -> tuple[float, bool]:
    """One answer, its row alone, a token at a time, in float64."""
    seen = alone(model, ids)
    total, top1 = 0.0, True
    for i in range(start, len(ids)):
        p = np.exp(seen[i - 1]) / np.exp(seen[i - 1]).sum()
        total -= np.log(p[ids[i]])
        top1 &= int(seen[i - 1].argmax()) == ids[i]
    return total / (len(ids) - start), bool(top1)


@pytest.mark.parametrize(("tokens", "reads"), [(1, 512), (9, 3), (1536, 512)])
@pytest.mark.parametrize("padded", [False, True])
def test_every_answer_scores_as_if_alone(tiny_model: Model, tokens: int, reads: int, padded: bool) -> None:
    """In batches of one row, of a few, all together; in a model that runs packed rows, and in one that cannot."""
    best = int(alone(tiny_model, PROMPT)[-1].argmax())
    completions = [*COMPLETIONS, CompletionTokens((*PROMPT, best), 3), CompletionTokens((*PROMPT, best, best), 3)]
    expected = [oracle(tiny_model, *completion) for completion in completions]
    forward = forward_of(tiny_model)
    forward = replace(forward, run_packed=None) if padded else forward
    nll, top1 = likelihoods(forward, lay_out(completions, tokens, reads))
    np.testing.assert_allclose(nll, [mean for mean, _ in expected], rtol=1e-5)
    assert top1.tolist() == [hit for _, hit in expected]
    assert top1.any()


def test_every_beginning_is_run_once() -> None:
    laid = lay_out(COMPLETIONS)
    (batch,) = laid.batches
    run = batch.ids[batch.positions >= 0]
    assert run.tolist() == [*PROMPT, 8, 10, 11, 12, 12, 20]
    n = len(batch.ids)
    rows = [batch.ids[slots[slots < n]].tolist() for slots in batch.packing.slot]
    assert [row for row in rows if row] == [[*PROMPT, 8, 10, 11, 12], [*PROMPT, 12], [20]]
    assert len(set(batch.reads.index[np.unique(batch.slots[batch.owner >= 0])])) == 7, "each is read once"
    assert laid.longest == 7
    assert laid.n_tokens.tolist() == [1, 1, 3, 2, 2, 1, 1]


def test_batches_keep_within_their_limits_and_have_one_shape() -> None:
    """Of 9 tokens and 7 that are read."""
    laid = lay_out(COMPLETIONS, tokens=7, reads=5)
    assert len(laid.batches) == 2
    for batch in laid.batches:
        assert (batch.positions >= 0).sum() <= 7
        assert len(np.unique(batch.slots[batch.owner >= 0])) <= 5
    one, other = (jax.tree.map(np.shape, batch) for batch in laid.batches)
    assert one == other


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple)))
def test_host_rows(rows: list[tuple[int, ...]]) -> None:
    hosts = host_rows(rows)
    assert set(hosts) == set(rows)
    for row, host in hosts.items():
        assert host[: len(row)] == row
        assert not [other for other in rows if other != host and other[: len(host)] == host]


def test_a_row_beyond_the_positions_is_refused(tiny_model: Model) -> None:
    fits = CompletionTokens(tuple([5] * 65), 64)
    assert np.isfinite(likelihoods(forward_of(tiny_model), lay_out([fits])).nll).all()
    with pytest.raises(InputError, match="65 tokens does not fit into the model's 64 positions"):
        likelihoods(forward_of(tiny_model), lay_out([CompletionTokens(tuple([5] * 66), 65)]))
