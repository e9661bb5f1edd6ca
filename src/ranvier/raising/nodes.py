"""Inputs, populations and outputs of a graph, each with what has to be brought to it and where its results are read.

In the example of ``step.py``::

    inputs       input [3]
    populations  v [2], with the port in, the state v, and the output out, which is z
    outputs      output [2]
    sources      x is read at input; z at out of v; the old z, which is a memory, at out of v one step later
    demands      in of v wants the result of the matrix; output wants z

Demands are met by projections, which are made when all nodes are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph.elements import Input, Output, Population
from ..graph.neurons import IN, OUT
from ..graph.order import Port
from ..graph.shared import ArrayName
from ..program._jax import Literal, shape_of
from .affine_operation import Derived
from .kinds import EquationKinds
from .naming import free
from .references import Root, Terms, node_shape
from .state_locations import StateLocation

Shape = tuple[int, ...]


@dataclass(frozen=True)
class SourcePort:
    """Where a root is read.

    Attributes:
        node, port: names of an input or population, and of its output or state.
        delay: how many steps later.
    """

    node: str
    port: str
    delay: int = 0

    def later(self, steps: int) -> SourcePort:
        """The same port, read more steps later."""
        return SourcePort(self.node, self.port, self.delay + steps)


@dataclass(frozen=True, eq=False)
class Demand:
    """What has to be brought to a port.

    Attributes:
        port: of a population or output.
        shape: of the port.
        terms: what it gets.
        constant: what it gets where that is a number of the program's text.
    """

    port: Port
    shape: Shape
    terms: Terms = ()
    constant: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class MadePopulation:
    """A population of the graph, and what the rest of the graph needs to know about it.

    Attributes:
        population: itself.
        sources: where results and states of it are read.
        demands: what its ports get.
        derived: how its trained parameters are made of what does not change.
        locations: numbers of the program's states of which it has parts, with these parts.
    """

    population: Population
    sources: Mapping[Root, SourcePort]
    demands: tuple[Demand, ...]
    derived: Mapping[ArrayName, Derived]
    locations: tuple[tuple[int, StateLocation], ...]


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of a graph, before there are projections.

    Attributes:
        inputs, populations, outputs: by name.
        sources: where roots are read.
        demands: what ports get, in order.
        derived: how trained parameters of populations are made of what does not change.
        locations: parts of the program's states, by number of the state, as they come.
    """

    inputs: Mapping[str, Input]
    populations: Mapping[str, Population]
    outputs: Mapping[str, Output]
    sources: Mapping[Root, SourcePort]
    demands: tuple[Demand, ...]
    derived: Mapping[ArrayName, Derived]
    locations: tuple[tuple[int, StateLocation], ...]


def gather_nodes(kinds: EquationKinds, inputs: Mapping[str, Input], populations: Iterable[MadePopulation]) -> Nodes:
    """The nodes of a graph from its inputs and populations, with outputs to read them."""
    made = list(populations)
    by_name = {one.population.name: one.population for one in made}
    outputs, read = _outputs(kinds, {*inputs, *by_name})
    sources = {var: SourcePort(name, OUT) for var, name in zip(kinds.step.info.input_invars, inputs, strict=True)}
    for one in made:
        sources.update(one.sources)
    return Nodes(
        inputs,
        by_name,
        outputs,
        sources,
        (*(demand for one in made for demand in one.demands), *read),
        {array: derived for one in made for array, derived in one.derived.items()},
        tuple(location for one in made for location in one.locations),
    )


def make_inputs(kinds: EquationKinds) -> dict[str, Input]:
    """An input for every operand of the step that is one."""
    variables = kinds.step.info.input_invars
    names = ["input"] if len(variables) == 1 else [f"input.{k}" for k in range(len(variables))]
    return {name: Input(name, node_shape(shape_of(var))) for name, var in zip(names, variables, strict=True)}


def _outputs(kinds: EquationKinds, taken: set[str]) -> tuple[dict[str, Output], list[Demand]]:
    """An output for every result of the step that is one, and what they get."""
    atoms: list[Any] = kinds.step.info.output_outvars
    outputs: dict[str, Output] = {}
    demands = []
    for k, atom in enumerate(atoms):
        name = free({*taken, *outputs}, "output" if len(atoms) == 1 else f"output.{k}")
        shape = node_shape(shape_of(atom))
        outputs[name] = Output(name, shape)
        if isinstance(atom, Literal):
            demands.append(Demand((name, IN), shape, constant=np.full(shape, float(atom.val))))
        else:
            demands.append(Demand((name, IN), shape, kinds.terms_of(atom)))
    return outputs, demands
