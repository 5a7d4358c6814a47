"""Slow, obvious versions that the tests hold the package against: float64, one number, one row, one step at a time."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def restrained_value(spec: str, s: float, m: float) -> float:
    """F(s) for one singular value, written out case by case (rescale needs all of them: see `restrained_delta`)."""
    if s < m or spec == "none":
        return s
    if spec == "linear":
        return (s + m) / 2
    if spec == "clip":
        return m
    name, base = spec.split(":")
    base = math.e if base == "e" else float(base)
    if name == "log":
        return math.log(s, base) - math.log(m, base) + m
    assert name == "scaled-log"
    return m + m * math.log(s / m, base)


def restrained_delta(spec: str, delta: np.ndarray, m: float) -> np.ndarray:
    """The restrained update: a full SVD, then one rank-one matrix a singular value, added up."""
    delta = np.asarray(delta, np.float64)
    if spec.startswith("rescale:"):
        inner = restrained_delta(spec.removeprefix("rescale:"), delta, m)
        return delta * (np.linalg.norm(inner) / np.linalg.norm(delta))
    if spec.startswith("added:"):
        return delta + restrained_delta(spec.removeprefix("added:"), delta, m)
    left, sigma, right = np.linalg.svd(delta)
    if spec.startswith("truncated:"):
        _, tolerance, spec = spec.split(":", 2)
        kept = sigma > float(tolerance) * sigma[0]
        delta = sum(s * np.outer(left[:, i], right[i]) for i, s in enumerate(sigma) if kept[i])
        return restrained_delta(spec, delta, m)
    total = np.zeros_like(delta)
    for i, s in enumerate(sigma):
        total += restrained_value(spec, float(s), m) * np.outer(left[:, i], right[i])
    return total


def restrained_weight(spec: str, original: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """From the two weights, as somebody would who kept nothing else: W_0 + F(W_n - W_0), threshold sigma_max(W_0)."""
    original, edited = np.asarray(original, np.float64), np.asarray(edited, np.float64)
    m = float(np.linalg.svd(original, compute_uv=False)[0])
    return original + restrained_delta(spec, edited - original, m)


def projector(vectors: np.ndarray) -> np.ndarray:
    """The orthogonal projector onto the span of the columns of `vectors` (linearly independent)."""
    vectors = np.asarray(vectors, np.float64)
    return vectors @ np.linalg.inv(vectors.T @ vectors) @ vectors.T


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    """||actual - expected|| / ||expected|| in the Frobenius norm, NaN where anything is NaN."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def with_spectrum(rng: np.random.Generator, d_in: int, d_out: int, sigma: list[float]) -> np.ndarray:
    """A random [d_in, d_out] matrix, float64, with the given non-zero singular values."""
    left = np.linalg.qr(rng.normal(size=(d_in, len(sigma))))[0]
    right = np.linalg.qr(rng.normal(size=(d_out, len(sigma))))[0]
    return left @ np.diag(sigma) @ right.T


def rotation(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random orthogonal matrix [size, size], float64."""
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


class Seen(NamedTuple):
    """What a GPT-2 computes on one row: logits [T, V]; of each layer keys [T, d_ff], values and residuals [T, d]."""

    logits: Any
    keys: list
    values: list
    residuals: list
    attentions: list


def gpt2(
    tensors: Mapping[str, Any],
    ids: Sequence[int],
    n_heads: int,
    *patches: tuple[int, str, int, Any],
    xp: ModuleType = np,
) -> Seen:
    """GPT-2 from a checkpoint's own tensors on one unpadded row (epsilon 1e-5, tanh gelu, tied output matrix).

    A patch is (layer, "attention", "value" or "residual", column, vector): what is added to the attention's, the MLP's
    or the block's output.
    """
    w = {name.removeprefix("transformer."): xp.asarray(array, xp.float64) for name, array in tensors.items()}
    n_layers = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("h."))
    length = len(ids)
    column = xp.arange(length)[:, None]

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        scale = xp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def patched(x: Any, layer: int, site: str) -> Any:
        for patch in patches:
            if patch[:2] == (layer, site):
                x = x + (column == patch[2]) * xp.asarray(patch[3], xp.float64)
        return x

    h = w["wte.weight"][xp.asarray(ids)] + w["wpe.weight"][:length]
    seen = Seen(None, [], [], [], [])
    for layer in range(n_layers):
        q, k, v = xp.split(linear(norm(h, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn"), 3, axis=-1)
        heads = []
        for qh, kh, vh in zip(*(xp.split(x, n_heads, axis=-1) for x in (q, k, v)), strict=True):
            scores = xp.where(column >= column.T, qh @ kh.T / math.sqrt(qh.shape[-1]), -math.inf)
            weights = xp.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ vh)
        attention = patched(linear(xp.concatenate(heads, -1), f"h.{layer}.attn.c_proj"), layer, "attention")
        h = h + attention
        x = linear(norm(h, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc")
        key = 0.5 * x * (1 + xp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        value = patched(linear(key, f"h.{layer}.mlp.c_proj"), layer, "value")
        h = patched(h + value, layer, "residual")
        for kept, x in zip(seen[1:], (key, value, h, attention), strict=True):
            kept.append(x)
    return seen._replace(logits=norm(h, "ln_f") @ w["wte.weight"].T)


def log_softmax(logits: Any, xp: ModuleType = np) -> Any:
    """log p over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(-1, keepdims=True))


class Search(NamedTuple):
    """A search for a target value: v0 and delta at the last site, total loss at every evaluation, the last mean NLL,
    and at which evaluations the target was said in every context."""

    v0: np.ndarray
    deltas: list[np.ndarray]
    losses: list[float]
    nll: float
    said: list[bool]


def search_target_value(
    tensors: Mapping[str, np.ndarray],
    n_heads: int,
    facts: Sequence[tuple[Sequence[int], int, int]],
    tail: tuple[Sequence[int], int],
    settings: Any,
) -> Search:
    """The value step: at every evaluation the whole model on whole prompts, a delta added at each of the sites.

    facts: (ids with the target, column of the subject's last token, where the target starts) of each context, the bare
    prompt first; tail: (ids, column) of "{subject} is a". Adam with betas 0.9 and 0.999, epsilon 1e-8.
    """
    sites = settings.sites
    with jax.enable_x64(True):
        tensors = {name: jnp.asarray(array, jnp.float64) for name, array in tensors.items()}
        width = max(len(ids) for ids, *_ in [*facts, tail])
        rows = jnp.asarray([[*ids, *[0] * (width - len(ids))] for ids, *_ in [*facts, tail]])  # nothing looks ahead
        columns = jnp.asarray([column for _, column, *_ in [*facts, tail]])
        bare = gpt2(tensors, facts[0][0], n_heads, xp=jnp)
        stands = {"attention": bare.attentions, "value": bare.values, "residual": bare.residuals}
        v0 = jnp.stack([stands[site][settings.layer][facts[0][1]] for site in sites])
        unedited = log_softmax(gpt2(tensors, tail[0], n_heads, xp=jnp).logits[tail[1]], jnp)
        start = [start for *_, start in facts]
        labels = jnp.asarray(facts[0][0][start[0] :])

        @jax.jit
        @partial(jax.value_and_grad, has_aux=True)
        def evaluate(delta: Any) -> tuple[Any, Any]:
            def logits(ids: Any, column: Any) -> Any:
                patches = [(settings.layer, site, column, one) for site, one in zip(sites, delta, strict=True)]
                return gpt2(tensors, ids, n_heads, *patches, xp=jnp).logits

            log_p = log_softmax(jax.vmap(logits)(rows, columns), jnp)
            read = [log_p[r, s - 1 : s - 1 + len(labels)] for r, s in enumerate(start)]
            nll = jnp.asarray([-part[jnp.arange(len(labels)), labels].mean() for part in read]).mean()
            said = jnp.all(jnp.stack([jnp.argmax(part, axis=-1) == labels for part in read]))
            edited = log_p[-1, tail[1]]
            kl = (jnp.exp(edited) * (edited - unedited)).sum()
            square = (delta**2).sum(-1)
            length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
            decay = settings.weight_decay * (length / (v0**2).sum(-1)).sum()
            weight = jnp.where(said, settings.said_weight, 1.0)
            return weight * nll + settings.kl_factor * kl + decay, (nll, kl, said)

        delta, first, second = (np.zeros(v0.shape) for _ in range(3))
        search = Search(np.asarray(v0[-1]), [], [], math.nan, [])
        for t in range(1, settings.steps + 1):
            (loss, (nll, kl, said)), gradient = evaluate(delta)
            search.deltas.append(delta[-1])
            search.losses.append(float(loss))
            search.said.append(bool(said))
            search = search._replace(nll=float(nll))
            since = t - 1 - search.said.index(True) if any(search.said) else -1
            if loss < settings.stop_loss or (settings.patience and since >= settings.patience):
                break
            if settings.stop_kl and said and kl <= settings.stop_kl:
                break
            first = 0.9 * first + 0.1 * np.asarray(gradient)
            second = 0.999 * second + 0.001 * np.asarray(gradient) ** 2
            delta = delta - settings.lr * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
            longest = settings.clamp * np.linalg.norm(v0, axis=-1, keepdims=True)
            length = np.linalg.norm(delta, axis=-1, keepdims=True)
            delta = np.where(length > longest, delta * (longest / length), delta)
        return search
