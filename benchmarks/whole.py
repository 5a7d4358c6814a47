"""The operations that the published code does: whole prompts, padding included, through the whole model, and logits at
all positions (matrix products alone; the gradient goes through the layers above the edit)."""

from collections.abc import Sequence

from benchmarks.rates import Work
from benchmarks.recipe import Recipe
from benchmarks.useful import Row, costs
from prunejax.models.config import DecoderConfig


def passes(config: DecoderConfig, rows: int, width: int, layers: int) -> int:
    """`rows` rows of `width` tokens through so many layers; attention reads every pair."""
    c = costs(config)
    return layers * rows * width * (c.layer + width * c.pair)


def head(config: DecoderConfig, tokens: int) -> int:
    """The output matrix at so many tokens."""
    return 2 * tokens * config.d_model * config.vocab_size


def value_steps(config: DecoderConfig, rows: Sequence[Row], recipe: Recipe, site: str) -> list[Work]:
    """One request's value step: `steps` passes, one gradient fewer. MEMIT's site applies the output matrix to the rows
    of its loss once more, and its gradient runs through both."""
    n, width = len(rows), max(row.template + row.before + row.suffix for row in rows)
    above = config.n_layers - 1 - recipe.layers[-1]
    c = costs(config)
    forward = passes(config, n, width, config.n_layers)
    backward = passes(config, n, width, above) + above * n * width * width * c.pair
    twice = (n - 1) * width if site == "residual" else 0
    d, evaluations = config.d_model, 2 * recipe.steps - 1
    return [
        Work(recipe.steps * forward + (recipe.steps - 1) * backward, (n * width, d, config.d_ff)),
        Work(evaluations * head(config, n * width + twice), (n * width, d, config.vocab_size)),
    ]


def rome_whole(config: DecoderConfig, rows: Sequence[Row], recipe: Recipe) -> list[Work]:
    """One ROME edit: keys of all contexts, the value step, the bare prompt again."""
    layers, logits = value_steps(config, rows, recipe, "value")
    contexts = rows[:-1]
    width = max(row.template + row.before + row.suffix - row.read + 1 for row in contexts)
    bare = contexts[0].before + contexts[0].suffix - contexts[0].read + 1
    read = passes(config, len(contexts), width, config.n_layers) + passes(config, 1, bare, config.n_layers)
    solve = 2 * config.d_ff**2 if recipe.second_moment == "corpus" else 0
    return [
        layers._replace(flops=layers.flops + read + solve),
        logits._replace(flops=logits.flops + head(config, len(contexts) * width + bare)),
    ]
