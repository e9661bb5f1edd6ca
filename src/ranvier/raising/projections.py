"""The projections that bring every port of a graph what it demands.

In the example of ``step.py``, the port in of v wants the result of a matrix [2, 5] whose operand is x at [0, 1, 2, -1,
-1] plus the old z at [-1, -1, -1, 0, 1]. The matrix is split by these terms: columns 0 to 2 become a projection from
the input, columns 3 and 4 one from v to itself with a delay of 1.

A result that is wanted in several ways (as a sum with something else here, moved there) cannot be a projection into any
of the ports; it is brought to a *relay*, a population without a state, from which others read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..graph.elements import Population, Projection
from ..graph.neurons import IN, OUT
from ..graph.order import Port
from ..graph.shared import ArrayName
from ..program._jax import Var
from .affine_operation import AffineOperation, Derived
from .draft import Draft, fixed_term
from .kinds import EquationKinds
from .nodes import Demand, Nodes, Shape, SourcePort
from .references import Earlier, MovedSource, Root, Terms, base
from .step import StepView


@dataclass(frozen=True, eq=False)
class Projections:
    """The projections of a graph.

    Attributes:
        relays: populations where sums meet.
        projections: by name, in the order in which a target sums them.
        derived: how trained arrays of projections are made of what does not change.
        sources: where roots are read, those of relays included.
    """

    relays: Mapping[str, Population]
    projections: Mapping[str, Projection]
    derived: Mapping[ArrayName, Derived]
    sources: Mapping[Root, SourcePort]


def make_projections(nodes: Nodes, kinds: EquationKinds, operations: Mapping[Var, AffineOperation]) -> Projections:
    """Makes the projections, and relays between them, that bring all ports of the nodes what they demand.

    Args:
        nodes: of the graph.
        kinds: of equations.
        operations: of affine maps, by the results of these.
    """
    # Parameters are addressed by the names of projections and populations alike, so a projection avoids both.
    with_parameters = {name for name, population in nodes.populations.items() if population.neuron.parameters}
    draft = Draft(kinds.step, nodes, with_parameters)
    wiring = _Wiring(draft, kinds, operations, _uses(nodes, kinds), dict(nodes.sources))
    # Numbers of the program's text come first, as they need nothing else to be there.
    for demand in nodes.demands:
        if demand.constant is not None:
            draft.add_constant(demand.constant, demand.port, trained=False)
    for demand in nodes.demands:
        if demand.constant is None:
            wiring.bring(demand)
    return Projections(draft.relays, draft.projections, draft.derived, wiring.sources)


def _uses(nodes: Nodes, kinds: EquationKinds) -> dict[Root, list[MovedSource]]:
    """Of every root the terms in which it is read."""
    read = [demand.terms for demand in nodes.demands]
    read += [kinds.terms_of(affine.xs[0]) for affine in kinds.maps.by_result.values()]
    uses: dict[Root, list[MovedSource]] = {}
    for terms in read:
        for term in terms:
            uses.setdefault(base(term.root), []).append(term)
    return uses


@dataclass(eq=False)
class _Wiring:
    """Which projections bring what is wanted.

    Bringing the result of an affine map may need a relay, into which another map leads; so the methods call each other.
    """

    draft: Draft
    kinds: EquationKinds
    operations: Mapping[Var, AffineOperation]
    uses: Mapping[Root, list[MovedSource]]
    sources: dict[Root, SourcePort]

    @property
    def step(self) -> StepView:
        return self.kinds.step

    def bring(self, demand: Demand) -> None:
        """Adds the projections that bring a sum to a port."""
        fixed = [term for term in demand.terms if self.step.is_static(term.root)]
        for term in demand.terms:
            if self.step.is_static(term.root):
                continue
            operation = self._direct_operation(term, demand.shape)
            if operation is None:
                self.draft.add_move(term.index, self._source_of(term.root), demand.port, demand.shape)
                continue
            if fixed and self._can_be_bias(fixed[0], operation):
                operation = operation.with_bias(fixed_term(fixed.pop(0), demand.shape))
            self._apply(term.root, operation, demand.port)
        for term in fixed:
            self.draft.add_fixed(term, demand.port, demand.shape)

    def _can_be_bias(self, term: MovedSource, operation: AffineOperation) -> bool:
        """Whether a fixed term can be a bias of a projection: both must be learned or neither, as they train as one."""
        if not operation.is_dense or "bias" in operation.arrays or not isinstance(term.root, Var):
            return False
        return self.step.is_learned(term.root) == operation.learned

    def _direct_operation(self, term: MovedSource, shape: Shape) -> AffineOperation | None:
        """The operation that gives a term, where an affine map can lead to the port itself, not by way of a relay."""
        operation = self.operations.get(term.root)
        if operation is None or term.root in self.sources:
            return None
        uses = self.uses[term.root]
        target = operation.target if term.index is None else (term.index.size,)
        if target != shape:
            return None
        if len(uses) == 1 and term.index is None:
            return operation
        # Rows of a matrix can go to several ports, as long as no row is there twice: it would be trained as two.
        indices = [use.index for use in uses]
        if not operation.is_dense or any(index is None or np.any(index < 0) for index in indices):
            return None
        rows = np.concatenate([index for index in indices if index is not None])
        return operation.part(rows=term.index) if np.unique(rows).size == rows.size else None

    def _apply(self, root: Root, operation: AffineOperation, port: Port) -> None:
        """An affine map into a port: from the sources of its operand where it can read them, else from a relay."""
        terms = self.kinds.terms_of(self.kinds.maps.by_result[root].xs[0])
        gathering = self._gathering(terms, operation)
        if gathering is not None:
            self.draft.add_map(*gathering, port)
            return
        readable = [self._readable(t, operation) for t in terms] if self._can_be_split(terms, operation) else []
        sources = [source for source in readable if source is not None]
        if not sources or len(sources) < len(terms):
            self.draft.add_map(operation, self._operand_relay(terms, operation), port)
            return
        for k, (term, source) in enumerate(zip(terms, sources, strict=True)):
            part = operation
            if term.index is not None:
                part = operation.part(columns=_positions_of(term.index, self.step.size(term.root)))
            # The parts are summed, so the bias may be in one of them only.
            self.draft.add_map(part if k == 0 else part.without_bias(), source, port)

    def _gathering(self, terms: Terms, operation: AffineOperation) -> tuple[AffineOperation, SourcePort] | None:
        """A sparse matrix that reads the source of gathered elements itself, and that source."""
        if operation.taking is None or len(terms) != 1 or terms[0].index is None:
            return None
        gathering = operation.taking(terms[0].index, self.step.size(terms[0].root))
        source = None if gathering is None else self._readable(terms[0], gathering)
        if gathering is None or source is None:
            return None
        return replace(gathering, name=operation.name), source

    def _can_be_split(self, terms: Terms, operation: AffineOperation) -> bool:
        """Whether a matrix can be split into one for every source, each of which reads all of its source."""
        if len(terms) == 1 and terms[0].index is None:
            return True
        return operation.is_dense and all(
            t.index is not None and np.array_equal(np.sort(t.index[t.index >= 0]), np.arange(self.step.size(t.root)))
            for t in terms
        )

    def _readable(self, term: MovedSource, operation: AffineOperation) -> SourcePort | None:
        """Where a map can read what it wants as it is; None where it has to be moved first."""
        if self.step.is_static(term.root):
            return None
        source = self._source_of(term.root)
        wanted = operation.source if term.index is None else (self.step.size(term.root),)
        return source if self.draft.port_shape(source) == wanted else None

    def _source_of(self, root: Root) -> SourcePort:
        """Where a root is read; the result of an affine map at a relay, which is made if there is none yet."""
        now = base(root)
        if now not in self.sources and now in self.operations:
            operation = self.operations[now]
            relay = self.draft.add_relay(operation.name, operation.target)
            # Known before the map is applied: its operand may be this very result, some steps ago.
            self.sources[now] = SourcePort(relay, OUT)
            self._apply(now, operation, (relay, IN))
        source = self.sources[now]
        return source.later(root.steps) if isinstance(root, Earlier) else source

    def _operand_relay(self, terms: Terms, operation: AffineOperation) -> SourcePort:
        """A relay with what a map reads."""
        relay = self.draft.add_relay(f"{operation.name}.x", operation.source)
        for term in terms:
            if self.step.is_static(term.root):
                self.draft.add_fixed(term, (relay, IN), operation.source)
            else:
                self.draft.add_move(term.index, self._source_of(term.root), (relay, IN), operation.source)
        return SourcePort(relay, OUT)


def _positions_of(index: np.ndarray, size: int) -> np.ndarray:
    """Of every element of a root its position in what it is moved to."""
    positions = np.empty(size, np.int64)
    filled = np.flatnonzero(index >= 0)
    positions[index[filled]] = filled
    return positions
