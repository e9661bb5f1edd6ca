"""Values with physical units (brainunit), which programs store as arrays and return with their units."""

from __future__ import annotations

import sys
from typing import Any

import jax


def is_quantity(value: Any) -> bool:
    """Whether a value is a brainunit ``Quantity``; never imports brainunit."""
    brainunit = sys.modules.get("brainunit")
    return brainunit is not None and isinstance(value, brainunit.Quantity)


def unit_text(value: Any) -> str:
    """The units in a pytree as text; ``""`` if there are none."""
    units = [leaf.unit for leaf in jax.tree.leaves(value, is_leaf=is_quantity) if is_quantity(leaf)]
    return " ".join(dict.fromkeys(str(unit) for unit in units if not unit.is_unitless))


def bare(value: Any) -> Any:
    """The array of a value, without its unit."""
    return value.mantissa if is_quantity(value) else value
