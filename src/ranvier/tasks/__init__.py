"""Small tasks for spiking networks, generated with NumPy: spikes as inputs, and a class to name at certain steps."""

from __future__ import annotations

from .batch import Batch as Batch
