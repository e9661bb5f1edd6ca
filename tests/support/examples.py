"""How many random examples a property is tried on: all in a full run, fewer in one without the slow tests."""

from __future__ import annotations

FEWEST = 3
SHARE = 5
quick = False
"""Set by ``conftest.py`` where the run leaves out slow tests."""


def examples(full: int) -> int:
    """Examples of a property in this run, for those of a full one."""
    return max(FEWEST, full // SHARE) if quick else full
