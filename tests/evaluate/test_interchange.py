"""Interchange: the swap by hand, and which requests are paired."""

from dataclasses import replace

import numpy as np
import pytest

from prunejax.errors import InputError
from prunejax.evaluate.interchange import interchange
from prunejax.models.checkpoints import Model
from prunejax.tokens import tokenize_fact
from tiny_runs import REQUESTS


def swapped_answer(model: Model, own, other, layer: int) -> int:
    """What the model says of `own` when its subject's last token carries what `other`'s carries after `layer`."""
    streams, last = [], []
    for request in (own, other):
        fact = tokenize_fact(model.tokenizer, request.prompt, request.subject)
        tokens, positions = np.array([fact.ids]), np.arange(len(fact.ids))[None]
        residual = model.decoder.embed(tokens, positions)
        streams.append(model.decoder.run_layers(residual, positions, 0, layer + 1).residual)
        last.append((fact.subject_last, positions))
    (at, positions), (from_, _) = last
    stream = streams[0].at[0, at].set(streams[1][0, from_])
    after = model.decoder.run_layers(stream, positions, layer + 1, model.config.n_layers).residual
    return int(np.argmax(model.decoder.unembed(after[0, -1])))


def test_shares_are_those_of_swaps_by_hand(tiny_model: Model) -> None:
    """The other's object is the word that the model says with the swap, or another one."""
    own, other = REQUESTS[2], REQUESTS[3]
    for layer in (0, 1):
        said = swapped_answer(tiny_model, own, other, layer)
        word = tiny_model.tokenizer.decode([said]).strip()
        for true in {word, "Rome"} if word else {"Rome"}:
            pair = (replace(own, target_true="London"), replace(other, target_true=true))
            answer = tokenize_fact(tiny_model.tokenizer, other.prompt, other.subject, true)
            expected = answer.ids[answer.target_start] == said
            found = interchange(tiny_model, pair).set_index("layer").loc[layer]
            assert (found["n"], found["follows"]) == (1, expected)


def test_requests_are_paired_within_a_prompt_and_with_another_object(tiny_model: Model) -> None:
    found = interchange(tiny_model, REQUESTS)
    assert list(found.columns) == ["layer", "n", "follows", "stays"]
    assert found["layer"].tolist() == list(range(tiny_model.config.n_layers - 1))
    assert set(found["n"]) == {3}
    assert found[["follows", "stays"]].to_numpy().min() >= 0
    same = [replace(request, target_true="Rome") for request in REQUESTS]
    with pytest.raises(InputError, match="same prompt and different true objects"):
        interchange(tiny_model, same)
