"""Numbers with nouns as text."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 neuron``, ``2,000 neurons``, ``2 synapses``; ``plural`` is for nouns that need more than an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def grouped(number: float) -> str:
    """A number with commas between thousands, and one digit after the point if it is not whole: 1,234,567 or 9.5."""
    return f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"
