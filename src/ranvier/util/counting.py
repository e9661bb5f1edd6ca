"""Numbers with nouns as text."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 neuron``, ``2,000 neurons``, ``2 synapses``; ``plural`` is for nouns that need more than an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
