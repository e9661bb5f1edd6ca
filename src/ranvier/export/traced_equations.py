"""The equations of a traced population as Python statements, with the names of ``jax.numpy``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ExportError
from ..program._jax import Equation, Literal, Var, dtype_of, is_floating, open_jaxpr
from ..program.analysis.explanations import equation_text
from ..program.bodies import called_body, has_own_derivative
from ..program.scalar import forward_of

BINARY = {
    "add": "+", "add_any": "+", "sub": "-", "mul": "*", "div": "/",
    "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "==", "ne": "!=", "and": "&", "or": "|",
}  # fmt: skip
FUNCTIONS = {
    "exp": "jnp.exp", "log": "jnp.log", "log1p": "jnp.log1p", "expm1": "jnp.expm1", "tanh": "jnp.tanh",
    "sin": "jnp.sin", "cos": "jnp.cos", "sqrt": "jnp.sqrt", "rsqrt": "lax.rsqrt", "abs": "jnp.abs",
    "sign": "jnp.sign", "floor": "jnp.floor", "ceil": "jnp.ceil", "logistic": "jax.nn.sigmoid",
    "max": "jnp.maximum", "min": "jnp.minimum", "pow": "jnp.power", "rem": "jnp.fmod", "erf": "lax.erf",
    "stop_gradient": "lax.stop_gradient", "square": "jnp.square", "atan2": "jnp.arctan2", "not": "jnp.logical_not",
}  # fmt: skip
PASSED = frozenset(["copy", "reshape", "broadcast_in_dim", "squeeze"])


class TracedEquations:
    """Statements for the equations of one function.

    Attributes:
        lines: the statements so far.
        functions: by its text without a name, the name of every function with a derivative of its own, such as a spike;
            functions of several populations that are alike are one.
        inside: bodies of the functions that these equations are a part of.
    """

    def __init__(
        self, where: str, prefix: str, functions: dict[str, str], inside: frozenset[str] = frozenset()
    ) -> None:
        self.where, self.prefix, self.functions, self.inside = where, prefix, functions, inside
        self.lines: list[str] = []
        self.count = 0

    def results(self, closed: Any, operands: Sequence[str]) -> list[str]:
        """Expressions for the results, from those for the operands."""
        jaxpr, consts = open_jaxpr(closed)
        known: dict[Var, str] = dict(zip(jaxpr.invars, operands, strict=True))
        known.update((var, _number(np.asarray(c).flat[0])) for var, c in zip(jaxpr.constvars, consts, strict=True))
        for eqn in jaxpr.eqns:
            operand_texts = [_number(a.val) if isinstance(a, Literal) else known[a] for a in eqn.invars]
            for out, text in zip(eqn.outvars, self._expressions(eqn, operand_texts), strict=True):
                known[out] = text
        return [_number(a.val) if isinstance(a, Literal) else known[a] for a in jaxpr.outvars]

    def _expressions(self, eqn: Equation, operands: list[str]) -> list[str]:
        name = eqn.primitive.name
        if name in PASSED:
            return [operands[0]]
        if has_own_derivative(eqn) and called_body(eqn) is not None:
            return self._called(eqn, operands)
        if called_body(eqn) is not None:
            return self.results(called_body(eqn), operands)
        text = _text(eqn, operands)
        if text is None:
            raise ExportError(
                f"{self.where}: {equation_text(eqn)} is not written as source; export_artifact(model, path) "
                "writes any model."
            )
        self.count += 1
        variable = f"{self.prefix}_{self.count}"
        self.lines.append(f"{variable} = {text}")
        return [variable]

    def _called(self, eqn: Equation, operands: list[str]) -> list[str]:
        """A function with its own derivative, called."""
        own = str(called_body(eqn))
        if own in self.inside:
            return [f"NAME({', '.join(operands)})"]  # the rule of a derivative may call the function itself
        names = [f"x{k}" for k in range(len(operands))]
        moving = [k for k, atom in enumerate(eqn.invars) if is_floating(dtype_of(atom))]
        body = self._body(called_body(eqn), names, own)
        rule = self._body(forward_of(eqn), [*names, *(f"t{k}" for k in moving)], own, pairs=len(eqn.outvars))
        arguments = ", ".join(names)
        text = "\n".join(
            [
                "@jax.custom_jvp",
                f"def NAME({arguments}):",
                *body,
                "",
                "",
                "@NAME.defjvp",
                "def _NAME_derivative(primals, tangents):",
                f"    {arguments}{',' if len(names) == 1 else ''} = primals",
                *(f"    t{k} = tangents[{k}]" for k in moving),
                *rule,
            ]
        )
        name = self.functions.setdefault(text, f"surrogate_{len(self.functions) + 1}")
        call = f"{name}({', '.join(operands)})"
        if len(eqn.outvars) == 1:
            return [call]
        return [f"{call}[{k}]" for k in range(len(eqn.outvars))]

    def _body(self, closed: Any, operands: list[str], own: str, pairs: int = 0) -> list[str]:
        """The statements of a function, with its return; with pairs, of results and their tangents."""
        inner = TracedEquations(self.where, "y", self.functions, self.inside | {own})
        results = inner.results(closed, operands)
        lines = [f"    {line}" for line in inner.lines]
        if not pairs:
            return [*lines, f"    return {', '.join(results)}"]
        values, tangents = results[:pairs], results[pairs:]
        both = [", ".join(part) if pairs == 1 else f"({', '.join(part)})" for part in (values, tangents)]
        return [*lines, f"    return {both[0]}, {both[1]}"]


def _text(eqn: Equation, operands: list[str]) -> str | None:
    """One equation as an expression; None for what there are no words for."""
    name = eqn.primitive.name
    if name in BINARY:
        return f"{operands[0]} {BINARY[name]} {operands[1]}"
    if name in FUNCTIONS:
        return f"{FUNCTIONS[name]}({', '.join(operands)})"
    special: dict[str, Callable[[], str]] = {
        "neg": lambda: f"-{operands[0]}",
        "select_n": lambda: f"jnp.where({operands[0]}, {operands[2]}, {operands[1]})",
        "integer_pow": lambda: f"{operands[0]} ** {eqn.params['y']}",
        "convert_element_type": lambda: _converted(eqn, operands[0]),
        "clamp": lambda: f"jnp.clip({operands[1]}, {operands[0]}, {operands[2]})",
        "heaviside_surrogate_gradient": lambda: f"heaviside({operands[0]}, {operands[1]})",
        "exprel": lambda: f"jnp.where({operands[0]} == 0, 1.0, jnp.expm1({operands[0]}) / {operands[0]})",
    }
    make = special.get(name)
    return None if make is None else make()


def _converted(eqn: Equation, x: str) -> str:
    new = np.dtype(eqn.params["new_dtype"])
    if is_floating(new):
        return x if is_floating(dtype_of(eqn.invars[0])) else f"jnp.asarray({x}, jnp.float32)"
    return f"jnp.asarray({x}).astype(jnp.{new.name})"


def _number(value: Any) -> str:
    array = np.asarray(value)
    if array.dtype == np.bool_:
        return repr(bool(array))
    if np.issubdtype(array.dtype, np.integer):
        return repr(int(array))
    single = float(str(np.float32(array))) if np.float32(array) == array else float(array)
    if not np.isfinite(single):
        return f"float({str(single)!r})"
    return repr(single) if single >= 0 else f"({single!r})"
