"""The sizes of a program that the memory of a learning rule is made of, and that memory as a formula and in numbers.

A layer of 4 neurons with 3 inputs, ``g' = 0.8 g + x @ w; v' = 0.9 v + g'``, has 12 pairs of an element of x @ w and
a weight, and a current and a potential that w reaches: a rule with full traces holds Σ w·s = 12·2 = 24 numbers between
two steps, 96 bytes in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .._jax import shape_of, size_of
from ..nested import classify
from ..primitives import Kind
from ..program import ModuleInfo
from .binding_time import BindingTime, binding_times_of
from .cache import cached_by_program
from .parameter_use import UseKind
from .relations import Connection, HiddenParamOpRelation, analyse_relations


@dataclass(frozen=True)
class RuleMemory:
    """Memory of one learning rule between two steps.

    Attributes:
        rule: name of the rule.
        formula: what it carries, in the symbols of :data:`SYMBOLS`.
        numbers: the formula with this program's numbers, in elements.
        elements: how many array elements that is for one sample, per step where ``grows`` is True.
        bytes: the same in bytes of the program's widest hidden dtype.
        grows: whether it grows with the number of steps T.
    """

    rule: str
    formula: str
    numbers: str
    elements: int
    bytes: int
    grows: bool


SYMBOLS = {
    "H": "elements of all hidden states",
    "P": "elements of all parameters",
    "A": "results of projections kept for the backward pass, per step",
    "T": "number of steps",
    "w": "(element of y, weight) pairs of a projection: the size of its weight for a matrix product",
    "s": "states of the group that the projection can reach, over time",
    "x": "elements of a projection's input",
    "y": "elements of a projection's result",
}


@dataclass(frozen=True)
class TraceTerm:
    """The trace sizes of one projection into one group."""

    pairs: int
    inputs: int
    lanes: int
    states: int


@dataclass(frozen=True)
class MemorySizes:
    """What the formulas of rules are made of, for one sample of a program; a leading batch axis is divided out.

    Attributes:
        hidden: elements of all hidden states.
        parameters: elements of all parameters.
        results: elements of the results of projections in one step.
        terms: the trace sizes of every projection and group.
        itemsize: bytes of an element of the widest hidden dtype.
    """

    hidden: int
    parameters: int
    results: int
    terms: tuple[TraceTerm, ...]
    itemsize: int

    def row(self, rule: str, formula: str, numbers: str, elements: int, *, grows: bool = False) -> RuleMemory:
        """The memory of a rule that keeps so many elements."""
        return RuleMemory(rule, formula, numbers, elements, elements * self.itemsize, grows)

    def of_traces(
        self, rule: str, formula: str, elements: Callable[[TraceTerm], int], text: Callable[[TraceTerm], str]
    ) -> RuleMemory:
        """The memory of a rule that keeps something for every projection and group: how much, and that as text."""
        numbers = " + ".join(map(text, self.terms)) or "0"
        return self.row(rule, formula, numbers, sum(map(elements, self.terms)))

    def of_full_traces(self, rule: str) -> RuleMemory:
        """The memory of a rule with a number for every weight and state that it reaches."""
        return self.of_traces(rule, "Σ w·s", lambda t: t.pairs * t.states, lambda t: f"{t.pairs}·{t.states}")


@cached_by_program
def memory_sizes(info: ModuleInfo) -> MemorySizes:
    """The sizes of a program.

    The formulas made of them are general. A learner keeps less where the structure allows, presynaptic traces in place
    of full ones under uniform decay, say; its plan has the bytes.
    """
    batch = batch_size(info)
    return MemorySizes(
        hidden=sum(size_of(var) for var in info.hidden_invars) // batch,
        parameters=sum(size_of(var) for var in info.weight_invars),
        results=_results(info) // batch,
        terms=tuple(
            TraceTerm(t.pairs // batch, t.inputs // batch, t.lanes // batch, t.states) for t in trace_terms(info)
        ),
        itemsize=max((slot.dtype.itemsize for slot in info.hidden), default=4),
    )


def batch_size(info: ModuleInfo) -> int:
    """Size of the leading axis that all inputs and hidden states share besides other axes; 1 without a batch."""
    shapes = [*(aval.shape for aval in info.input_avals), *(slot.shape for slot in info.hidden)]
    leading = {shape[0] if len(shape) > 1 else None for shape in shapes}
    # An image without a batch has a leading axis too, its height or channels: what a convolution takes for a batch
    # decides.
    images = {
        shape_of(eqn.invars[0])[eqn.params["dimension_numbers"].lhs_spec[0]]
        for eqn in info.equations
        if eqn.primitive.name == "conv_general_dilated"
    }
    if len(leading | images) != 1 or None in leading:
        return 1
    return leading.pop() or 1


def trace_terms(info: ModuleInfo) -> list[TraceTerm]:
    """One term for every projection with a trace and every group it reaches."""
    terms, seen = [], set()
    for relation in analyse_relations(info).relations:
        for connection in relation.connections:
            key = (id(relation.operation), connection.group.index)
            if key not in seen:
                seen.add(key)
                terms.append(_term(relation, connection))
    return terms


def _term(relation: HiddenParamOpRelation, connection: Connection) -> TraceTerm:
    operation = relation.operation
    lanes = int(connection.y_index.size)
    per_element = operation.pairs / max(size_of(operation.y), 1)
    pairs = lanes if operation.kind is UseKind.ELEMENTWISE else round(per_element * lanes)
    return TraceTerm(pairs, sum(map(size_of, operation.xs)), lanes, len(reachable_components(connection)))


def reachable_components(connection: Connection) -> frozenset[int]:
    """Components of the group that y reaches, now or in a later step; the others carry no trace."""
    components = connection.group.positions.components
    reached = {a for a, c in enumerate(components) if c.state in connection.states}
    nonzero = connection.group.transition.nonzero
    # An entry (a, b) of D takes b into a with the next step; until a round adds none.
    while True:
        more = {a for a, b in nonzero if b in reached} - reached
        if not more:
            return frozenset(reached)
        reached |= more


def _results(info: ModuleInfo) -> int:
    mixing = [e for e in info.equations if classify(e) in (Kind.MIXING, Kind.OPAQUE)]
    binding_time = binding_times_of(info).by_variable
    results = [var for eqn in mixing for var in eqn.outvars]
    return sum(size_of(var) for var in results if binding_time.get(var) is BindingTime.DYNAMIC)


def size_text(count: int) -> str:
    """Bytes for a person."""
    if count < 10 * 1024:
        return f"{count} B"
    if count < 2**20 // 10:
        return f"{count / 1024:.1f} KiB"
    return f"{count / 2**20:.2f} MiB"
