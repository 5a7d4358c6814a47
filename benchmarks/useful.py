"""The operations that an edit cannot do without: matrix products alone, no padding, nothing twice, and nothing that is
the same for every edit.

A row of the value step is a context: `template` tokens of its prefix, tokens `before` the subject's last, and the
`suffix` from there on, of whose columns the last `read` say the target. The delta enters layer l at the suffix's first
token. So needed are
  - below: the prompt's tokens in layers 0 to l, once. Templates there are the same for every edit and not counted;
  - once: templates and tokens before the subject's last in the layers above (the templates from layer l's MLP on, which
    edits change), in the last of them keys and values only;
  - an evaluation: the suffix in the layers above, and the output matrix where a token is read. In the layer right above
    the edit only the suffix's first token has new queries, keys and values; in the last layer only tokens that are read
    need more than keys and values;
  - an update: the gradient of an evaluation in its activations: the same products once more, in attention twice as many
    where both tokens are of the suffix. There are `steps` evaluations and one update fewer.
The row of the KL term ends with the subject. Norms, softmax, activations and Adam are not counted.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.rates import Work
from benchmarks.recipe import Recipe
from prunejax.models.config import DecoderConfig
from prunejax.requests import EditRequest
from prunejax.tokens import tokenize_fact


class Row(NamedTuple):
    """A row's tokens: of its prefix template, before the subject's last, from there on, and how many are read."""

    template: int
    before: int
    suffix: int
    read: int

    def attended(self, n: int | None = None) -> int:
        """Pairs of the last n tokens of the suffix (all without n) with those they see."""
        n = self.suffix if n is None else n
        length = self.template + self.before + self.suffix
        return n * length - n * (n - 1) // 2


class Costs(NamedTuple):
    """Operations a token in one layer: queries; keys and values; the attention's output projection; the MLP up to the
    key; its down projection; and a pair of tokens in attention."""

    q: int
    kv: int
    o: int
    up: int
    down: int
    pair: int

    @property
    def layer(self) -> int:
        """A whole layer but for attention's pairs."""
        return self.q + self.kv + self.o + self.up + self.down


def costs(config: DecoderConfig) -> Costs:
    """The costs of a decoder's layer, 2 operations a weight."""
    d, d_q, d_kv = config.d_model, config.n_heads * config.head_width, config.kv_heads * config.head_width
    up = 2 * d * config.d_ff
    return Costs(2 * d * d_q, 4 * d * d_kv, 2 * d_q * d, up * (1 + config.gated), up, 4 * d_q)


def rows_of(tokenizer: Any, request: EditRequest, templates: Sequence[str]) -> list[Row]:
    """The rows of one request, that of the KL term last."""
    rows = []
    for template in templates:
        prefix = len(tokenizer(template.partition("{}")[0].rstrip())["input_ids"]) if template != "{}" else 0
        fact = tokenize_fact(tokenizer, template.replace("{}", request.prompt, 1), request.subject, request.target_new)
        suffix = len(fact.ids) - 1 - fact.subject_last
        rows.append(Row(prefix, fact.subject_last - prefix, suffix, len(fact.ids) - fact.target_start))
    return [*rows, Row(0, tokenize_fact(tokenizer, "{}", request.subject).subject_last, 1, 1)]


def triangle(start: int, n: int) -> int:
    """Pairs of n tokens, of which the first stands behind `start` others, with those they see."""
    return n * start + n * (n + 1) // 2


def below(config: DecoderConfig, rows: Sequence[Row], layer: int) -> int:
    """The prompt's tokens in layers 0 to `layer`."""
    c = costs(config)
    tokens = sum(row.before + row.suffix for row in rows)
    pairs = sum(triangle(row.template, row.before + row.suffix) for row in rows)
    return (layer + 1) * (tokens * c.layer + pairs * c.pair)


def earlier(config: DecoderConfig, rows: Sequence[Row], layer: int) -> int:
    """Tokens before the subject's last in the layers above `layer`; templates are not among them."""
    c, between = costs(config), config.n_layers - layer - 2
    tokens, pairs = sum(row.before for row in rows), sum(triangle(row.template, row.before) for row in rows)
    return between * (tokens * c.layer + pairs * c.pair) + tokens * c.kv


def templates_above(config: DecoderConfig, rows: Sequence[Row], layer: int) -> int:
    """Templates from the MLP of `layer` on, whose weights earlier edits have changed."""
    c, between = costs(config), config.n_layers - layer - 2
    tokens, pairs = sum(row.template for row in rows), sum(triangle(0, row.template) for row in rows)
    return tokens * c.down + between * (tokens * c.layer + pairs * c.pair) + tokens * c.kv


def evaluation(config: DecoderConfig, rows: Sequence[Row], layer: int, *, gradient: bool) -> tuple[int, int]:
    """One loss evaluation, or its gradient: in the layers above `layer`, and in the output matrix."""
    c, above = costs(config), range(layer + 1, config.n_layers)
    total = 0
    for row in rows:
        for number in above:
            moved = 1 if number == layer + 1 else row.suffix
            asked = row.read if number == config.n_layers - 1 else row.suffix
            own = asked * (asked + 1) // 2 + asked * (row.suffix - asked)
            pairs = row.attended(asked) + (own if gradient else 0)
            total += moved * c.kv + min(moved, asked) * c.q + asked * (c.o + c.up + c.down) + pairs * c.pair
    return total, sum(row.read for row in rows) * 2 * config.d_model * config.vocab_size


def constants(config: DecoderConfig, rows: Sequence[Row]) -> int:
    """Queries, keys and values of the suffix behind its first token in the layer right above the edit, once."""
    c = costs(config)
    return sum(row.suffix - 1 for row in rows) * (c.q + c.kv)


def value_work(config: DecoderConfig, rows: Sequence[Row], layer: int, steps: int) -> list[Work]:
    """One request's value step without its templates: what is done once, in the loop, and in its output matrix."""
    d, suffix, read = config.d_model, sum(row.suffix for row in rows), sum(row.read for row in rows)
    forward, head = evaluation(config, rows, layer, gradient=False)
    backward, _ = evaluation(config, rows, layer, gradient=True)
    once = below(config, rows, layer) + earlier(config, rows, layer) + constants(config, rows)
    tokens = sum(row.before + row.suffix for row in rows)
    return [
        Work(once, (tokens, d, config.d_ff)),
        Work(steps * forward + (steps - 1) * backward, (suffix, d, config.d_ff)),
        Work((2 * steps - 1) * head, (read, d, config.vocab_size)),
    ]


def rome_work(config: DecoderConfig, rows: Sequence[Row], recipe: Recipe) -> list[Work]:
    """One ROME edit: the value step, the templates above the edit, and C^-1 k*."""
    (layer,) = recipe.layers
    once, *loop = value_work(config, rows, layer, recipe.steps)
    solve = 2 * config.d_ff**2 if recipe.second_moment == "corpus" else 0
    return [once._replace(flops=once.flops + templates_above(config, rows, layer) + solve), *loop]


def memit_work(config: DecoderConfig, requests: Sequence[Sequence[Row]], recipe: Recipe) -> list[Work]:
    """One MEMIT batch: every request's value step; the templates above the first edited layer once for the batch, for
    none of its weights change before all values are found; then `spread_work`, and a solve a layer with C^-1 given."""
    n, first, last = len(requests), recipe.layers[0], recipe.layers[-1]
    steps = [value_work(config, rows, last, recipe.steps) for rows in requests]
    once, loop, head = map(together, zip(*steps, strict=True))
    shared = templates_above(config, requests[0], first)
    turn = 2 * config.d_ff**2 * n if recipe.second_moment == "corpus" else 0
    solve = len(recipe.layers) * (turn + 4 * config.d_ff * n * n + 2 * config.d_ff * config.d_model * n)
    spread = spread_work(config, requests, recipe)
    return [once._replace(flops=once.flops + shared + spread + solve), loop, head]


def together(works: Sequence[Work]) -> Work:
    """The same work of several requests, in products that hold the rows of all."""
    _, k, n = works[0].shape
    return Work(sum(work.flops for work in works), (sum(work.shape[0] for work in works), k, n))


def spread_work(config: DecoderConfig, requests: Sequence[Sequence[Row]], recipe: Recipe) -> int:
    """What is read between the solves, up to the subject's last token of each row: the way from the first to the last
    edited layer through the weights that were just changed, for keys; and, from every layer but the first, on to the
    last layer for what the residual stream holds now in the bare prompt. Templates once for the batch."""
    c, first, last = costs(config), recipe.layers[0], recipe.layers[-1]
    rows = [row for of_request in requests for row in of_request[:-1]]
    templates = [row.template for row in requests[0][:-1]]
    bare = [of_request[0].before + 1 for of_request in requests]
    tokens = sum(row.before + 1 for row in rows) + sum(templates)
    pairs = sum(triangle(row.template, row.before + 1) for row in rows) + sum(triangle(0, t) for t in templates)
    total = 0
    if last > first:
        total += tokens * c.down + (last - first - 1) * (tokens * c.layer + pairs * c.pair)
        asked = len(rows)  # of the last layer, keys at the subject's last token alone
        total += tokens * c.kv + asked * (c.q + c.o + c.up)
        total += sum(row.template + row.before + 1 for row in rows) * c.pair
    for layer in recipe.layers[1:]:
        pairs_on = sum(triangle(0, length) for length in bare)
        total += sum(bare) * c.down + (last - layer) * (sum(bare) * c.layer + pairs_on * c.pair)
    return total
