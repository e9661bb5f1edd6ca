"""Analyses are pure functions of a program, so each program keeps their results."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from ..program import ModuleInfo, check_is_program

Result = TypeVar("Result")


def cached_by_program(analysis: Callable[[ModuleInfo], Result]) -> Callable[[ModuleInfo], Result]:
    """Runs ``analysis`` once for every program object."""

    @functools.wraps(analysis)
    def cached(info: ModuleInfo) -> Result:
        check_is_program(info)
        results: dict[Any, Any] = info.__dict__.setdefault("_analyses", {})
        if cached not in results:
            results[cached] = analysis(info)
        return results[cached]

    return cached
