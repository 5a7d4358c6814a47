"""Floating-point operations of a traced program, counted equation by equation; nothing is compiled or run.

A matrix product of [m, k] and [k, n] is 2 m k n, an elementwise operation 1 a number, transcendental or not, a
reduction 1 a number that goes in, and moving numbers about (slices, transposes, gathers) nothing. A scan's body counts
as often as it runs, which XLA's own count of a compiled program does not do: that counts a loop's body once.
"""

import math
from collections.abc import Sequence

from jax.extend.core import Jaxpr, JaxprEqn

from prunejax.program import called, elements, everything, made_outputs, opened, used_equations

MOVES = frozenset(
    "broadcast_in_dim concatenate copy device_put dynamic_slice dynamic_update_slice expand_dims gather iota name pad "
    "optimization_barrier reshape rev scatter sharding_constraint slice split squeeze stop_gradient transpose".split()
)
"""Primitives that compute nothing."""


def flops(program: Jaxpr, trips: int) -> int:
    """Operations of one run of `program`, where every loop whose end depends on the data runs `trips` times and every
    branch is the dearest one.

    Misleads: it says nothing of how many operations a second a device reaches. At few tokens weights are read more
    slowly than they are multiplied, and what is counted here is not what takes the time.
    """
    return _flops(program, everything(program), trips)


def _flops(program: Jaxpr, wanted: Sequence[bool], trips: int) -> int:
    return sum(_of(equation, outputs, trips) for equation, outputs in used_equations(program, wanted))


def _of(equation: JaxprEqn, wanted: Sequence[bool], trips: int) -> int:
    name, params = equation.primitive.name, equation.params
    if (body := called(equation)) is not None:
        return _flops(body, wanted, trips)
    if name == "scan":
        return params["length"] * _flops(opened(params["jaxpr"]), made_outputs(equation, wanted), trips)
    if name == "while":
        return trips * sum(flops(opened(params[part]), trips) for part in ("cond_jaxpr", "body_jaxpr"))
    if name == "cond":
        return max(_flops(opened(branch), wanted, trips) for branch in params["branches"])
    if name == "custom_linear_solve":
        return flops(opened(params["jaxprs"].solve), trips)
    return _of_primitive(equation)


def _of_primitive(equation: JaxprEqn) -> int:
    name, operands = equation.primitive.name, equation.invars
    written = sum(elements(output.aval) for output in equation.outvars)
    if name in MOVES:
        return 0
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * written * math.prod(operands[0].aval.shape[axis] for axis in contracted)
    if name == "lu":
        n = operands[0].aval.shape[-1]
        return 2 * n * elements(operands[0].aval) // 3
    if name == "triangular_solve":
        return operands[0].aval.shape[-1] * written
    if name.startswith(("reduce_", "cum", "arg")):
        return elements(operands[0].aval)
    if name.startswith("scatter"):  # adds and the like; a plain scatter moves
        return elements(operands[2].aval)
    return written
