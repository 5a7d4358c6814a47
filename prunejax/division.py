"""How the values of a traced program are divided among the devices of a mesh, followed from its arguments on.

A layout names for each axis of a value the axis of the mesh that divides it, or None: (None, "model") is a matrix whose
columns lie on different devices. A product is divided along the axes that stay, and whole where the one that is summed
over was divided; what is elementwise is divided as its operands are.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from prunejax.program import called, opened, sliced

Layout = tuple[str | None, ...]

Rule = Callable[[JaxprEqn, Sequence[Layout], tuple[int, ...]], Layout]
"""An output's layout from the operands' and the output's shape."""


def layouts(program: Jaxpr, given: Sequence[Layout]) -> dict[Var, Layout]:
    """The layout of every value of a program whose arguments have the layouts `given`.

    Misleads: it looks forward only, where XLA's partitioner also divides a value by what it is needed for, and puts a
    divided one together where it sees fit.
    """
    known = dict(zip(program.invars, given, strict=True))
    for equation in program.eqns:
        results = _results(equation, layouts_of(equation.invars, known))
        known.update(zip(equation.outvars, map(_once, results), strict=True))
    return known


def layouts_of(atoms: Sequence[Any], known: Mapping[Var, Layout]) -> list[Layout]:
    """The layouts of operands or results; what is not known is whole."""
    return [
        (None,) * atom.aval.ndim if isinstance(atom, Literal) or atom not in known else known[atom] for atom in atoms
    ]


def entered(equation: JaxprEqn, operands: Sequence[Layout]) -> list[tuple[Jaxpr, list[Layout]]]:
    """The programs that an equation runs on its operands, each with the layouts of its arguments: one, or the branches
    of a condition, or none. What a loop carries is as divided as at the start and after a turn."""
    name, params = equation.primitive.name, equation.params
    if (body := called(equation)) is not None:
        return [(body, list(operands))]
    if name == "cond":
        return [(opened(branch), list(operands[1:])) for branch in params["branches"]]
    if name == "while":
        given, constants = list(operands[params["cond_nconsts"] :]), params["body_nconsts"]
        body = opened(params["body_jaxpr"])
        return [(body, _carried(body, given, constants, len(given) - constants))]
    if name == "scan":
        body = opened(params["jaxpr"])
        stacks = sliced(equation.invars, body.invars)
        given = [layout[1:] if stack else layout for layout, stack in zip(operands, stacks, strict=True)]
        carries = sliced(equation.outvars, body.outvars).count(False)
        return [(body, _carried(body, given, stacks.count(False) - carries, carries))]
    return []


def _carried(body: Jaxpr, given: list[Layout], first: int, count: int) -> list[Layout]:
    """A loop body's arguments, `count` of which, from `first` on, come back as its first outputs."""
    after = layouts_of(body.outvars, layouts(body, given))[:count]
    carried = [_both(pair) for pair in zip(given[first : first + count], after, strict=True)]
    return given[:first] + carried + given[first + count :]


def _both(options: Sequence[Layout]) -> Layout:
    """Divided wherever one of the layouts is."""
    return _once([next((name for name in names if name), None) for names in zip(*options, strict=True)])


def _once(layout: Iterable[str | None]) -> Layout:
    """No axis of the mesh divides two axes of a value: the first keeps it."""
    found: list[str | None] = []
    for name in layout:
        found.append(None if name in found else name)
    return tuple(found)


def _results(equation: JaxprEqn, operands: Sequence[Layout]) -> list[Layout]:
    if programs := entered(equation, operands):
        found = [layouts_of(body.outvars, layouts(body, given)) for body, given in programs]
        results = [_both(options) for options in zip(*found, strict=True)]
        return [
            (None,) * (output.aval.ndim - len(layout)) + layout
            for output, layout in zip(equation.outvars, results, strict=True)
        ]
    rule = _reduce if "axes" in equation.params else RULES.get(equation.primitive.name, _alike)
    return [rule(equation, operands, output.aval.shape) for output in equation.outvars]


def _alike(equation: JaxprEqn, operands: Sequence[Layout], shape: tuple[int, ...]) -> Layout:
    """Elementwise operations, slices, joins: axis by axis as the operands that are as long there."""
    alike = [
        tuple(
            name if size == length else None for name, size, length in zip(layout, atom.aval.shape, shape, strict=True)
        )
        for layout, atom in zip(operands, equation.invars, strict=True)
        if len(layout) == len(shape)
    ]
    return _both(alike or [(None,) * len(shape)])


def _product(equation: JaxprEqn, operands: Sequence[Layout], shape: tuple[int, ...]) -> Layout:
    summed, batch = equation.params["dimension_numbers"]
    both = _both([tuple(layout[axis] for axis in axes) for layout, axes in zip(operands, batch, strict=True)])
    stays = [
        name
        for layout, gone, shared in zip(operands, summed, batch, strict=True)
        for axis, name in enumerate(layout)
        if axis not in (*gone, *shared)
    ]
    return (*both, *stays)


def _transpose(equation: JaxprEqn, operands: Sequence[Layout], shape: tuple[int, ...]) -> Layout:
    return tuple(operands[0][axis] for axis in equation.params["permutation"])


def _broadcast(equation: JaxprEqn, operands: Sequence[Layout], shape: tuple[int, ...]) -> Layout:
    named = dict(zip(equation.params["broadcast_dimensions"], operands[0], strict=True))
    return tuple(named.get(axis) for axis in range(len(shape)))


def _reduce(equation: JaxprEqn, operands: Sequence[Layout], shape: tuple[int, ...]) -> Layout:
    return tuple(name for axis, name in enumerate(operands[0]) if axis not in equation.params["axes"])


def _squeeze(equation: JaxprEqn, operands: Sequence[Layout], shape: tuple[int, ...]) -> Layout:
    return tuple(name for axis, name in enumerate(operands[0]) if axis not in equation.params["dimensions"])


def _reshape(equation: JaxprEqn, operands: Sequence[Layout], shape: tuple[int, ...]) -> Layout:
    """Axes that are joined are divided as the first of them, and of those that one is cut into the first is."""
    starts: dict[int, str | None] = {}
    before = 1
    for size, name in zip(equation.invars[0].aval.shape, operands[0], strict=True):
        starts |= {before: name} if size > 1 else {}
        before *= size
    found: list[str | None] = []
    before = 1
    for size in shape:
        found.append(starts.get(before) if size > 1 else None)
        before *= size
    return tuple(found)


def _gather(equation: JaxprEqn, operands: Sequence[Layout], shape: tuple[int, ...]) -> Layout:
    """Axes that are taken whole stay divided; those that are looked up are divided as the indices are."""
    numbers, taken = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    table = zip(operands[0], equation.invars[0].aval.shape, taken, strict=True)
    kept = iter([name if size == part else None for axis, (name, size, part) in enumerate(table) if axis not in gone])
    looked_up = iter(operands[1][:-1])
    return tuple(next(kept if axis in numbers.offset_dims else looked_up) for axis in range(len(shape)))


def _first(equation: JaxprEqn, operands: Sequence[Layout], shape: tuple[int, ...]) -> Layout:
    return operands[0]


def _placed(equation: JaxprEqn, operands: Sequence[Layout], shape: tuple[int, ...]) -> Layout:
    spec = equation.params["sharding"].spec
    return _both([(*spec, *(None,) * (len(shape) - len(spec))), operands[0]])


RULES: Mapping[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "dot_general": _product,
    "gather": _gather,
    "reshape": _reshape,
    "scatter": _first,
    "scatter-add": _first,
    "sharding_constraint": _placed,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
"""By primitive; those with an "axes" reduce over them, and all others are elementwise or nearly so."""
