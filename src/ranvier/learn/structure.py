"""Parameters and gradients in the model's own structure, as an alternative to dictionaries by path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..errors import InputError
from ..frontends.build import named_leaves
from ..frontends.step_function import StepFunction
from ..frontends.units import bare, is_quantity
from ..program._jax import Tracer
from ..program.paths import Path, path_text
from ..program.program import ModuleInfo


class Structure:
    """How a model arranges its parameters in its own pytree.

    That is the ``params`` of a step function; of a module, dictionaries within each other, by the parts of the paths.
    Leaves of a step function's ``params`` that are not trained have None in their place.
    """

    def __init__(self, model: Any, info: ModuleInfo) -> None:
        self._paths = [slot.path for slot in info.parameters]
        if isinstance(model, StepFunction):
            self._leaves = named_leaves(model.params, "params")
            self._treedef = jax.tree.structure(model.params, is_leaf=is_quantity)
        else:
            named, self._treedef = jax.tree.flatten(_by_parts(self._paths))
            self._leaves = [(leaf.path, None) for leaf in named]

    def nested(self, values: Mapping[Path, Any]) -> Any:
        """Values by path, one for every parameter, in the model's own structure.

        Raises:
            InputError: a parameter has no value, or a value no parameter.
        """
        wrong = [
            f"{fault} {', '.join(map(path_text, paths))}"
            for fault, paths in (
                ("lacks", [path for path in self._paths if path not in values]),
                ("has unknown", [path for path in values if path not in self._paths]),
            )
            if paths
        ]
        if wrong:
            raise InputError(f"nested(values) {' and '.join(wrong)}; give one value for every path of learner.params.")
        return jax.tree.unflatten(self._treedef, [values.get(path) for path, _ in self._leaves])

    def by_path(self, params: Any) -> dict[Path, Any] | None:
        """The parameters of a pytree in the model's own structure, by path; None where it has another one.

        Raises:
            InputError: a leaf that is not trained has another value than the model's.
        """
        if params is None:
            return None
        # By path already. An empty dictionary is: it stands for no parameter in place of the model's own.
        if isinstance(params, Mapping) and (not params or any(key in self._paths for key in params)):
            return None
        try:
            values = self._treedef.flatten_up_to(params)
        except (ValueError, TypeError):
            return None
        named = dict(zip((path for path, _ in self._leaves), values, strict=True))
        for path, own in self._leaves:
            if path not in self._paths and not _is_same(named.pop(path), own):
                raise InputError(
                    f"params has a different value for {path_text(path)} than the model, which does not train it; "
                    "build the step function again with the new value."
                )
        return named


def _is_same(value: Any, own: Any) -> bool:
    # Under ``jit`` there is no value to compare; the check is for calls from outside.
    return value is None or isinstance(value, Tracer) or np.array_equal(bare(value), bare(own))


@dataclass(frozen=True)
class _Named:
    """A leaf of a pytree; a path itself would be a pytree."""

    path: Path


def _by_parts(paths: list[Path]) -> dict[Any, Any]:
    """Dictionaries within each other, by the parts of paths."""
    tree: dict[Any, Any] = {}
    for path in paths:
        inner = tree
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = _Named(path)
    return tree
