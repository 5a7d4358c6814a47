"""The case of second moments: what they cost beside a bare forward pass up to the tapped layer and the one product of
keys, each alone, on the same batches."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from benchmarks import ours
from benchmarks.clock import timed, times
from benchmarks.measurements import Measurement, measurement
from benchmarks.sides import Call, peak_mb
from prunejax.editors.key_sums import add_keys, batches, no_sums, pieces_of, pools, read_rows
from prunejax.editors.moments import MAX_LENGTH
from prunejax.models.checkpoints import load_model
from prunejax.models.decoder import Decoder

TURNS = 3


@partial(jax.jit, static_argnames=("layer",))
def forward(decoder: Decoder, tokens: Array, positions: Array, layer: int) -> Array:
    """The keys [B, T, d_ff] of a layer and nothing above them."""
    below = decoder.run_layers(decoder.embed(tokens, positions), positions, 0, layer).residual
    return decoder.run_layers(below, positions, layer, layer + 1, taps=("key",)).taps["key"][0]


@jax.jit
def outer(keys: Array) -> Array:
    """The sum over tokens of key key^T [d_ff, d_ff]."""
    each = keys.reshape(-1, keys.shape[-1])
    return jnp.matmul(each.T, each, precision="highest")


def moments_seconds(folder: Path, texts: Sequence[str], layer: int, most: int) -> list[tuple[float, float, float]]:
    """Seconds of second moments, of the forward passes alone and of the products alone, TURNS times in turn, over the
    first `most` tokens of the texts."""
    model = load_model(folder)
    width = min(MAX_LENGTH, model.config.n_positions)
    rows = [row for _, row in read_rows(model.tokenizer, texts, most)]
    batched = [batch for pool in pools(pieces_of(rows, width)) for batch in batches(pool, width)]
    shapes = {tokens.shape for tokens, _ in batched}
    keys = {shape: jax.random.normal(jax.random.key(0), (*shape, model.config.d_ff)) for shape in shapes}

    def moments() -> None:
        sums = no_sums(model, [layer], ["down"])
        with tqdm(disable=True) as bar:
            add_keys(model, sums, pieces_of(rows, width), width, [layer], ["down"], bar)

    def passes() -> None:
        for tokens, positions in batched:
            forward(model.decoder, tokens, positions, layer).block_until_ready()

    def products() -> None:
        for tokens, _ in batched:
            outer(keys[tokens.shape]).block_until_ready()

    parts = (moments, passes, products)
    for part in parts:
        part()
    return [tuple(timed(part)[0] for part in parts) for _ in range(TURNS)]


def moments_case(
    me: Call, name: str, folder: Path, texts: Sequence[str], layer: int, most: int, cores: int
) -> list[Measurement]:
    """Second moments of one layer; the ratio is that of their time to the sum of the two parts', turn by turn."""
    turns = np.array(me(moments_seconds, folder, texts, layer, most))
    ratio = float(np.median(turns[:, 0] / turns[:, 1:].sum(1)))
    unit = f"{most} tokens, layer {layer}"
    facts = {"cores": cores, "versions": me(ours.stack), "peak_mb": me(peak_mb)}
    together, passes, products = (times(column) for column in turns.T.tolist())
    return [
        measurement(name, "prunejax", unit, together, ratio=ratio, **facts),
        measurement(name, "forward alone", unit, passes, **facts),
        measurement(name, "product alone", unit, products, **facts),
    ]
