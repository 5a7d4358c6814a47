"""The generated world and its tokenizer, made once for these tests: they need no committed model."""

import pytest
from tokenizers import Tokenizer

from prunejax.world.facts import World, make_world
from prunejax.world.pretrain import train_tokenizer


@pytest.fixture(scope="session")
def world() -> World:
    return make_world(0)


@pytest.fixture(scope="session")
def tokenizer(world: World) -> Tokenizer:
    return train_tokenizer(world)
