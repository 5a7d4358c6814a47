"""What a fact's rows hold layer by layer while the layers below are being edited: the residual stream, keys, and what
stands where the target value goes."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from prunejax.editors.value import FactRows
from prunejax.models.decoder import Decoder, Overrides
from prunejax.models.layer import Cache
from prunejax.models.packing import positions_on_grid


class Streams(NamedTuple):
    """The residual stream of a group's rows before some layer: prefix [N, d_model] of the packed prefixes, and tip [B,
    1, d_model] of the subjects' last tokens."""

    prefix: Array
    tip: Array


def run_below(decoder: Decoder, overrides: Overrides, rows: FactRows, layer: int) -> Streams:
    """The streams before `layer`."""
    tokens, positions = rows.suffix.ids[rows.first][:, None], rows.suffix.positions[rows.first][:, None]
    prefix = decoder.embed(rows.prefix.ids, rows.prefix.positions)
    return run_streams(decoder, overrides, rows, Streams(prefix, decoder.embed(tokens, positions)), 0, layer)


def run_streams(
    decoder: Decoder, overrides: Overrides, rows: FactRows, streams: Streams, start: int, stop: int
) -> Streams:
    """The streams before layer `stop`, from those before `start`."""
    return run_tapped(decoder, overrides, rows, streams, start, stop, ())[0] if start < stop else streams


def run_tapped(
    decoder: Decoder,
    overrides: Overrides,
    rows: FactRows,
    streams: Streams,
    start: int,
    stop: int,
    taps: tuple[str, ...] = ("key",),
) -> tuple[Streams, dict[str, Array]]:
    """The streams before layer `stop`, and on the way the taps [layers, B, ...] of the subjects' last tokens."""
    run = partial(decoder.run_layers, start=start, stop=stop, overrides=overrides)
    past = run(streams.prefix, rows.prefix.positions, packing=rows.prefix.packing)
    grid = positions_on_grid(rows.prefix.positions, rows.prefix.packing)
    positions = rows.suffix.positions[rows.first][:, None]
    tip = run(streams.tip, positions, cache=Cache(past.keys, past.values, grid), taps=taps)
    return Streams(past.residual, tip.residual), {name: found[:, :, 0] for name, found in tip.taps.items()}


def read_facts(
    decoder: Decoder,
    overrides: Overrides,
    rows: FactRows,
    streams: Streams,
    *,
    weights: Array,
    layer: int,
    last: int,
    site: str = "residual",
) -> tuple[Array, Array]:
    """The averaged keys [n, d_ff] of a group's requests at `layer`, from the streams before it, and what stands at
    `site` of layer `last` [n, d_model] at the subject's last token of the bare prompt."""
    after, found = run_tapped(decoder, overrides, rows, streams, layer, last + 1, tuple(dict.fromkeys(("key", site))))
    n = rows.tail.shape[0]
    by_request = found["key"][0].reshape(n, -1, found["key"].shape[-1])[:, :-1]
    there = found[site][-1] if site != "residual" else after.tip[:, 0]
    bare = there.reshape(n, -1, there.shape[-1])[:, 0]
    return jnp.einsum("r,nrk->nk", weights, by_request, precision="highest"), bare
