"""Small tasks for spiking networks, made with NumPy: spikes in, a class to name at the asked steps."""

from __future__ import annotations

from .batch import Batch as Batch
