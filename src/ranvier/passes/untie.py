"""untie: every use of a shared parameter becomes a parameter of its own."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.shared import array_at, numbers_of
from ..verification.promise import Promise
from .base import Pass, Rewriting


@dataclass(frozen=True)
class Untie(Pass):
    """Makes every array that is made of parameters of the graph a parameter of its own (bitwise).

    What is computed stays the same, and passes can then change the arrays one by one. But training goes another way
    from there: arrays that were one parameter part, and what was a function of parameters is trained as the numbers
    that it gave. The pass is in no level.
    """

    name = "untie"
    promise = Promise.BITWISE

    def run(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        for name, value in graph.parameters.items():
            arrays = [array for array, use in graph.bindings.items() if name in use.parameters]
            sizes = sum(numbers_of(found).size for a in arrays if (found := array_at(graph, a)) is not None)
            told = f"its {len(arrays)} uses are parameters of their own: {', '.join('.'.join(a) for a in arrays)}"
            rewriting.did(name, f"{told}; {value.size} numbers are {sizes} now", Promise.BITWISE)
        graph.bindings = {array: use for array, use in graph.bindings.items() if not use.parameters}
        graph.parameters = {}
