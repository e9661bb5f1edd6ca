"""What a pass is: a rewriting of a graph with a promise, and remarks that say what it did or why not."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ..errors import PassError, printable
from ..graph.elements import Projection
from ..graph.names import free_name
from ..graph.neurons import IN
from ..graph.operations import Constant, Linear, Operation
from ..graph.provenance import Provenance
from ..graph.shared import parameters_of
from ..graph.snn_graph import SNNGraph
from ..verification.calibration import Calibration
from ..verification.promise import Promise
from .derived_arrays import change_made, narrow, take_made
from .surgery import summed_operation, taken_operation, taken_population


def _bias_alone(operation: Operation, source: tuple[int, ...]) -> Constant:
    """What an operation brings where its source gives zeros."""
    offset = operation.offset(source)
    return Constant(np.broadcast_to(0.0 if offset is None else offset, operation.target_shape(source)))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


KINDS: dict[Any, Callable[[Any], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": _is_number,
    "float | None": lambda value: value is None or _is_number(value),
}
"""Whether a value fits an option that is annotated so."""

Facts = dict[Callable[[SNNGraph], Any], Any]
"""Results by analysis."""


@dataclass(frozen=True, eq=False)
class Remark:
    """What a pass did, or why it did not.

    Attributes:
        of: name of the pass.
        about: the population or projection concerned.
        message: what was done or not.
        done: whether the graph was changed.
        promise: of the change.
        neurons: numbers of the neurons concerned, in the graph that the pass was given.
    """

    of: str
    about: str
    message: str
    done: bool
    promise: Promise | None = None
    neurons: np.ndarray | None = None

    def __str__(self) -> str:
        kind = f" [{self.promise}]" if self.promise is not None else ""
        return printable(f"{self.of}: {self.about}: {self.message}{kind}")


@dataclass(frozen=True)
class Pass(abc.ABC):
    """A pass. Its fields are its options.

    Attributes:
        name: as in pipelines; the file of the pass is called alike.
        promise: the weakest promise of what it does as it is preset.
        search: options that may be found by search, with the weakest and the strongest value.
        once: whether to run it once only where a pipeline is repeated, because it would do more every time.
    """

    name: ClassVar[str]
    promise: ClassVar[Promise]
    search: ClassVar[Mapping[str, tuple[float, float]]] = {}
    once: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for f in fields(self):
            value, kind = getattr(self, f.name), f.type if isinstance(f.type, str) else f.type.__name__
            if kind in KINDS and not KINDS[kind](value):
                raise PassError(f"{self.name}: {f.name}={value!r} does not fit; {kind} is expected.")

    @abc.abstractmethod
    def run(self, rewriting: Rewriting) -> None:
        """Rewrites ``rewriting.graph``."""

    def rewritten(
        self, graph: SNNGraph, calibration: Calibration | None = None, facts: Facts | None = None
    ) -> Rewriting:
        """What the pass makes of a copy of a graph; ``facts`` are results of analyses that hold for the graph."""
        rewriting = Rewriting(graph.copy(), self.name, Provenance.of(graph), calibration, facts=dict(facts or {}))
        self.run(rewriting)
        rewriting.settle_parameters()
        return rewriting

    @property
    def options(self) -> dict[str, Any]:
        """Options by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(eq=False)
class Rewriting:
    """A graph in the hands of a pass. Changes go through methods that record where everything went.

    Attributes:
        graph: to be changed.
        of: name of the pass.
        origins: where the neurons of the graph at the start are now.
        calibration: data to measure on, if there is any.
        remarks: so far.
        facts: results of analyses of the graph as it is now.
    """

    graph: SNNGraph
    of: str
    origins: Provenance
    calibration: Calibration | None = None
    remarks: list[Remark] = field(default_factory=list)
    facts: Facts = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return any(remark.done for remark in self.remarks)

    @property
    def promise(self) -> Promise:
        """The weakest promise of what was done."""
        return max((r.promise for r in self.remarks if r.promise is not None and r.done), default=Promise.BITWISE)

    def fact(self, analysis: Callable[[SNNGraph], Any]) -> Any:
        """The result of an analysis of the graph as it is now."""
        if analysis not in self.facts:
            self.facts[analysis] = analysis(self.graph)
        return self.facts[analysis]

    def did(self, about: str, message: str, promise: Promise, neurons: np.ndarray | None = None) -> None:
        """Writes down what was done."""
        self.remarks.append(Remark(self.of, about, message, True, promise, neurons))
        self.facts.clear()

    def missed(self, about: str, message: str, neurons: np.ndarray | None = None) -> None:
        """Writes down what was not done."""
        self.remarks.append(Remark(self.of, about, message, False, None, neurons))

    def repeat(self, rewrite: Callable[[Rewriting], None]) -> None:
        """Rewrites until there is nothing more to do; what could not be done is reported once."""
        before_all = list(self.remarks)
        while True:
            before = len(self.remarks)
            rewrite(self)
            if not any(remark.done for remark in self.remarks[before:]):
                return
            self.remarks = [*before_all, *(remark for remark in self.remarks[len(before_all) :] if remark.done)]

    def shared(self, *elements: str) -> str | None:
        """Why the numbers of some projections and populations can be taken or left, but not be changed: they are made
        of parameters of the graph. None where they are not."""
        names = parameters_of(self.graph, *elements)
        if not names:
            return None
        made = " and ".join(map(repr, names))
        return f"made of the parameter {made}, which stays one; the pass 'untie' parts its uses"

    def leaves(self, about: str, change: str, *elements: str) -> bool:
        """Whether a change of numbers is left undone because they are made of parameters; writes that down."""
        reason = self.shared(*elements)
        if reason is not None:
            self.missed(about, f"{change}: {reason}")
        return reason is not None

    def settle_parameters(self) -> None:
        """Parameters that nothing is made of go, and so do the numbers of others that nothing is made of."""
        self.graph.forget_unused()
        for name in list(self.graph.parameters):
            numbers = narrow(self.graph, name)
            if numbers is not None:
                self.origins = self.origins.with_numbers(name, numbers)

    def remove_projection(self, name: str) -> None:
        """Takes a projection away."""
        self.facts.clear()
        operation = self.graph.projections.pop(name).operation
        for label in operation.arrays:
            self.graph.bindings.pop((name, label), None)

    def set_projection(self, projection: Projection) -> None:
        """A new projection, or one in place of that of the same name."""
        self.facts.clear()
        self.graph.projections[projection.name] = projection

    def remove_population(self, name: str) -> None:
        """Removes a population that gives zeros, or that nobody sees, and all projections from and to it.

        A bias on the way out of it stays, in the same place of its target's sum.
        """
        for projection in self.graph.out_of(name):
            source = self.graph.source_shape(projection)
            offset = projection.operation.offset(source)
            if offset is None or projection.target == name:
                continue
            bias = change_made(self.graph, projection, partial(_bias_alone, source=source))
            ports = {"target_port": projection.target_port, "trained": projection.trained}
            self.set_projection(self._constant(projection.name, projection.target, bias.bias).replace(**ports))
        for touching in {p.name for p in (*self.graph.into(name), *self.graph.out_of(name))}:
            self.remove_projection(touching)
        self.facts.clear()
        del self.graph.populations[name]
        self.origins = self.origins.without(name)

    def add_bias(self, target: str, amount: np.ndarray, port: str = IN) -> None:
        """Adds a constant to what a population or output of one axis sums at every step."""
        for projection in self.graph.into(target):
            operation = projection.operation
            made = (projection.name, "bias") in self.graph.bindings
            if isinstance(operation, Linear) and projection.target_port == port and not made:
                bias = amount if operation.bias is None else operation.bias + amount
                self.set_projection(projection.replace(operation=Linear(operation.weight, bias)))
                return
        constant = self._constant(self.new_name(f"{target}.bias"), target, amount)
        self.set_projection(constant.replace(target_port=port))

    def _constant(self, name: str, target: str, amount: np.ndarray) -> Projection:
        """A projection that brings a constant; it has to come from somewhere."""
        return Projection(name, next(iter(self.graph.inputs)), target, Constant(amount))

    def new_name(self, wanted: str) -> str:
        """A name that no projection has."""
        return free_name(self.graph.projections, wanted)

    def merge(self, remaining: Mapping[str, np.ndarray], into: Mapping[str, np.ndarray]) -> None:
        """Keeps some neurons of populations and gives them the outgoing weights of the others.

        Args:
            remaining: by population the flat numbers of the neurons that stay; of images those of whole channels.
            into: likewise, of every neuron, which of these it becomes a part of.
        """
        self._shrink(remaining, into)
        for name in remaining:
            self.origins = self.origins.merged(name, into[name])

    def keep(self, remaining: Mapping[str, np.ndarray]) -> None:
        """Keeps some neurons of populations and removes the others with their weights; see :meth:`merge`."""
        if not all(numbers.size for numbers in remaining.values()):
            for name in remaining:
                self.remove_population(name)
            return
        self._shrink(remaining, {})
        for name, numbers in remaining.items():
            self.origins = self.origins.taken(name, numbers)

    def _shrink(self, remaining: Mapping[str, np.ndarray], into: Mapping[str, np.ndarray]) -> None:
        self.facts.clear()
        graph = self.graph
        for projection in list(graph.projections.values()):
            name, shape = projection.source, graph.source_shape(projection)
            rows, columns = remaining.get(projection.target), remaining.get(name)
            if rows is None and columns is None:
                continue
            if columns is not None and name in into:
                self._check_own(projection)
                change = partial(summed_operation, source=shape, remaining=columns, into=into[name], rows=rows)
            else:
                change = partial(taken_operation, source=shape, rows=rows, columns=columns)
            self.set_projection(projection.replace(operation=change_made(graph, projection, change)))
        for name, numbers in remaining.items():
            take_made(graph, name, numbers)
            graph.populations[name] = taken_population(graph.populations[name], numbers)

    def _check_own(self, projection: Projection) -> None:
        reason = self.shared(projection.name)
        if reason is not None:
            raise PassError(f"{self.of}: columns of {projection.name!r} cannot be added up: {reason}.")
