"""Names in exported source: how variables are called after what people called their neurons, and that no name is code.

A name of the graph can be any text. Where it is data it stands in the program as a string; a variable is called after
it with what an identifier can have. The variables of an element are its own and those that begin with it and an
underscore, so no element may begin with another one's name and an underscore. What was written is then read again: a
program may use only what it defines itself, a few builtins, and modules it is known to need.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..errors import ExportError, reason_text

LONGEST = 40
"""Characters of a name that a variable is called after."""
IMPORTS = ("import hashlib", "import io", "from pathlib import Path", "import jax", "import jax.numpy as jnp")
IMPORTS = (*IMPORTS, "import numpy as np", "from jax import lax")
MODULES = frozenset(["hashlib", "io", "Path", "jax", "jnp", "np", "lax"])
FUNCTIONS = frozenset(["content", "load", "initial_state", "step", "spike", "spike_at", "heaviside"])
CONSTANTS = frozenset(["NAME", "DT", "FILE", "SHA256", "NAMES"])
BUILTINS = frozenset(["dict", "enumerate", "sum", "int", "ImportError", "__file__"])
LOCALS = frozenset(["arrays", "state", "inputs", "new", "surrogate"])
OWN = MODULES | FUNCTIONS | CONSTANTS | BUILTINS | LOCALS
"""What the program itself uses."""
METHODS = frozenset(
    ["read_bytes", "with_suffix", "hexdigest", "setdefault", "reshape", "astype", "shape", "dtype", "defjvp"]
)
"""Attributes of values; all others are of modules."""


class Names:
    """Variables for the elements of a graph.

    Attributes:
        issued: the names so far.
    """

    def __init__(self, own: Iterable[str]) -> None:
        self._taken = {*own, *keyword.kwlist, *keyword.softkwlist, *dir(builtins)}
        self._stems = {stem for name in self._taken for stem in _stems(name)}
        self._numbers: dict[str, int] = {}
        self.issued: set[str] = set()

    def variable(self, name: str) -> str:
        """What a variable is called after an element; further ones may be called so with an underscore and more."""
        wanted = _identifier(name)
        for candidate in self._candidates(wanted):
            if candidate not in self._stems and self._taken.isdisjoint([candidate, *_stems(candidate)]):
                self._taken.add(candidate)
                self._stems.update(_stems(candidate))
                self.issued.add(candidate)
                return candidate
        raise AssertionError

    def _candidates(self, wanted: str) -> Iterator[str]:
        yield wanted
        joined = wanted.replace("_", "")
        yield joined
        while True:
            self._numbers[joined] = self._numbers.get(joined, 1) + 1
            yield f"{joined}{self._numbers[joined]}"

    def parts(self, prefix: str, names: Sequence[str]) -> list[str]:
        """Variables of one element, called after names of its own."""
        parts: list[str] = []
        for name in names:
            wanted = part = f"{prefix}_{_identifier(name)}"
            number = 1
            while part in parts:
                number += 1
                part = f"{wanted}_{number}"
            parts.append(part)
        return parts


def _stems(name: str) -> list[str]:
    """All that a name begins with before an underscore."""
    return [name[: match.start()] for match in re.finditer("_", name)]


def _identifier(name: str) -> str:
    """What of a name an identifier can have, which does not begin with a digit or an underscore."""
    plain = re.sub(r"[^0-9A-Za-z]+", "_", name[:LONGEST]).strip("_") or "value"
    return f"n{plain}" if plain[0].isdigit() else plain


# What was written ---------------------------------------------------------------------------------------------------


def check_program(text: str, issued: Iterable[str]) -> None:
    """Passes for a program that compiles, and whose names are those that were meant.

    Args:
        text: of the program.
        issued: what variables are called after.

    Raises:
        ExportError: it does not compile, imports something, or uses or assigns a name that it should not.
    """
    try:
        tree = ast.parse(text)
        compile(tree, "exported source", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExportError(f"the source does not compile, so it was not written: {reason_text(error)}.") from error
    if wrong := [*_wrong_statements(tree), *_wrong_names(tree, set(issued))]:
        raise ExportError(f"the source uses names that are not its own, so it was not written: {', '.join(wrong[:3])}.")


def _wrong_statements(tree: ast.Module) -> Iterator[str]:
    """What stands in a module beside imports, constants and functions that it is known to have."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and ast.unparse(node) not in IMPORTS:
            yield ast.unparse(node)
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from (ast.unparse(target) for target in node.targets if ast.unparse(target) not in CONSTANTS)
        elif isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            if ast.unparse(node) != "content()":
                yield ast.unparse(node)[:60]
        elif not isinstance(node, (ast.FunctionDef, ast.Import, ast.ImportFrom, ast.Expr)):
            yield ast.unparse(node)[:60]


def _wrong_names(tree: ast.Module, issued: set[str]) -> Iterator[str]:
    """Names that are read without being defined, assigned more often than once, or hide others."""
    functions = Counter(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    yield from (f"{name}, which is defined {count} times" for name, count in functions.items() if count > 1)
    known = {*functions} | MODULES | CONSTANTS | BUILTINS
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        names = [name for name in ast.walk(node) if isinstance(name, ast.Name)]
        arguments = {argument.arg for argument in node.args.args}
        assigned = Counter(name.id for name in names if isinstance(name.ctx, ast.Store))
        yield from known & {*assigned, *arguments}
        yield from {name.id for name in names} - known - arguments - {*assigned}
        if node.name == "step":
            yield from _wrong_variables(assigned, issued)
    yield from _wrong_attributes(tree)


def _wrong_variables(assigned: Mapping[str, int], issued: set[str]) -> Iterator[str]:
    """Variables of a step that were not issued, or that are assigned twice."""
    for name, count in assigned.items():
        if name != "new" and issued.isdisjoint([name, *_stems(name)]):
            yield name
        if count > 1:
            yield f"{name}, which is assigned {count} times"


def _wrong_attributes(tree: ast.Module) -> Iterator[str]:
    """Attributes that are neither a module's nor of the few that values need."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr not in METHODS:
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if not (isinstance(root, ast.Name) and root.id in MODULES) or node.attr.startswith("_"):
                yield ast.unparse(node)[:60]
