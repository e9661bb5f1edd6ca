"""Operations, for the projections of a graph."""

from __future__ import annotations

from .graph.operations import AvgPool, Constant, Conv, Flatten, Identity, Linear, Operation, Scale, Select, SumPool

__all__ = [
    "AvgPool",
    "Constant",
    "Conv",
    "Flatten",
    "Identity",
    "Linear",
    "Operation",
    "Scale",
    "Select",
    "SumPool",
]
