"""Short, stable names for the variables of a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ._jax import Literal, Var, dtype_of, shape_of
from .paths import path_text

if TYPE_CHECKING:
    from .program import ModuleInfo


def variable_names(info: ModuleInfo) -> dict[Var, str]:
    """Names for all variables: slot paths for operands, a prime for new values, letters in order otherwise."""
    names: dict[Var, str] = {}
    for index, var in enumerate(info.input_invars):
        names[var] = f"x{index}"
    for slots, invars in ((info.parameters, info.weight_invars), (info.other, info.other_invars)):
        names.update(zip(invars, (name for slot in slots for name in slot.leaf_names), strict=True))
    for path, var in info.hidden_path_to_invar.items():
        names[var] = path_text(path)
    for path, var in info.hidden_path_to_outvar.items():
        names[var] = path_text(path) + "'"
    letters = _letters()
    for eqn in info.equations:
        for var in eqn.outvars:
            if var not in names:
                names[var] = next(letters)
    for var in info.jaxpr.constvars:
        names[var] = next(letters)
    return names


def variable_text(atom: Any, names: Mapping[Var, str]) -> str:
    """Name, dtype and shape of a variable, or the value of a literal."""
    if isinstance(atom, Literal):
        return str(atom.val)
    shape = ",".join(str(size) for size in shape_of(atom))
    return f"{names[atom]}:{dtype_of(atom)}[{shape}]"


def _letters() -> Iterator[str]:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    number = 0
    while True:
        text, rest = "", number
        while True:
            text = alphabet[rest % 26] + text
            rest = rest // 26 - 1
            if rest < 0:
                break
        yield text
        number += 1
