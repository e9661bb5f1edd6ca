"""Ranvier: an optimizing compiler for spiking neural networks on JAX.

``__init__.pyi`` lists the public names. Each is loaded when first used, so ``import ranvier`` costs next to nothing.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

from .util.global_state import global_state_unchanged

__version__ = "0.1.0"

PEERS = frozenset(
    {
        "HiddenGroup",
        "HiddenParamOpRelation",
        "HiddenPerturbation",
        "ETraceGraph",
        "ModuleInfo",
        "compile_etrace_graph",
        "OptimizationReport",
        "PassResult",
        "SNNOptimizer",
        "add_hidden_perturbation_from_minfo",
        "add_hidden_perturbation_in_module",
        "dead_neuron_elimination",
        "find_hidden_groups_from_minfo",
        "find_hidden_groups_from_module",
        "find_hidden_param_op_relations_from_minfo",
        "find_hidden_param_op_relations_from_module",
        "layer_fusion",
        "redundancy_elimination",
        "redundant_connection_removal",
        "weight_pruning",
    }
)
"""Names that users of brainscale and sc-neurocore know. They work here, and stand in :mod:`ranvier.compat`."""

_attribute, _names, _ = lazy_loader.attach_stub(__name__, __file__)

__all__ = ["__version__", *sorted({*_names()} - PEERS)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _names():
        raise AttributeError(f"module 'ranvier' has no attribute {name!r}{_hint(name)}")
    with global_state_unchanged():
        return _attribute(name)


def __dir__() -> list[str]:
    return list(__all__)


def _hint(name: str) -> str:
    from . import types

    return f"; there is ranvier.types.{name}" if name in types.__all__ else ""
