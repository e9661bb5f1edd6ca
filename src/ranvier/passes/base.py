"""What a pass is: a rewriting of a graph with a promise, and remarks that say what it did or why not."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
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
from .derived_arrays import change_derived, narrow, take_derived
from .surgery import summed_operation, taken_operation, taken_population


def _constant_part(operation: Operation, source: tuple[int, ...]) -> Constant:
    """The constant that an operation gives if its source is zero."""
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
"""By annotation of an option, whether a value fits."""

Facts = dict[Callable[..., Any], Any]
"""Results of analyses of one graph, by analysis."""


@dataclass(frozen=True, eq=False)
class Remark:
    """What a pass did, or why it did not.

    Attributes:
        of: name of the pass.
        about: name of the population or projection.
        message: what was done, or why nothing was.
        done: whether the graph was changed.
        promise: the promise of the change; None if nothing was done.
        neurons: int ``[n]``, numbers of the neurons (or channels) concerned, as counted before the change; None if the
            remark is not about single neurons.
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
        name: the name in pipelines, and of the file.
        promise: the weakest promise of what it does with default options.
        search: options whose value can be searched for, with the weakest and the strongest value.
        once: whether a repeated pipeline runs it only once, because it would do more every time.

    Raises:
        PassError: an option has a value of another type.
    """

    name: ClassVar[str]
    promise: ClassVar[Promise]
    search: ClassVar[Mapping[str, tuple[float, float]]] = {}
    once: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for f in fields(self):
            value, kind = getattr(self, f.name), f.type if isinstance(f.type, str) else f.type.__name__
            if kind in KINDS and not KINDS[kind](value):
                raise PassError(f"{self.name}: {f.name}={value!r} does not fit; expected {kind}.")

    @abc.abstractmethod
    def run(self, rewriting: Rewriting) -> None:
        """Rewrites ``rewriting.graph``."""

    def rewritten(
        self, graph: SNNGraph, calibration: Calibration | None = None, facts: Facts | None = None
    ) -> Rewriting:
        """Applies the pass to a copy of a graph.

        Args:
            graph: is not changed.
            calibration: data for passes that measure.
            facts: results of analyses of ``graph``, which the pass need not compute again.
        """
        rewriting = replace(Rewriting.unchanged(graph, self.name, calibration), facts=dict(facts or {}))
        self.run(rewriting)
        rewriting.settle_parameters()
        return rewriting

    def prepared(self, graph: SNNGraph, calibration: Calibration) -> Facts:
        """What a search over an option measures once, because it does not depend on the option."""
        return {}

    @property
    def options(self) -> dict[str, Any]:
        """Options by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(eq=False)
class Rewriting:
    """A graph while a pass changes it. Changes go through methods that record them.

    Attributes:
        graph: the graph, changed in place.
        of: name of the pass.
        origins: where the neurons of the original graph are now.
        calibration: data to measure on, if there is any.
        remarks: the remarks so far.
        facts: results of analyses of the current graph; every change clears them.
    """

    graph: SNNGraph
    of: str
    origins: Provenance
    calibration: Calibration | None = None
    remarks: list[Remark] = field(default_factory=list)
    facts: Facts = field(default_factory=dict)

    @classmethod
    def unchanged(cls, graph: SNNGraph, of: str, calibration: Calibration | None = None) -> Rewriting:
        """A rewriting that has done nothing yet."""
        return cls(graph.copy(), of, Provenance.of(graph), calibration)

    def followed_by(self, then: Rewriting, graph: SNNGraph) -> Rewriting:
        """This rewriting and another one of its result, as one; the graph is what the second one has become."""
        remarks = [*self.remarks, *then.remarks]
        return Rewriting(graph, self.of, self.origins.then(then.origins), self.calibration, remarks)

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return any(remark.done for remark in self.remarks)

    @property
    def promise(self) -> Promise:
        """The weakest promise of all changes so far."""
        return max((r.promise for r in self.remarks if r.promise is not None and r.done), default=Promise.BITWISE)

    def fact(self, analysis: Callable[[SNNGraph], Any]) -> Any:
        """The result of an analysis of the current graph, computed at most once until the next change."""
        if analysis not in self.facts:
            self.facts[analysis] = analysis(self.graph)
        return self.facts[analysis]

    def did(self, about: str, message: str, promise: Promise, neurons: np.ndarray | None = None) -> None:
        """Records a change."""
        self.remarks.append(Remark(self.of, about, message, True, promise, neurons))
        self.facts.clear()

    def missed(self, about: str, message: str, neurons: np.ndarray | None = None) -> None:
        """Records a change that was not possible, and why."""
        self.remarks.append(Remark(self.of, about, message, False, None, neurons))

    def repeat(self, rewrite: Callable[[Rewriting], None]) -> None:
        """Rewrites until nothing changes. Changes that were not possible are reported once, from the last round."""
        before_all = list(self.remarks)
        while True:
            before = len(self.remarks)
            rewrite(self)
            if not any(remark.done for remark in self.remarks[before:]):
                return
            self.remarks = [*before_all, *(remark for remark in self.remarks[len(before_all) :] if remark.done)]

    def shared(self, *elements: str) -> str | None:
        """Why the values of some projections and populations can be removed, but not changed.

        They are made of shared parameters of the graph; a change of one use would change the others. None if they are
        not.
        """
        names = parameters_of(self.graph, *elements)
        if not names:
            return None
        parameters = " and ".join(map(repr, names))
        return f"computed from the shared parameter {parameters}; the pass 'untie' separates its uses"

    def leaves(self, about: str, change: str, *elements: str) -> bool:
        """Whether a change of values is not made because they are made of shared parameters; records that."""
        reason = self.shared(*elements)
        if reason is not None:
            self.missed(about, f"{change}: {reason}")
        return reason is not None

    def settle_parameters(self) -> None:
        """Removes shared parameters that nothing is made of, and elements of the others that nothing is made of."""
        self.graph.forget_unused()
        for name in list(self.graph.parameters):
            numbers = narrow(self.graph, name)
            if numbers is not None:
                self.origins = self.origins.with_numbers(name, numbers)

    def remove_projection(self, name: str) -> None:
        """Removes a projection and the bindings of its arrays."""
        self.facts.clear()
        operation = self.graph.projections.pop(name).operation
        for label in operation.arrays:
            self.graph.bindings.pop((name, label), None)

    def set_projection(self, projection: Projection) -> None:
        """Adds a projection, or replaces the one of the same name."""
        self.facts.clear()
        self.graph.projections[projection.name] = projection

    def remove_population(self, name: str) -> None:
        """Removes a population that is always zero or unobservable, and all projections from and to it.

        The bias of an outgoing projection stays, at the same position in its target's sum.
        """
        # The position matters: sums are rounded in order, and removing zeros must keep all bits.
        for projection in self.graph.out_of(name):
            source = self.graph.source_shape(projection)
            offset = projection.operation.offset(source)
            if offset is None or projection.target == name:
                continue
            bias = change_derived(self.graph, projection, partial(_constant_part, source=source))
            ports = {"target_port": projection.target_port, "trained": projection.trained}
            self.set_projection(self._constant(projection.name, projection.target, bias.bias).replace(**ports))
        for touching in {p.name for p in (*self.graph.into(name), *self.graph.out_of(name))}:
            self.remove_projection(touching)
        self.facts.clear()
        del self.graph.populations[name]
        self.origins = self.origins.without(name)

    def add_bias(self, target: str, amount: np.ndarray, port: str = IN) -> None:
        """Adds a constant to the input of a population or output of one axis at every step."""
        for projection in self.graph.into(target):
            operation = projection.operation
            shared = (projection.name, "bias") in self.graph.bindings
            if isinstance(operation, Linear) and projection.target_port == port and not shared:
                bias = amount if operation.bias is None else operation.bias + amount
                self.set_projection(projection.replace(operation=Linear(operation.weight, bias)))
                return
        constant = self._constant(self.new_name(f"{target}.bias"), target, amount)
        self.set_projection(constant.replace(target_port=port))

    def _constant(self, name: str, target: str, amount: np.ndarray) -> Projection:
        """A projection that brings a constant. Its source is any input, since a projection has to have one."""
        return Projection(name, next(iter(self.graph.inputs)), target, Constant(amount))

    def new_name(self, name: str) -> str:
        """A name for a new projection: ``name``, with a number if a projection has that name."""
        return free_name(self.graph.projections, name)

    def merge(self, remaining: Mapping[str, np.ndarray], into: Mapping[str, np.ndarray]) -> None:
        """Merges neurons of populations: some remain, with the outgoing weights of the others added to theirs.

        Args:
            remaining: by population, the flat numbers of the neurons that remain; of images, those of whole channels.
            into: by population, for each neuron, the position in ``remaining`` of the neuron that it is merged into.

        Raises:
            PassError: the outgoing weights are made of shared parameters.
        """
        self._shrink(remaining, into)
        for name in remaining:
            self.origins = self.origins.merged(name, into[name])

    def keep(self, remaining: Mapping[str, np.ndarray]) -> None:
        """Removes neurons of populations, with their weights, except for those that remain; see :meth:`merge`."""
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
        # Projections first, as long as the populations still have the shapes that their rows and columns refer to.
        for projection in list(graph.projections.values()):
            name, shape = projection.source, graph.source_shape(projection)
            rows, columns = remaining.get(projection.target), remaining.get(name)
            if rows is None and columns is None:
                continue
            if columns is not None and name in into:
                self._check_not_shared(projection)
                change = partial(summed_operation, source=shape, remaining=columns, into=into[name], rows=rows)
            else:
                change = partial(taken_operation, source=shape, rows=rows, columns=columns)
            self.set_projection(projection.replace(operation=change_derived(graph, projection, change)))
        for name, numbers in remaining.items():
            take_derived(graph, name, numbers)
            graph.populations[name] = taken_population(graph.populations[name], numbers)

    def _check_not_shared(self, projection: Projection) -> None:
        reason = self.shared(projection.name)
        if reason is not None:
            raise PassError(f"{self.of}: columns of {projection.name!r} cannot be added up: {reason}.")
