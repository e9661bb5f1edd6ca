"""How much a run without the slow tests tries: fewer random examples of a property, and a few values of a parameter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

FEWEST = 3
SHARE = 5
quick = False
"""Set by ``conftest.py`` where the run leaves out slow tests."""


def examples(full: int) -> int:
    """Examples of a property in this run, for those of a full one."""
    return max(FEWEST, full // SHARE) if quick else full


def few(
    names: str | tuple[str, ...], values: Iterable[Any], *, quick: int = 2, ids: Any = None
) -> pytest.MarkDecorator:
    """``pytest.mark.parametrize``, where all but a few of the values, spread evenly, are for runs with the slow tests.

    Args:
        names, values, ids: as ``parametrize`` takes them.
        quick: how many values every run tries.
    """
    values = list(values)
    several = not isinstance(names, str) or "," in names
    chosen = set(np.linspace(0, len(values) - 1, quick).round().astype(int).tolist())
    marked = [value if n in chosen else _slow(value, several) for n, value in enumerate(values)]
    return pytest.mark.parametrize(names, marked, ids=ids)


def _slow(value: Any, several: bool) -> Any:
    if hasattr(value, "marks"):  # a pytest.param
        return pytest.param(*value.values, marks=[*value.marks, pytest.mark.slow], id=value.id)
    return pytest.param(*(value if several else (value,)), marks=pytest.mark.slow)
