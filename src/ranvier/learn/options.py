"""Checks of a caller's arguments: options of rules, and functions."""

from __future__ import annotations

import inspect
import math
from numbers import Integral, Real
from typing import Any

from ..errors import RanvierError, RuleError


def check_number(call: str, value: Any, advice: str, *, below: float = math.inf, most: float = math.inf) -> None:
    """Raises :class:`RuleError` unless an option is a real number from 0 up to a limit.

    Args:
        call: the option as written, e.g. ``"OTTT(decay="``.
        value: what was passed.
        advice: what to write instead.
        below: a limit that is not reached.
        most: a limit that may be.
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not (0 <= number <= most and number < below):
        wanted = "of at least 0" if math.isinf(limit := min(below, most)) else f"from 0 to {limit:g}"
        wanted += f", less than {below:g}" if math.isfinite(below) else ""
        raise RuleError(f"{call}{value!r}) needs a Python number {wanted}; {advice}.")


def check_whole(call: str, value: Any, advice: str, *, least: int = 0) -> None:
    """Raises :class:`RuleError` unless an option is a whole number of at least ``least``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise RuleError(f"{call}{value!r}) needs a whole number of at least {least}; {advice}.")


def check_function(
    name: str,
    function: Any,
    arguments: tuple[str, ...],
    example: str,
    error: type[RanvierError],
    *,
    hashed: bool = True,
) -> None:
    """Raises an error unless something can be called with these arguments, and hashed, as a key of compiled code.

    Args:
        name: what it is for.
        function: what was passed.
        arguments: names of the arguments it gets.
        example: an expression that would do.
        error: the error's type.
        hashed: whether it has to be hashable.
    """
    wanted = f"{name}({', '.join(arguments)})"
    if not callable(function):
        raise error(f"{name} is {function!r}, but it must be a function {wanted}, e.g. `{example}`.")
    if hashed and getattr(type(function), "__hash__", None) is None:
        raise error(
            f"{name} is a {type(function).__name__}, which cannot be hashed; wrap it in a function, as in `{example}`."
        )
    try:
        # Tried here: within a compiled call, the same mistake is an error deep inside JAX.
        inspect.signature(function).bind(*arguments)
    except TypeError as why:
        raise error(f"{name} cannot be called as {wanted}: {why}; write, for example, `{example}`.") from why
    # Some functions written in C have no signature; whether they fit shows when they are called.
    except ValueError:
        return
