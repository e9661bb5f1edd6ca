"""Names of elements."""

from __future__ import annotations

from collections.abc import Container


def free_name(taken: Container[str], wanted: str) -> str:
    """A name that is not taken: the one wanted, or that with a number."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}.{number}"
    return name
