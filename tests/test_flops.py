"""Operations against XLA's own count of the same program without loops, and against a formula on paper."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import ClosedJaxpr, Literal

from prunejax.abstract import Facts, abstract_mesh, abstract_model, edit_arguments
from prunejax.editors import editor_row, settings_of
from prunejax.flops import flops
from prunejax.models.config import DecoderConfig
from prunejax.models.presets import preset_settings
from prunejax.plan import forecast, trace_edit
from prunejax.program import called, opened, sliced
from tiny_plans import model_of, on_one_device

FACTS = Facts(contexts=5, tokens=24, suffix=12, labels=3)
STEPS = 3


def count(function: Callable, *shapes: tuple[int, ...], trips: int = 1) -> int:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return flops(jax.jit(function).trace(*arguments).jaxpr.jaxpr, trips)


def unrolled(program: Any, arguments: Sequence[Any], constants: Sequence[Any], trips: int) -> list[Any]:
    """What `program` computes, every scan, while and call written out, and of branches the dearest."""
    program = opened(program)
    known = dict(zip([*program.constvars, *program.invars], [*constants, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in program.eqns:
        operands, params = list(map(read, equation.invars)), equation.params
        if (body := called(equation)) is not None:
            inner = next(p for p in params.values() if opened(p) is body)
            results = unrolled(body, operands, constants_of(inner), trips)
        elif equation.primitive.name == "while":
            start = params["cond_nconsts"] + params["body_nconsts"]
            fixed, results = operands[params["cond_nconsts"] : start], operands[start:]
            for _ in range(trips):
                results = jax.lax.optimization_barrier(results)  # as in the loop, the turn's number is not known ahead
                results = unrolled(params["body_jaxpr"], fixed + results, constants_of(params["body_jaxpr"]), trips)
        elif equation.primitive.name == "cond":
            dearest = max(params["branches"], key=lambda branch: flops(opened(branch), trips))
            results = unrolled(dearest, operands[1:], constants_of(dearest), trips)
        elif equation.primitive.name == "scan":
            results = unrolled_scan(equation, operands, trips)
        else:
            results = equation.primitive.bind(*operands, **params)
            results = results if equation.primitive.multiple_results else [results]
        known.update(zip(equation.outvars, results, strict=True))
    return list(map(read, program.outvars))


def constants_of(program: Any) -> Sequence[Any]:
    return program.consts if isinstance(program, ClosedJaxpr) else ()


def unrolled_scan(equation: Any, operands: Sequence[Any], trips: int) -> list[Any]:
    body, length = equation.params["jaxpr"], equation.params["length"]
    read, written = sliced(equation.invars, opened(body).invars), sliced(equation.outvars, opened(body).outvars)
    carries = written.count(False)
    first = read.count(False) - carries
    carried, slices = list(operands[first : first + carries]), []
    order = range(length)[::-1] if equation.params["reverse"] else range(length)
    for turn in order:
        taken = [x[turn] for x, stack in zip(operands, read, strict=True) if stack]
        carried_and_written = unrolled(body, [*operands[:first], *carried, *taken], constants_of(body), trips)
        carried, out = carried_and_written[:carries], carried_and_written[carries:]
        slices.append(out)
    slices = slices[::-1] if equation.params["reverse"] else slices
    return carried + [jnp.stack(parts) for parts in zip(*slices, strict=True)]


@pytest.mark.parametrize(
    ("function", "shapes", "operations"),
    [
        (jnp.matmul, [(3, 5), (5, 7)], 2 * 3 * 5 * 7),
        (lambda a, b: jnp.einsum("bthd,bshd->bhts", a, b), [(2, 3, 4, 5), (2, 7, 4, 5)], 2 * 2 * 4 * 3 * 7 * 5),
        (lambda a: jnp.tanh(a) + 1.0, [(4, 5)], 2 * 20),
        (lambda a: jnp.sum(a, axis=1), [(4, 5)], 20),
        (lambda a: a.T.reshape(2, 10)[:1], [(4, 5)], 0),
        (lambda a, b: jax.lax.scan(lambda c, x: (c @ x, None), a, b)[0], [(3, 3), (6, 3, 3)], 6 * 2 * 27),
        (lambda a: jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ c, a), [(3, 3)], 4 * (2 * 27 + 1)),
        (lambda a: jax.lax.cond(a[0, 0] < 1, lambda a: a @ a, lambda a: a + 1, a), [(3, 3)], 1 + 1 + 2 * 27),
        (lambda a, b: (a @ b, a)[1], [(3, 3), (3, 3)], 0),
    ],
)
def test_each_kind_of_equation_counts_what_it_computes(function, shapes, operations):
    assert count(function, *shapes, trips=4) == operations


def test_a_linear_solve_counts_the_factorisation_and_two_triangles():
    n, m = 60, 40
    assert count(jnp.linalg.solve, (n, n), (n, m)) == pytest.approx(2 * n**3 / 3 + 2 * n**2 * m, rel=0.1)


@pytest.mark.parametrize("name", ["rome", "memit"])
def test_an_edit_counts_what_xla_counts_of_the_same_program_without_loops(name):
    """One layer: of several, XLA would compute once what the readings of two share, if nothing is in a loop."""
    model, mesh = model_of("gpt2", n_layers=6, d_model=128, vocab_size=600), abstract_mesh(None)
    settings = settings_of(name, {"layers": (1,), "steps": STEPS})
    editor, facts = editor_row(name).make(settings), FACTS._replace(batch=2 if name == "memit" else 1)
    arguments = on_one_device(edit_arguments(model, name, editor, settings, facts, mesh))
    program = trace_edit(model, editor, arguments, mesh).jaxpr

    def without_loops(*leaves: Any) -> list[Any]:
        return unrolled(program, leaves, program.consts, STEPS)

    straight = jax.jit(without_loops).trace(*jax.tree.leaves(arguments))
    assert {"scan", "while", "cond"}.isdisjoint(equation.primitive.name for equation in straight.jaxpr.eqns)
    counted = straight.lower().compile().cost_analysis()["flops"]
    assert flops(program.jaxpr, STEPS) == pytest.approx(counted, rel=0.05)
    looped = trace_edit(model, editor, arguments, mesh).lower().compile().cost_analysis()["flops"]
    assert looped < 0.7 * counted  # why it is not asked


def on_paper(sizes: DecoderConfig, layers: Sequence[int], steps: int, facts: Facts, name: str) -> float:
    """Operations of an edit: twice the weights that each token meets, forward and once more backward to delta (no
    gradient of a weight is taken), and attention's products, two forward and twice as many backward.

    Of the tokens before the subject's last the last layer gives keys and values alone, once; of those from it on all
    layers above the edited one are run at every step, the last for what is predicted alone.
    """
    d, d_q, d_kv = sizes.d_model, sizes.n_heads * sizes.head_width, sizes.kv_heads * sizes.head_width
    seen_by_others = 2 * d * d_kv
    weights = seen_by_others + 2 * d * d_q + (3 if sizes.gated else 2) * d * sizes.d_ff

    def forward(tokens: int, seen: int, n_layers: int) -> int:
        return n_layers * tokens * (2 * weights + 4 * seen * d_q)

    rows, above, n, length = facts.contexts + 1, sizes.n_layers - 1 - layers[-1], facts.batch, facts.tokens
    earlier = length - facts.suffix
    prefix, suffix, predicted = rows * earlier, facts.contexts * facts.suffix + 1, facts.contexts * facts.labels + 1
    once = forward(prefix, earlier, sizes.n_layers - 1) + 2 * prefix * seen_by_others
    once += forward(suffix, length, layers[-1] + 1)
    step = (above - 1) * suffix * (4 * weights + 12 * length * d_q) + 4 * suffix * seen_by_others
    step += predicted * (4 * (weights - seen_by_others) + 12 * length * d_q + 4 * sizes.vocab_size * d)
    total = n * (once + steps * step)
    if name == "memit":  # the streams below the first layer, then at each layer those up to the last and to the next
        total += n * (forward(prefix, earlier, layers[0]) + forward(rows, earlier, layers[0]))
    for layer, following in zip(layers, [*layers[1:], layers[-1]], strict=True):
        total += 2 * n * sizes.d_ff**2 + 2 * n * sizes.d_ff * d  # C^-1 K, and the update onto the weight
        if name == "memit":
            total += n * forward(rows, earlier, layers[-1] + 1 - layer + following - layer)
            total += n * (
                forward(prefix, earlier, layers[-1] - layer + following - layer) + 2 * prefix * seen_by_others
            )
            total += 2 * n * sizes.d_ff * d
    return total


@pytest.mark.parametrize("name", ["rome", "memit"])
@pytest.mark.parametrize("model", ["gpt2-xl", "gpt-j-6b", "llama-3-8b"])
def test_published_models_count_what_a_formula_says(model, name):
    mesh, settings = abstract_mesh(None), settings_of(name, preset_settings(model, name))
    facts = Facts(contexts=7, tokens=30, suffix=11, labels=2, batch=3 if name == "memit" else 1)
    abstract = abstract_model(model, "bfloat16", mesh)
    expected = on_paper(abstract.config, settings.layers, settings.steps, facts, name)
    assert forecast(abstract, name, settings, facts, mesh).flops == pytest.approx(expected, rel=0.05)
