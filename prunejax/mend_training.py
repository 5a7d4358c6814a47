"""Train MEND's hypernetwork: gradients of edits in, edits out that hold in other words and leave other facts alone."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jax import Array
from tqdm import tqdm

from prunejax.editors.gradient import Lines, gradient_factors, lines, log_probabilities, mean_nll
from prunejax.editors.hypernetwork import (
    Hypernetwork,
    Place,
    identity_network,
    places_of,
    save_hypernetwork,
)
from prunejax.editors.mend import edit_of
from prunejax.errors import InputError
from prunejax.files import remove_parts_of, write_through
from prunejax.models.checkpoints import Model
from prunejax.models.decoder import Decoder
from prunejax.progress import Progress, resumable
from prunejax.requests import EditRequest, digest
from prunejax.tokens import tokenize_completion
from prunejax.update import apply

CHECKS = 20
"""How often the held-out loss is measured, and all saved that training goes on from; the network of the lowest one is
kept."""


@dataclass(frozen=True)
class Training:
    """How the hypernetwork is trained. As published: 0.1 for the loss of the edit in other words, ten edits a step,
    clipping at 100. The weight of other facts (published: 1), rates, rank and the first alpha are ours, found on the
    held-out requests and on the `tune` pool: the published ones are for a model a thousand times larger."""

    layers: tuple[int, ...]
    rank: int = 32
    steps: int = 600
    edits: int = 10
    others: int = 8
    held_out: int = 50
    lr: float = 1e-4
    alpha: float = 1e-3
    alpha_lr: float = 1e-4
    edit_weight: float = 0.1
    other_weight: float = 5.0
    clip: float = 100.0


class Material(NamedTuple):
    """n edits with one line each: the edit itself, the same in other words (`phrasings` a request), a true statement of
    each request's fact, which is what other edits must leave alone, and a number [n] for its relation."""

    edit: Lines
    rephrased: Lines
    true: Lines
    relation: np.ndarray


def material(model: Model, requests: Sequence[EditRequest], phrasings: int = 3) -> Material:
    """The lines of requests that know their true answer and have at least `phrasings` paraphrases."""
    if short := [r.case_id for r in requests if len(r.paraphrases) < phrasings or r.target_true is None]:
        raise InputError(f"requests: {short[0]} has no true answer or fewer than {phrasings} paraphrases")
    pairs = (
        [(r.full_prompt, r.target_new) for r in requests],
        [(prompt, r.target_new) for r in requests for prompt in r.paraphrases[:phrasings]],
        [(r.full_prompt, r.target_true) for r in requests],
    )
    tokens = [[tokenize_completion(model.tokenizer, *pair) for pair in part] for part in pairs]
    width = max(len(one.ids) for part in tokens for one in part)
    relations = np.unique([request.prompt for request in requests], return_inverse=True)[1]
    return Material(*(lines(part, width) for part in tokens), relations)


def train_mend(
    model: Model,
    requests: Sequence[EditRequest],
    training: Training,
    seed: int,
    out: Path,
    note: Callable[[str], object] = warnings.warn,
) -> tuple[Path, pd.DataFrame]:
    """Write the hypernetwork to `out`; returns it and the course: step, loss on the training edits (mean since the last
    row) and on held-out ones, in nats, and the held-out share of targets that are the arg-max in other words.

    The last `held_out` requests of the order that the seed shuffles them into are never trained on. Inner gradients are
    taken at the unedited weights and are constants of the outer loss, as published; normalisation is that of the
    gradients of all training edits, measured once, where the published code averages as it goes.

    A training that was cut goes on from its last check, to the bit; `note` is told what a person should know of that.
    """
    with resumable(out, "network", note) as progress:
        known = {"work": "train-mend", "model": model.sha256, "dtype": model.dtype, "requests": digest(requests)}
        best, course = train(model, requests, training, seed, progress.of(**known, seed=seed, **asdict(training)))
        table = out.with_suffix(".csv")
        remove_parts_of(table)
        # The network comes last: whoever sees it has the course, too.
        write_through(table, lambda part: course.to_csv(part, index=False, float_format="%.4f"))
        save_hypernetwork(best, out)
    return out, course


def train(
    model: Model, requests: Sequence[EditRequest], training: Training, seed: int, progress: Progress
) -> tuple[Hypernetwork, pd.DataFrame]:
    """The hypernetwork of the lowest held-out loss, and the course (`train_mend`)."""
    places = places_of(training.layers)
    order = np.random.default_rng(seed).permutation(len(requests))
    learned, held = order[: -training.held_out], order[-training.held_out :]
    all_lines = material(model, requests)
    hypernetwork = initial(model, pick(all_lines, learned), training, places, seed)
    kernels = {place: model.weight(model.family.edited_tensor(*place)) for place in places}
    rates = optax.multi_transform(
        {"network": optax.adam(training.lr), "alpha": optax.adam(training.alpha_lr), "fixed": optax.set_to_zero()},
        labels(hypernetwork),
    )
    optimizer = optax.chain(optax.clip_by_global_norm(training.clip), rates)
    loss_of = partial(outer_loss, model.decoder, kernels, training=training, places=places)

    @jax.jit
    def update(hypernetwork: Hypernetwork, moments: optax.OptState, batch: tuple) -> tuple:
        loss, gradient = jax.value_and_grad(lambda h: loss_of(h, batch)[0])(hypernetwork)
        change, moments = optimizer.update(gradient, moments, hypernetwork)
        return optax.apply_updates(hypernetwork, change), moments, loss

    rng = np.random.default_rng([seed, 1])
    check = jax.jit(loss_of)
    trial = draw_batch(all_lines, held, held, np.random.default_rng([seed, 2]), training, len(held))
    moments, best, course, losses, done = optimizer.init(hypernetwork), (np.inf, hypernetwork), [], [], 0
    if saved := progress.load((hypernetwork, moments, best[1])):
        hypernetwork, moments, lowest = saved.arrays
        done, course, best = saved.place["step"], saved.place["course"], (saved.place["lowest"], lowest)
        rng.bit_generator.state = saved.place["drawing"]
    every = max(training.steps // CHECKS, 1)
    steps = range(done + 1, training.steps + 1)
    for step in tqdm(steps, total=training.steps, initial=done, desc="train mend", unit="step"):
        batch = draw_batch(all_lines, learned, learned, rng, training, training.edits)
        hypernetwork, moments, loss = update(hypernetwork, moments, batch)
        losses.append(loss)
        if step % every == 0 or step == training.steps:
            held_loss, said = map(float, check(hypernetwork, trial))
            course.append((step, float(np.mean(losses)), held_loss, said))
            best, losses = min(best, (held_loss, hypernetwork), key=lambda pair: pair[0]), []
            place = {"step": step, "course": course, "lowest": best[0], "drawing": rng.bit_generator.state}
            progress.save((hypernetwork, moments, best[1]), place)
    return best[1], pd.DataFrame(course, columns=["step", "loss", "held_out_loss", "held_out_top1"])


def initial(model: Model, edits: Material, training: Training, places: Sequence[Place], seed: int) -> Hypernetwork:
    """Networks that change nothing but the normalisation, which is that of these edits' gradients."""
    one = jax.jit(lambda rows: gradient_factors(model.decoder, {}, rows, places)[1])
    n = len(edits.edit.tokens)
    each = [one(pick(edits.edit, np.array([i]))) for i in range(n)]
    networks = {}
    for key, kernel in zip(jax.random.split(jax.random.key(seed)), ("up", "down"), strict=True):
        means, deviations = [], []
        for place in (place for place in places if place[1] == kernel):
            joined = np.concatenate([np.concatenate(found[place], axis=1) for found in each])
            read = joined[np.any(joined[:, -each[0][place][1].shape[1] :] != 0, axis=1)]
            means.append(read.mean(axis=0))
            deviations.append(read.std(axis=0) + 1e-7)
        mean, deviation = (jnp.asarray(np.stack(rows), jnp.float32) for rows in (means, deviations))
        networks[kernel] = identity_network(key, mean.shape[1], training.rank, mean, deviation)
    return Hypernetwork(networks, {place: jnp.asarray(training.alpha) for place in places})


def labels(hypernetwork: Hypernetwork) -> Hypernetwork:
    """What each part is to the optimizer: "network", "alpha", or "fixed" for the normalisation."""
    networks = {
        kernel: jax.tree.map(lambda _: "network", network)._replace(mean="fixed", deviation="fixed")
        for kernel, network in hypernetwork.networks.items()
    }
    return Hypernetwork(networks, dict.fromkeys(hypernetwork.alpha, "alpha"))


def outer_loss(
    decoder: Decoder,
    kernels: dict[Place, Array],
    hypernetwork: Hypernetwork,
    batch: tuple[Lines, Lines, Lines],
    *,
    training: Training,
    places: Sequence[Place],
) -> tuple[Array, Array]:
    """Mean over edits of edit_weight NLL(the edit in other words) + other_weight KL(unedited || edited) on other facts'
    answers, in nats; and the share of edits said by arg-max in other words. Lines are [n, rows, T]."""

    def one(edit: Lines, rephrased: Lines, others: Lines) -> tuple[Array, Array]:
        _, factors = gradient_factors(decoder, {}, edit, places)
        updates = edit_of(hypernetwork, jax.lax.stop_gradient(factors), 1.0)
        edited = {place: apply(kernels[place], update) for place, update in updates.items()}
        log_p = log_probabilities(decoder, edited, rephrased)
        before, after = (log_probabilities(decoder, overrides, others) for overrides in ({}, edited))
        divergence = jnp.sum(jnp.exp(before) * (before - after), axis=-1)
        learned = others.learned[:, 1:]
        kept = jnp.sum(divergence * learned) / jnp.sum(learned)
        right = (jnp.argmax(log_p, axis=-1) == rephrased.tokens[:, 1:]) | ~rephrased.learned[:, 1:]
        loss = training.edit_weight * mean_nll(log_p, rephrased) + training.other_weight * kept
        return loss, jnp.mean(jnp.all(right, axis=1))

    losses, said = jax.vmap(one)(*batch)
    return jnp.mean(losses), jnp.mean(said)


def draw_batch(
    everything: Material, edits: np.ndarray, others: np.ndarray, rng: np.random.Generator, training: Training, n: int
) -> tuple[Lines, Lines, Lines]:
    """n edits drawn without repeat, each with one phrasing and with true statements of others, half of them of the same
    relation, which an edit disturbs most; lines [n, rows, T]."""
    chosen = rng.choice(edits, n, replace=False)
    phrasings = len(everything.rephrased.tokens) // len(everything.edit.tokens)
    rephrased = chosen * phrasings + rng.integers(phrasings, size=n)
    apart = np.stack([draw_others(everything.relation, others[others != one], one, rng, training) for one in chosen])
    return (
        pick(everything.edit, chosen[:, None]),
        pick(everything.rephrased, rephrased[:, None]),
        pick(everything.true, apart),
    )


def draw_others(
    relation: np.ndarray, others: np.ndarray, one: int, rng: np.random.Generator, training: Training
) -> np.ndarray:
    """Numbers of requests to leave alone; where too few share the relation, others fill up."""
    alike = others[relation[others] == relation[one]]
    near = rng.choice(alike, min(training.others // 2, len(alike)), replace=False)
    rest = np.setdiff1d(others, near)
    return np.concatenate([near, rng.choice(rest, training.others - len(near), replace=False)])


def pick(parts: tuple, rows: np.ndarray) -> tuple:
    """The same rows of every array in a tuple of arrays, or of tuples of arrays."""
    return type(parts)(*(pick(part, rows) if isinstance(part, tuple) else part[rows] for part in parts))
