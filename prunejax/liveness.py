"""The fullest moment of a traced program: how many bytes are live when most are, from shapes alone.

The equations are walked in the order in which they were traced. A value is held from the equation that makes it to the
last that reads it; an elementwise operation writes over an operand that dies there; reshapes and broadcasts make
nothing. A loop holds what it carries and all that it stacks, and beside them the fullest moment of its body, once. On a
mesh a device holds its part of a value (`division`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from prunejax.division import Layout, entered, layouts, layouts_of
from prunejax.program import called, everything, made_outputs, opened, size, sliced, used_equations, variables

VIEWS = frozenset(
    "broadcast_in_dim expand_dims name optimization_barrier reshape sharding_constraint squeeze stop_gradient".split()
)
"""Primitives whose output stands in their operand's buffer, or is computed from it where it is read."""

APART = frozenset("concatenate dot_general gather sort transpose".split())
"""Primitives that read an operand in another order than they write: never in place."""


def temporary_bytes(program: Jaxpr, given: Sequence[Layout], mesh: Mapping[str, int]) -> int:
    """Bytes that each device needs at the fullest moment of `program` beside the arguments, outputs included; `given`
    are the arguments' layouts on a mesh of so many devices along each axis.

    Misleads: compilers fuse, reorder and copy. XLA for CPUs also widens half-precision weights to float32, all layers
    of a stack at once, which devices that multiply in half precision need not; and what a runtime sets aside for itself
    is not the program's.
    """
    return _fullest(program, everything(program), given, mesh)


def share(shaped: Any, layout: Layout, mesh: Mapping[str, int]) -> int:
    """Bytes of a value on one device."""
    return size(shaped) // math.prod(mesh[name] for name in layout if name)


def _fullest(program: Jaxpr, wanted: Sequence[bool], given: Sequence[Layout], mesh: Mapping[str, int]) -> int:
    known = layouts(program, given)
    steps = used_equations(program, wanted)
    owners: dict[Var, Var] = {}
    for equation, _ in steps:
        if equation.primitive.name in VIEWS:
            for output, operand in zip(equation.outvars, equation.invars, strict=True):
                if not isinstance(operand, Literal):
                    owners[output] = owners.get(operand, operand)
    transposed: dict[tuple, Var] = {}
    for equation, _ in steps:  # a compiler makes the same transpose once
        if equation.primitive.name == "transpose":
            operand, (output,) = equation.invars[0], equation.outvars
            first = transposed.setdefault((owners.get(operand, operand), equation.params["permutation"]), output)
            owners |= {} if first is output else {output: first}
    last = {owners.get(v, v): number for number, (equation, _) in enumerate(steps) for v in variables(equation.invars)}
    results = [v for v, want in zip(program.outvars, wanted, strict=True) if want]
    last |= {owners.get(v, v): len(steps) for v in variables(results)}
    held: dict[Var, int] = {}
    fullest = 0
    for number, (equation, outputs) in enumerate(steps):
        if equation.primitive.name not in VIEWS | {"iota"} and owners.keys().isdisjoint(equation.outvars):
            made = {v: share(v.aval, known[v], mesh) for v, want in zip(equation.outvars, outputs, strict=True) if want}
            inside = _inside(equation, outputs, known, mesh)
            reused = _written_over(equation, made, {v: taken for v, taken in held.items() if last[v] == number})
            fullest = max(fullest, sum(held.values()) + inside - reused)
            held |= made
        held = {v: taken for v, taken in held.items() if last[v] > number}
    return fullest


def _inside(equation: JaxprEqn, wanted: Sequence[bool], known: Mapping[Var, Layout], mesh: Mapping[str, int]) -> int:
    """Bytes at an equation's fullest moment beside its operands, its outputs included."""
    name, programs = equation.primitive.name, entered(equation, layouts_of(equation.invars, known))
    if programs and name not in ("scan", "while"):
        return max(_fullest(body, wanted, given, mesh) for body, given in programs)
    makes = zip(equation.outvars, made_outputs(equation, wanted), strict=True)
    made = sum(share(v.aval, known[v], mesh) for v, makes_it in makes if makes_it)
    if name == "scan":
        return made + _turn(equation, wanted, programs[0][1], mesh)
    return made + sum(_fullest(body, everything(body), given, mesh) for body, given in programs)


def _turn(equation: JaxprEqn, wanted: Sequence[bool], given: Sequence[Layout], mesh: Mapping[str, int]) -> int:
    """What a scan holds beside what it carries and stacks: of `unroll` turns at a time the slices that they read and
    write; and if those do not divide its length, two parts of each stack are joined at the end, one stack at a time."""
    body, length = opened(equation.params["jaxpr"]), equation.params["length"]
    unroll = min(int(equation.params["unroll"]), length)
    known, wanted = layouts(body, given), made_outputs(equation, wanted)
    outputs = zip(body.outvars, layouts_of(body.outvars, known), sliced(equation.outvars, body.outvars), strict=True)
    written = [
        share(v.aval, lay, mesh) for (v, lay, stack), want in zip(outputs, wanted, strict=True) if stack and want
    ]
    operands = zip(body.invars, given, sliced(equation.invars, body.invars), strict=True)
    read = sum(share(v.aval, lay, mesh) for v, lay, stack in operands if stack)
    others = (unroll - 1) * (read + _sliced_bytes(body, given, mesh) + sum(written))
    turns = read + _fullest(body, wanted, given, mesh) + others
    return max(turns, length * max(written, default=0) if length % unroll else 0)


def _sliced_bytes(program: Jaxpr, given: Sequence[Layout], mesh: Mapping[str, int]) -> int:
    """Bytes of all slices at a variable place, a layer's weights of the stack: turns of a loop that run together read
    theirs together."""
    known = layouts(program, given)
    found = 0
    for equation in program.eqns:
        if equation.primitive.name == "dynamic_slice":
            found += share(equation.outvars[0].aval, known[equation.outvars[0]], mesh)
        elif (body := called(equation)) is not None:
            found += _sliced_bytes(body, layouts_of(equation.invars, known), mesh)
    return found


def _written_over(equation: JaxprEqn, made: Mapping[Var, int], dying: Mapping[Var, int]) -> int:
    """Bytes of an equation's one output that come to stand in the buffer of an operand that is not read again."""
    if len(equation.outvars) > 1 or equation.primitive.name in APART or called(equation) is not None:
        return 0
    ((output, taken),) = made.items()
    fits = any(v.aval.shape == output.aval.shape and held >= taken for v, held in dying.items())
    return taken if fits else 0
