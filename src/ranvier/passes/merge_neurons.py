"""merge-neurons: neurons that fire alike become one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..analyses.graph.partition import neuron_classes
from ..analyses.graph.reach import exposed
from .base import Pass, Promise, Rewriting
from .surgery import can_take


@dataclass(frozen=True)
class MergeNeurons(Pass):
    """Merges neurons with equal states and spikes on every input, also recurrent ones (algebraic).

    The coarsest stable partition of the network finds them: see :mod:`ranvier.analyses.graph.partition`. One neuron of
    each class stays; its weights to other neurons are the sums over the class.
    """

    name = "merge-neurons"
    promise = Promise.ALGEBRAIC

    def run(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        fixed = {name: self._reason(rewriting, name) for name in graph.populations}
        classes = neuron_classes(graph, frozenset(name for name, reason in fixed.items() if reason))
        self._tell_missed(rewriting, fixed)
        for name, found in classes.items():
            _, first, into = np.unique(found, return_index=True, return_inverse=True)
            if first.size == found.size:
                continue
            kept = np.sort(first)
            merged = np.flatnonzero(~np.isin(np.arange(found.size), kept))
            rewriting.merge(name, kept, np.searchsorted(kept, first)[into.ravel()])
            told = f"merged {merged.size} of {found.size} neurons with others that fire alike"
            rewriting.did(name, told, Promise.ALGEBRAIC, merged)

    def _reason(self, rewriting: Rewriting, name: str) -> str | None:
        """Why the neurons of a population stay as they are."""
        graph = rewriting.graph
        return "an output shows its neurons one by one" if name in exposed(graph) else can_take(graph, name)

    def _tell_missed(self, rewriting: Rewriting, fixed: dict[str, str | None]) -> None:
        whole = neuron_classes(rewriting.graph) if any(fixed.values()) else {}
        for name, reason in fixed.items():
            if reason is not None and (alike := whole[name].size - np.unique(whole[name]).size):
                rewriting.missed(name, f"{alike} neurons fire like others, but {reason}")
