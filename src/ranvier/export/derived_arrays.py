"""Arrays that are made of parameters, as Python statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ExportError
from ..graph.shared import ParameterBinding
from ..graph.taking import Picked, Taking
from ..program._jax import open_jaxpr, shape_of
from ..program.analysis.explanations import equation_text
from ..program.formula import FUNCTIONS, NUMBERED, NoFormula, Step, formula_of, listed, parted_options

Keep = Callable[[str, np.ndarray], str]
"""Puts an array that does not change under a name beside the text, and says how the text reads it."""


def statements_of(
    use: ParameterBinding, operands: Sequence[str], shapes: Sequence[tuple[int, ...]], name: str, keep: Keep
) -> list[str]:
    """Statements that make an array, the last of which gives it a name.

    Args:
        use: how it is made.
        operands: texts of the parameters.
        shapes: of these.
        name: of the variable.
        keep: for arrays that do not change.

    Raises:
        ExportError: a function of the parameters cannot be written as source.
    """
    lines, whole, shape = [], operands[0], shapes[0]
    if use.function is not None:
        lines = _steps(use, operands, name, keep)
        (result,) = open_jaxpr(use.function.jaxpr)[0].outvars
        whole, shape = name, shape_of(result)
    if use.index is not None:
        whole = _taken(whole, Taking.of(shape, use.index), keep)
    return lines if whole == name else [*lines, f"{name} = {whole}"]


def _steps(use: ParameterBinding, operands: Sequence[str], name: str, keep: Keep) -> list[str]:
    assert use.function is not None
    try:
        formula = formula_of(use.function)
    except NoFormula as error:
        raise ExportError(
            f"{', '.join(use.parameters)}: {equation_text(error.equation)} is not written as source; the pass 'untie' "
            "makes its result a parameter of its own, and export_artifact(model, path) writes any model."
        ) from error
    values, lines, constants = list(operands), [], 0
    for number, step in enumerate(formula.steps, 1):
        arguments = []
        for x in step.operands:
            if isinstance(x, int):
                arguments.append(values[x])
                continue
            arguments.append(_number(x) if x.ndim == 0 else keep(f"constant {constants}", x))
            constants += x.ndim > 0
        values.append(f"{name}_{number}" if number < len(formula.steps) else name)
        lines.append(f"{values[-1]} = {_call(step, arguments)}")
    return lines


def _call(step: Step, operands: list[str]) -> str:
    function, _ = FUNCTIONS[step.operation]
    arguments = listed(step.operation, operands, lambda rest: f"[{', '.join(rest)}]")
    numbers, options = parted_options(step)
    if numbers:
        arguments = [*arguments, f"{NUMBERED[step.operation][0]}({_options(numbers)})"]
    return f"{function}({', '.join([*arguments, *([_options(options)] if options else [])])})"


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_single(value)!r}" for key, value in options.items())


def _number(value: np.ndarray) -> str:
    """A number with its dtype, which the functions of ``lax`` insist on."""
    plain = value.item()
    return f"np.{_single(value.dtype.name)}({plain!r})" if np.isfinite(plain) else f"np.float32({str(plain)!r})"


def _single(option: Any) -> Any:
    """Source computes in single precision."""
    return "float32" if isinstance(option, str) and option in ("float16", "float64") else option


def _taken(x: str, taking: Taking, keep: Keep) -> str:
    if taking.whole:
        return f"{x}.reshape({taking.index.shape!r})"
    if taking.rows is None or taking.columns is None:
        return f"{x}.reshape(-1)[{keep('index', taking.index)}]"
    block = f"{x}[{_picked('rows', taking.rows, keep)}][:, {_picked('columns', taking.columns, keep)}]"
    return f"jnp.transpose({block})" if taking.transposed else block


def _picked(label: str, picked: Picked, keep: Keep) -> Any:
    return f"{picked.start}:{picked.stop}" if isinstance(picked, slice) else keep(label, picked)
