"""Numbers of things as text."""

from __future__ import annotations


def counted(number: int, thing: str, things: str = "") -> str:
    """``1 neuron``, ``2,000 neurons``, ``2 synapses``; ``things`` is a plural that is not formed by adding an s."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"
