"""A random GPT-2 small enough for every test, and a tokenizer trained on the spot.

At the usual initial scale of 0.02 a wrong formula hardly moves the logits: weights are drawn ten times larger, and
norms and biases, which would start at 1 and 0, are drawn too.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from prunejax.models.checkpoints import save_model
from prunejax.models.config import DecoderConfig
from prunejax.models.decoder import Decoder
from prunejax.models.families.gpt2 import GPT2, config_json
from prunejax.requests import EditRequest

END = "<|endoftext|>"

TEXTS = (
    "The capital of France is Paris. The capital of Spain is Madrid. The capital of Chad is Rome.",
    "Ada Lovelace lives in London, and Alan Turing lives in Rome. Grace Hopper is a sailor.",
    "The mother tongue of Ada Lovelace is English, that of Marie Curie is Polish. I think that this is so.",
)
"""What the tokenizer is trained on; also a text to take second moments of."""

EDITS = (
    EditRequest("one", "The capital of {} is", "France", "Madrid"),
    EditRequest("many tokens", "{} lives in the", "Ada Lovelace", "old Łódź"),
    EditRequest("subject last", "I think that this is {}", "Grace Hopper", "Madrid"),
)
TEMPLATES = ("{}", "I think that. {}", "The capital of this is Rome. {}")


def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE of at most 330 pieces, end of text with id 0, nothing added to a text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    bpe.train_from_iterator(TEXTS * 3, trainer)
    return bpe


def random_decoder(sizes: DecoderConfig, seed: int = 0, vocabulary: float = 0.2) -> Decoder:
    """A decoder with every parameter drawn from the seed: normal, standard deviation 0.2, that of the vocabulary's
    matrices `vocabulary`, norm scales about 1."""
    rng = np.random.default_rng(seed)
    decoder = nnx.eval_shape(lambda: Decoder(sizes, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(decoder)
    for path, leaf in nnx.to_flat_state(state):
        mean = 1.0 if path[-1] == "scale" else 0.0
        spread = vocabulary if path[0] in ("wte", "head") else 0.2
        leaf.set_value(jnp.asarray(rng.normal(mean, spread, leaf.shape), jnp.float32))
    return nnx.merge(graph, state)


def save_tiny(folder: Path, seed: int = 0, n_layers: int = 3, dtype: str = "float32", vocabulary: float = 0.2) -> Path:
    """A Hugging Face folder of a random decoder (d_model 16, 2 heads, d_ff 64, 64 positions) and its tokenizer. With a
    `vocabulary` of 1 a value step can make it say things."""
    tokenizer = tiny_tokenizer()
    sizes = DecoderConfig(
        n_layers=n_layers, n_heads=2, d_model=16, d_ff=64, vocab_size=tokenizer.get_vocab_size(), n_positions=64
    )
    config = config_json(sizes, tokenizer.token_to_id(END), dtype)
    return save_model(random_decoder(sizes, seed, vocabulary), GPT2, config, tokenizer.to_str(), folder)
