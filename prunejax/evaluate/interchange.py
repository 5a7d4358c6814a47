"""Interchange: whether the answer follows the subject's last token.

Locate-then-edit methods write at the subject's last token. That can change an answer only if the model carries the
fact through that token: what is put there after some layer must be what later tokens read.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pandas as pd

from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.models.layer import Patch
from prunejax.requests import EditRequest
from prunejax.tokens import pad_right, tokenize_fact


def interchange(model: Model, requests: Sequence[EditRequest]) -> pd.DataFrame:
    """For every layer but the last, the share of answers that follow a swap and that stay, 0-1, over n pairs.

    Each request is paired with the next one of the same prompt whose true object begins with another word. The
    residual stream at its subject's last token, after the layer, is replaced by the other's (Geiger et al. 2021,
    interchange intervention). `follows`: the arg-max is then the first token of the other's true object; `stays`: it is
    still that of its own. Misleads: a fact can be carried there and also elsewhere, so `follows` need not be 1 where
    edits succeed, and near 1 it says nothing of what the edited layer itself adds.
    """
    own, others = _pairs(requests)
    facts = [tokenize_fact(model.tokenizer, r.prompt, r.subject, r.target_true) for r in (*own, *others)]
    ids, positions = pad_right([fact.ids[: fact.target_start] for fact in facts])
    subject_last, ends = (np.array([getattr(f, name) for f in facts]) for name in ("subject_last", "target_start"))
    answers = np.array([fact.ids[fact.target_start] for fact in facts])
    n, each, n_layers = len(own), np.arange(len(facts)), model.config.n_layers
    run = partial(model.decoder.run_layers, start=0, stop=n_layers, overrides=model.overrides)
    embedded = model.decoder.embed(ids, positions)
    stream = run(embedded, positions, taps=("residual",)).taps["residual"][:, each, subject_last]
    rows = []
    for layer in range(n_layers - 1):
        swap = Patch(stream[layer, n:] - stream[layer, :n], jnp.asarray(subject_last[:n]), layer, "residual")
        swapped = run(embedded[:n], positions[:n], patches=(swap,)).residual[each[:n], ends[:n] - 1]
        said = np.argmax(model.decoder.unembed(swapped), axis=-1)
        rows.append((layer, n, np.mean(said == answers[n:]), np.mean(said == answers[:n])))
    return pd.DataFrame(rows, columns=["layer", "n", "follows", "stays"])


def _pairs(requests: Sequence[EditRequest]) -> tuple[list[EditRequest], list[EditRequest]]:
    by_prompt: dict[str, list[EditRequest]] = defaultdict(list)
    for request in requests:
        by_prompt[request.prompt].append(request)
    found = [
        pair
        for alike in by_prompt.values()
        for pair in pairwise(alike)
        if pair[0].target_true.split()[0] != pair[1].target_true.split()[0]
    ]
    if not found:
        raise InputError("interchange needs two requests with the same prompt and different true objects")
    return [own for own, _ in found], [other for _, other in found]
