"""A part of a decoder's array read alone, as a device of a mesh reads it, is that part of the whole: fused, turned,
stacked and sharded tensors alike."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prunejax.models.checkpoints import config_of, decoder_arrays, load_decoder
from prunejax.models.decoder import Decoder
from prunejax.models.families import read_config
from prunejax.models.tensors import match, open_tensors, read_array, weight_files

REFERENCES = Path(__file__).parent / "references"


@pytest.mark.parametrize("name", ["gpt2", "gptj", "llama3"])
def test_every_part_of_every_array_is_that_of_the_whole(name):
    folder = REFERENCES / name
    family, sizes = read_config(*config_of(folder))
    stored = open_tensors(weight_files(folder))
    shapes = {
        ".".join(map(str, path)): leaf.shape
        for path, leaf in nnx.to_flat_state(nnx.state(nnx.eval_shape(lambda: Decoder(sizes, rngs=nnx.Rngs(0)))))
    }
    matched = match(stored, family, shapes, name)
    whole = decoder_arrays(load_decoder(folder)[0])
    assert whole.keys() == shapes.keys()
    for path, shape in shapes.items():
        for axis, size in enumerate(shape):
            for half in (slice(0, size // 2), slice(size // 2, size)):
                index = tuple(half if number == axis else slice(None) for number in range(len(shape)))
                part = read_array(stored, matched[path], shape, jnp.dtype("float32"), index)
                np.testing.assert_array_equal(part, whole[path][index], path)
