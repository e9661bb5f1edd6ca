"""Kinds of neurons, for the populations of a graph."""

from __future__ import annotations

from .graph.neurons import ALIF, IF, LI, LIF, CubaLI, CubaLIF, Delay, I, Neuron, Relay, Threshold

__all__ = ["ALIF", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Delay", "I", "Neuron", "Relay", "Threshold"]
