"""Make the embedded model from a seed: train the tokenizer on the world's text, then a small GPT-2 on it, and write
a Hugging Face folder."""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import nnx
from jax import Array
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm

from prunejax.files import remove_parts, write_through
from prunejax.models.checkpoints import save_model
from prunejax.models.config import DecoderConfig
from prunejax.models.decoder import Decoder, logits
from prunejax.models.families.gpt2 import GPT2, config_json
from prunejax.progress import Progress, resumable
from prunejax.world.facts import World, make_world, save_world
from prunejax.world.phrasing import COUNTRY, PHRASINGS
from prunejax.world.text import CITY_ROUNDS, Sentence, Windows, epoch_sentences, windows

END_OF_TEXT = "<|endoftext|>"
PROBE_LENGTH = 24
CHECK = 100
"""Steps between two rows of the course; so often is saved, too, what training goes on from."""
STORED = "float16"
"""What weights are stored in."""


@dataclass(frozen=True)
class Recipe:
    """How the embedded model is trained.

    People join in stages, (share of the steps, people from then on): with few of them the model first learns how facts
    are asked for. Matrices follow Muon at `lr`, all else AdamW at `adam_lr`. For the first `sealed` of the steps names
    are sealed: below layer `reads` only a name's own tokens see it, from there on later tokens see its last one.
    Without that a model this small fetches the names' tokens straight to where it answers, and nothing that is written
    at the subject's last token changes what it says (`evaluate.interchange`). An epoch tells the country of every city
    `city_rounds` times. `text` tells the text of one training from that of another.
    """

    n_layers: int = 3
    n_heads: int = 4
    d_model: int = 128
    d_ff: int = 1024
    n_positions: int = 96
    steps: int = 9000
    rows: int = 18
    length: int = 64
    learned_share: float = 0.75
    lr: float = 0.02
    adam_lr: float = 3e-3
    weight_decay: float = 0.02
    reads: int = 2
    sealed: float = 0.9
    stages: tuple[tuple[float, int], ...] = ((0.0, 250), (0.06, 1000), (0.12, 2000))
    city_rounds: int = CITY_ROUNDS
    text: int = 3


REHEARSAL = Recipe(steps=1000, lr=0.005, adam_lr=7.5e-4, sealed=0.0, stages=((0.0, 2000),), city_rounds=20, text=5)
"""A second, short training with nothing sealed, at a quarter of the rates: the last facts are learned in it, cities
above all, which else seldom open a window and so are hardly known without a space before them."""


class State(NamedTuple):
    """What training goes on from: parameters, the optimizer's moments, how many steps of this training and of those
    before it are done, and the course so far: step, loss and recall."""

    parameters: nnx.State
    moments: optax.OptState
    done: int
    before: int
    course: list[tuple[int, float, float]]


def pretrain_world(
    folder: str | Path,
    seed: int,
    recipe: Recipe = Recipe(),
    rehearsal: Recipe = REHEARSAL,
    note: Callable[[str], object] = warnings.warn,
) -> Path:
    """Write the world, its tokenizer and the model that `seed` trains on it into `folder`; returns the folder.

    The world and the tokenizer are the same for every seed; initial weights and the order of the text are the seed's.
    Weights are stored in float16, and the rehearsal starts from the first training's as they would be stored.
    pretraining.csv holds the loss (nats a learned token) along the way, steps counted through both.

    What is cut goes on from the last multiple of CHECK steps, to the bit; `note` is told what a person should know of
    that. The weights are written last: a folder that holds them is whole.
    """
    folder = Path(folder)
    with resumable(folder, "model", note) as progress:
        remove_parts(folder)
        world = make_world()
        tokenizer = train_tokenizer(world)
        text = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
        recipes = {"recipe": asdict(recipe), "rehearsal": asdict(rehearsal)}
        own = progress.of(work="pretrain", seed=seed, tokenizer=text, **recipes)
        decoder, course = train_twice(world, tokenizer, seed, recipe, rehearsal, own)
        save_world(world, folder / "world.json")
        write_through(folder / "pretraining.csv", lambda part: course.to_csv(part, index=False, float_format="%.4f"))
        config = config_json(decoder.config, tokenizer.token_to_id(END_OF_TEXT), STORED)
        save_model(decoder, GPT2, config, tokenizer.to_str(), folder)
    return folder


def train_twice(
    world: World, tokenizer: Tokenizer, seed: int, recipe: Recipe, rehearsal: Recipe, progress: Progress
) -> tuple[Decoder, pd.DataFrame]:
    """The decoder after both trainings, and every CHECK steps its loss (nats a learned token) and its recall of 400
    facts."""
    sizes = DecoderConfig(
        recipe.n_layers, recipe.n_heads, recipe.d_model, recipe.d_ff, tokenizer.get_vocab_size(), recipe.n_positions
    )
    graph, parameters = nnx.split(Decoder(sizes, rngs=nnx.Rngs(seed)))
    state = State(parameters, muon(recipe).init(parameters), 0, 0, [])
    if saved := progress.load(state[:2]):
        state = State(*saved.arrays, **saved.place)
    if not state.before:
        state = train(graph, state, world, tokenizer, seed, recipe, progress)
        parameters = jax.tree.map(as_stored, state.parameters)
        state = State(parameters, muon(rehearsal).init(parameters), 0, recipe.steps, state.course)
    state = train(graph, state, world, tokenizer, seed, rehearsal, progress)
    return nnx.merge(graph, state.parameters), pd.DataFrame(state.course, columns=["step", "loss", "recall"])


def as_stored(array: Array) -> Array:
    """An array as it comes back from a file."""
    return jnp.asarray(np.asarray(array).astype(STORED).astype(array.dtype))


def train_tokenizer(world: World) -> Tokenizer:
    """A byte-level BPE of two epochs of the world's text, the same for every seed."""
    rng = np.random.default_rng(0)
    texts = [sentence.text for _ in range(2) for sentence in epoch_sentences(world, world.people, rng)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=6000,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *(f" {text}" for text in texts)], trainer)
    return tokenizer


def train(
    graph: nnx.GraphDef,
    state: State,
    world: World,
    tokenizer: Tokenizer,
    seed: int,
    recipe: Recipe,
    progress: Progress,
) -> State:
    """The state after the steps of the recipe that are not done yet; that which is handed in is used up."""
    optimizer = muon(recipe)
    capacity = int(recipe.learned_share * recipe.rows * recipe.length)

    def loss_of(parameters: nnx.State, batch: Windows) -> Array:
        return mean_loss(nnx.merge(graph, parameters), batch, capacity, recipe.reads)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(
        parameters: nnx.State, moments: optax.OptState, batch: Windows
    ) -> tuple[nnx.State, optax.OptState, Array]:
        loss, gradient = jax.value_and_grad(loss_of)(parameters, batch)
        change, moments = optimizer.update(gradient, moments, parameters)
        return optax.apply_updates(parameters, change), moments, loss

    asked = jax.jit(lambda parameters, probe: recall(nnx.merge(graph, parameters), probe))
    probe = recall_probe(world, tokenizer)
    parameters, moments, done, before, course = state
    stream = islice(batches(world, tokenizer, seed, recipe), done, None) if done < recipe.steps else ()
    with tqdm(stream, total=recipe.steps, initial=done, desc=f"pretrain seed {seed}", unit="step") as bar:
        for step, batch in enumerate(bar, done + 1):
            parameters, moments, loss = update(parameters, moments, batch)
            if step % CHECK == 0:
                course = [*course, (before + step, float(loss), float(asked(parameters, probe)))]
                bar.set_postfix(loss=f"{course[-1][1]:.3f}", recall=f"{course[-1][2]:.3f}")
                progress.save((parameters, moments), {"done": step, "before": before, "course": course})
    return State(parameters, moments, recipe.steps, before, course)


def muon(recipe: Recipe) -> optax.GradientTransformation:
    """Muon for the stacked matrices [L, d_in, d_out], AdamW for the rest; a warm-up, then a cosine to a fiftieth."""

    def rate(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(0.0, peak, 50, recipe.steps, peak / 50)

    def matrices(parameters: nnx.State) -> nnx.State:
        matrix = optax.contrib.MuonDimensionNumbers((1,), (2,))
        return jax.tree_util.tree_map_with_path(
            lambda path, _: matrix if "kernel" in jax.tree_util.keystr(path) else None, parameters
        )

    return optax.contrib.muon(
        rate(recipe.lr),
        adam_learning_rate=rate(recipe.adam_lr),
        adam_b2=0.98,
        weight_decay=recipe.weight_decay,
        muon_weight_dimension_numbers=matrices,
    )


def recall_probe(world: World, tokenizer: Tokenizer, n: int = 400) -> Windows:
    """n facts, each in a window of its own, of which only the object is learned: what `recall` asks."""
    rng = np.random.default_rng(world.seed)
    facts = [(person, relation) for person in world.people for relation in person.facts if relation != COUNTRY]
    rows = []
    for i in rng.permutation(len(facts))[:n]:
        person, relation = facts[i]
        prompt = PHRASINGS[relation].statements[0].format(person.name)
        rows.append(
            windows(tokenizer, [Sentence(f"{prompt} {person.facts[relation]}", (0, len(prompt)))], PROBE_LENGTH)
        )
    return Windows(*(np.concatenate(part) for part in zip(*rows, strict=True)))


def recall(decoder: Decoder, probe: Windows) -> Array:
    """The share of rows whose learned tokens are all the arg-max, 0-1."""
    said = jnp.argmax(logits(decoder, probe.tokens[:, :-1], probe.positions[:, :-1]), axis=-1)
    asked = (probe.learned & (probe.positions >= 0))[:, 1:]
    return jnp.mean(jnp.all((said == probe.tokens[:, 1:]) | ~asked, axis=1))


def mean_loss(decoder: Decoder, batch: Windows, capacity: int, reads: int) -> Array:
    """Mean negative log-likelihood, in nats, over the learned tokens of a batch; at most `capacity` of them are read.

    Below layer `reads` tokens are seen as `batch.within` says, from there on as `batch.after` does.
    """
    tokens, positions = batch.tokens[:, :-1], batch.positions[:, :-1]
    wanted = (batch.learned & (batch.positions >= 0))[:, 1:].reshape(-1)
    (at,) = jnp.nonzero(wanted, size=capacity, fill_value=0)
    counted = jnp.arange(capacity) < jnp.sum(wanted)
    embedded, n_layers = decoder.embed(tokens, positions), decoder.config.n_layers
    within, after = batch.within[:, :-1], batch.after[:, :-1]
    until = jnp.stack([within if layer < reads else after for layer in range(n_layers)])
    residual = decoder.run_layers(embedded, positions, 0, n_layers, until=until).residual
    predicted = decoder.unembed(residual.reshape(-1, residual.shape[-1])[at])
    losses = optax.softmax_cross_entropy_with_integer_labels(predicted, batch.tokens[:, 1:].reshape(-1)[at])
    return jnp.sum(losses * counted) / jnp.sum(counted)


def batches(world: World, tokenizer: Tokenizer, seed: int, recipe: Recipe) -> Iterator[Windows]:
    """`recipe.steps` batches of windows; people join in the order that the seed shuffles them into."""
    rng = np.random.default_rng([seed, recipe.text])
    order = [world.people[i] for i in rng.permutation(len(world.people))]
    step = 0
    while True:
        people = [count for share, count in recipe.stages if step >= share * recipe.steps][-1]
        sealed = step < recipe.sealed * recipe.steps
        sentences = epoch_sentences(world, order[:people], rng, recipe.city_rounds)
        epoch = windows(tokenizer, sentences, recipe.length, sealed)
        shuffled = rng.permutation(len(epoch.tokens))
        for start in range(0, len(shuffled) - recipe.rows + 1, recipe.rows):
            if step == recipe.steps:
                return
            yield Windows(*(part[shuffled[start : start + recipe.rows]] for part in epoch))
            step += 1
