"""Short, stable names for the variables of a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ._jax import Literal, Var, dtype_of, shape_of


def variable_text(atom: Any, names: Mapping[Var, str]) -> str:
    """Name, dtype and shape of a variable, or the value of a literal."""
    if isinstance(atom, Literal):
        return str(atom.val)
    shape = ",".join(str(size) for size in shape_of(atom))
    return f"{names[atom]}:{dtype_of(atom)}[{shape}]"


def letters() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ... without end."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    number = 0
    while True:
        text, rest = "", number
        # Digits to the base of 26 without a zero: after z comes aa, not ba.
        while True:
            text = alphabet[rest % 26] + text
            rest = rest // 26 - 1
            if rest < 0:
                break
        yield text
        number += 1
