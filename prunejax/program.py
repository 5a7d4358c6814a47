"""A traced program (a jaxpr) as equations: which are used, what they call, and how many bytes their values take."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

CALLED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Primitives that run another program once on their own operands, and the parameter that holds it."""


class Used(NamedTuple):
    """An equation of which something is used later, and which of its outputs are."""

    equation: JaxprEqn
    wanted: tuple[bool, ...]


def opened(program: Any) -> Jaxpr:
    """The jaxpr itself, also of one that is closed over constants."""
    return getattr(program, "jaxpr", program)


def called(equation: JaxprEqn) -> Jaxpr | None:
    """The program that an equation runs once on its operands, None if it is no such call."""
    parameter = CALLED.get(equation.primitive.name)
    return None if parameter is None else opened(equation.params[parameter])


def variables(atoms: Sequence[Any]) -> list[Var]:
    """Those that are no literals."""
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def used_equations(program: Jaxpr, wanted: Sequence[bool]) -> list[Used]:
    """The equations, in order, that the wanted outputs of `program` need: a compiler drops the others."""
    needed = set(variables([v for v, want in zip(program.outvars, wanted, strict=True) if want]))
    found = []
    for equation in reversed(program.eqns):
        outputs = tuple(v in needed for v in equation.outvars)
        if any(outputs):
            needed.update(variables(equation.invars))
            found.append(Used(equation, outputs))
    return found[::-1]


def sliced(outside: Sequence[Any], inside: Sequence[Any]) -> list[bool]:
    """Of the operands or outputs of a scan, which are stacks that its body reads or writes a slice of."""
    return [whole.aval.ndim > part.aval.ndim for whole, part in zip(outside, inside, strict=True)]


def made_outputs(equation: JaxprEqn, wanted: Sequence[bool]) -> list[bool]:
    """Which outputs an equation makes: those that are wanted, and of a loop also all that it carries."""
    if equation.primitive.name == "scan":
        stacks = sliced(equation.outvars, opened(equation.params["jaxpr"]).outvars)
        return [want or not stack for want, stack in zip(wanted, stacks, strict=True)]
    return [want or equation.primitive.name == "while" for want in wanted]


def everything(program: Jaxpr) -> list[bool]:
    """All outputs are wanted."""
    return [True] * len(program.outvars)


def elements(shaped: Any) -> int:
    """How many numbers a value of this type, or an array, holds."""
    return math.prod(shaped.shape)


def size(shaped: Any) -> int:
    """Bytes of a value of this type, or of an array."""
    return elements(shaped) * shaped.dtype.itemsize
