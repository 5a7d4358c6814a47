"""Packed rows: the grid and the flat axis are each other's inverse, and a decoder says of them what it says of padded
rows."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.models.checkpoints import load_decoder
from prunejax.models.decoder import Decoder
from prunejax.models.layer import Cache
from prunejax.models.packing import Packing, Reads, fill, pack, positions_on_grid, read, taken, to_flat, to_grid

REFERENCES = Path(__file__).parent / "references"
NAMES = sorted(folder.name for folder in REFERENCES.iterdir())
"""Learned and rotary positions, windows, shared key heads, parallel blocks: every family."""
LENGTHS = [5, 0, 20, 1, 12]
N, WIDTH = 43, 22
"""Room behind the last row, and more columns than the longest row has."""
TAPS = ("key", "value", "residual")
run = jax.jit(Decoder.run_layers, static_argnums=(3, 4), static_argnames=("taps",))


@pytest.fixture(scope="module")
def packing() -> Packing:
    return pack(LENGTHS, N, WIDTH)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_rows_stand_one_behind_the_other():
    packing = pack([2, 0, 1], 5, 3)
    np.testing.assert_array_equal(packing.slot, [[0, 1, 5], [5, 5, 5], [2, 5, 5]])
    np.testing.assert_array_equal(packing.place, [0, 1, 6, 9, 9])
    np.testing.assert_array_equal(fill([[7, 8], [], [9]], 5, -1), [7, 8, 9, -1, -1])


@pytest.mark.parametrize(("size", "width"), [(2, 3), (5, 1)])
def test_rows_that_do_not_fit_are_not_packed(size, width):
    with pytest.raises(ValueError, match="do not fit into"):
        pack([2, 0, 2], size, width)
    with pytest.raises(ValueError, match="broadcast"):
        fill([[7, 8], [9]], 2, 0)


def test_the_grid_holds_each_row_and_zeros(packing):
    flat = drawn(N, 3)
    grid = np.asarray(to_grid(flat, packing))
    assert grid.shape == (len(LENGTHS), WIDTH, 3)
    start = 0
    for row, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(grid[row, :length], flat[start : start + length])
        assert not grid[row, length:].any()
        start += length


def test_flat_and_grid_are_inverse_where_tokens_stand(packing):
    flat, grid = drawn(N, 2, 3), drawn(len(LENGTHS), WIDTH, 2, 3)
    back = np.asarray(to_flat(to_grid(flat, packing), packing))
    np.testing.assert_array_equal(back[: sum(LENGTHS)], flat[: sum(LENGTHS)])
    assert not back[sum(LENGTHS) :].any()
    there = np.asarray(to_grid(to_flat(grid, packing), packing))
    holds = np.arange(WIDTH) < np.array(LENGTHS)[:, None]
    np.testing.assert_array_equal(there[holds], grid[holds])
    assert not there[~holds].any()


def test_without_a_packing_rows_are_the_grid():
    x, positions = drawn(2, 4, 3), np.arange(8).reshape(2, 4)
    assert to_grid(x, None) is x
    assert to_flat(x, None) is x
    assert positions_on_grid(positions, None) is positions
    assert read(x, None) is x


def test_positions_of_no_token_are_minus_1(packing):
    positions = fill([range(length) for length in LENGTHS], N, -1)
    found = np.asarray(positions_on_grid(positions, packing))
    expected = np.where(np.arange(WIDTH) < np.array(LENGTHS)[:, None], np.arange(WIDTH), -1)
    np.testing.assert_array_equal(found, expected)


def test_gradients_are_those_of_the_plain_gathers(packing):
    """Which are written by hand: the gather of one is the scatter of the other."""
    flat, grid = drawn(N, 3), drawn(len(LENGTHS), WIDTH, 3)
    pairs = [
        (to_grid, lambda x, packing: taken(x, packing.slot), flat),
        (to_flat, lambda x, packing: taken(x.reshape(-1, 3), packing.place), grid),
    ]
    for written, plain, x in pairs:

        def loss(x, function):
            y = function(x, packing)
            return jnp.sum(y * jnp.sin(jnp.arange(y.size).reshape(y.shape)) + y**2)

        found, expected = (jax.jit(jax.grad(loss), static_argnums=1)(x, f) for f in (written, plain))
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_read_takes_columns_of_rows_and_places_of_the_flat_axis(packing):
    x, flat = drawn(2, 4, 3), drawn(N, 3)
    found = read(x, Reads(jnp.array([[3, 0, 0], [1, 2, 3]])))
    np.testing.assert_array_equal(found, np.stack([x[0, [3, 0, 0]], x[1, [1, 2, 3]]]))
    np.testing.assert_array_equal(read(flat, Reads(jnp.array([7, 0, 7]), packing)), flat[[7, 0, 7]])


class Rows:
    """The same random tokens of one family's reference, padded and packed."""

    def __init__(self, name: str, packing: Packing):
        self.decoder, _ = load_decoder(REFERENCES / name)
        self.packing, self.layers = packing, self.decoder.config.n_layers
        holds = np.arange(WIDTH) < np.array(LENGTHS)[:, None]
        ids = np.random.default_rng(1).integers(0, self.decoder.config.vocab_size, holds.shape)
        self.holds, self.ids = holds, np.where(holds, ids, 7).astype(np.int32)
        self.positions = np.where(holds, np.arange(WIDTH), -1).astype(np.int32)
        self.flat_positions = fill([range(length) for length in LENGTHS], N, -1)
        self.flat_ids = fill([row[:length] for row, length in zip(self.ids, LENGTHS, strict=True)], N, 3)
        self.padded = run(
            self.decoder, self.decoder.embed(self.ids, self.positions), self.positions, 0, self.layers, taps=TAPS
        )

    @property
    def embedded(self) -> jax.Array:
        return self.decoder.embed(self.flat_ids, self.flat_positions)

    def run(self, residual: jax.Array, start: int, stop: int, **given):
        return run(self.decoder, residual, self.flat_positions, start, stop, packing=self.packing, **given)


@pytest.fixture(scope="module", params=NAMES)
def rows(request, packing) -> Rows:
    return Rows(request.param, packing)


def close(found: jax.Array, expected: jax.Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, float(np.abs(expected).max())))


def test_packed_rows_are_the_padded_ones(rows):
    total = sum(LENGTHS)
    output = rows.run(rows.embedded, 0, rows.layers, taps=TAPS)
    close(output.residual[:total], rows.padded.residual[rows.holds])
    for site in TAPS:
        close(output.taps[site][:, :total], rows.padded.taps[site][:, rows.holds])
    for name in ("keys", "values"):
        found, expected = (np.moveaxis(getattr(whole, name), 2, 3)[:, rows.holds] for whole in (output, rows.padded))
        close(found, expected)
    assert np.isfinite(output.residual).all()


def test_packed_layers_in_two_parts_are_the_layers_in_one(rows):
    first = rows.run(rows.embedded, 0, 1)
    close(rows.run(first.residual, 1, rows.layers).residual, rows.run(rows.embedded, 0, rows.layers).residual)


def test_rows_that_are_read_are_all_rows_then_read(rows):
    """Asked in no order, one of them twice, and one row not at all."""
    starts, columns = np.cumsum([0, *LENGTHS]), [[4, 0], [], [19, 3, 3], [0], []]
    index = fill([[starts[row] + column for column in asked] for row, asked in enumerate(columns)], 9, 0)
    reads = Reads(index, pack([len(asked) for asked in columns], 9, 4))
    output, whole = (rows.run(rows.embedded, 0, rows.layers, **given) for given in ({"reads": reads}, {}))
    assert output.residual.shape[0] == 9
    close(output.residual[:6], whole.residual[index[:6]])
    assert np.isfinite(output.residual).all()
    for name in ("keys", "values"):
        close(getattr(output, name), getattr(whole, name))
    close(rows.run(rows.embedded, rows.layers, rows.layers, reads=reads).residual, rows.embedded[index])


def test_columns_that_are_read_are_all_columns_then_read(rows):
    columns = np.array([[4, 0, 2], [0, 0, 0], [19, 3, 3], [0, 0, 0], [11, 1, 10]])
    embedded = rows.decoder.embed(rows.ids, rows.positions)
    output = run(rows.decoder, embedded, rows.positions, 0, rows.layers, reads=Reads(columns))
    asked = [0, 2, 3, 4]  # the second row holds no token
    close(
        np.asarray(output.residual)[asked],
        np.take_along_axis(np.asarray(rows.padded.residual), columns[..., None], 1)[asked],
    )
    close(output.keys, rows.padded.keys)


def test_a_cache_is_the_keys_and_values_of_the_layers(rows):
    for start, stop in ((0, rows.layers), (0, 1), (1, rows.layers)):
        before = rows.run(rows.embedded, 0, start).residual
        whole = rows.run(before, start, stop)
        cache = jax.jit(Decoder.remember, static_argnums=(3, 4))(
            rows.decoder, before, rows.flat_positions, start, stop, packing=rows.packing
        )
        close(cache.keys, whole.keys)
        close(cache.values, whole.values)
        np.testing.assert_array_equal(cache.positions, rows.positions)


def test_a_packed_prefix_and_a_packed_suffix_are_the_packed_whole(rows):
    """Parted at another place in each row, in one before its first token and in one behind its last."""
    parted = [2, 0, 11, 0, 12]
    before, after = parted, [length - head for length, head in zip(LENGTHS, parted, strict=True)]
    pieces = []
    for begin, lengths in (([0] * 5, before), (before, after)):
        ids = [row[first : first + length] for row, first, length in zip(rows.ids, begin, lengths, strict=True)]
        places = [range(first, first + length) for first, length in zip(begin, lengths, strict=True)]
        pieces.append((fill(ids, 30, 0), fill(places, 30, -1), pack(lengths, 30, 13)))
    (ids, positions, packing), (more, later, behind) = pieces
    cache = rows.decoder.remember(rows.decoder.embed(ids, positions), positions, 0, rows.layers, packing=packing)
    assert isinstance(cache, Cache)
    output = run(rows.decoder, rows.decoder.embed(more, later), later, 0, rows.layers, cache=cache, packing=behind)
    suffix = np.arange(WIDTH) >= np.array(parted)[:, None]
    close(output.residual[: sum(after)], rows.padded.residual[rows.holds & suffix])


@pytest.mark.parametrize(("edited", "turned"), [(False, True), (True, False)], ids=["turned", "edited"])
def test_layers_read_out_of_the_stack_before_change_nothing(rows, edited, turned):
    """Not the gradient either; nor do they bring back a kernel that something else stands in for."""
    last = rows.layers - 1
    shape = rows.decoder.blocks.down.kernel[...].shape[1:]
    overrides = {(last, "down"): 0.3 * drawn(*shape)} if edited else {}
    expected = rows.run(rows.embedded, 0, rows.layers, taps=TAPS, overrides=overrides)
    for start in range(rows.layers):
        opened = rows.decoder.opened(start, rows.layers, turned=turned)
        assert sorted(opened) == list(range(start, rows.layers))
        assert all(bool(layer.turned) == turned for layer in opened.values())
        output = rows.run(rows.embedded, 0, rows.layers, taps=TAPS, overrides=overrides, opened=opened)
        close(output.residual, expected.residual)
        for site in TAPS:
            close(output.taps[site], expected.taps[site])
    moved = expected.residual - rows.run(rows.embedded, 0, rows.layers).residual
    assert bool(np.abs(moved[: sum(LENGTHS)]).max() > 0.01) == edited
    weights, opened = drawn(*expected.residual.shape), rows.decoder.opened(0, rows.layers, turned=turned)
    slope, wanted = (
        jax.grad(lambda x, given=given: jnp.sum(weights * rows.run(x, 0, rows.layers, **given).residual))(rows.embedded)
        for given in ({"overrides": overrides, "opened": opened}, {"overrides": overrides})
    )
    close(slope[: sum(LENGTHS)], wanted[: sum(LENGTHS)])
