"""Analyses are pure functions of a program, so each program keeps their results."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from ..ir.program import ModuleInfo

Result = TypeVar("Result")


def cached_by_program(analysis: Callable[[ModuleInfo], Result]) -> Callable[[ModuleInfo], Result]:
    """Runs ``analysis`` once for every program object."""
    results: weakref.WeakKeyDictionary[ModuleInfo, Any] = weakref.WeakKeyDictionary()

    @functools.wraps(analysis)
    def cached(info: ModuleInfo) -> Result:
        if info not in results:
            results[info] = analysis(info)
        return results[info]

    return cached
