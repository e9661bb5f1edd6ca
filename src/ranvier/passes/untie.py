"""untie: every use of a shared parameter becomes a parameter of its own."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.shared import array_at, numbers_of
from ..verification.promise import Promise
from .base import Pass, Rewriting


@dataclass(frozen=True)
class Untie(Pass):
    """Makes every array that is made of parameters of the graph a parameter of its own (bitwise).

    The results stay the same, and passes can then change the arrays one by one. Training, however, continues
    differently: arrays that were one parameter diverge, and the result of a function of parameters is trained as plain
    numbers. The pass is in no level.
    """

    name = "untie"
    promise = Promise.BITWISE

    def run(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        for name, value in graph.parameters.items():
            arrays = [array for array, use in graph.bindings.items() if name in use.parameters]
            sizes = sum(numbers_of(x).size for x in (array_at(graph, a) for a in arrays) if x is not None)
            message = f"its {len(arrays)} uses are now separate parameters: {', '.join('.'.join(a) for a in arrays)}"
            rewriting.did(name, f"{message}; {value.size} numbers became {sizes}", Promise.BITWISE)
        graph.bindings = {array: use for array, use in graph.bindings.items() if not use.parameters}
        graph.parameters = {}
