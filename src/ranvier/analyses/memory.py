"""What each learning rule has to keep for a program, as a formula and in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..ir._jax import shape_of, size_of
from ..ir.nested import classify
from ..ir.primitives import Kind
from ..ir.program import ModuleInfo
from .cache import cached_by_program
from .levels import Level, levels_of
from .operations import OperationKind
from .relations import Connection, HiddenParamOpRelation, analyse_relations


@dataclass(frozen=True)
class RuleMemory:
    """Memory of one learning rule between two steps.

    Attributes:
        rule: name of the rule.
        formula: what it keeps, in the symbols of :data:`SYMBOLS`.
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
    "A": "results of projections kept for the way back, per step",
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


@cached_by_program
def rule_memory(info: ModuleInfo) -> list[RuleMemory]:
    """Memory of the learning rules for one sample of a program; a leading batch axis is divided out.

    These are the general formulas. A learner keeps less where the structure allows, presynaptic traces in place of full
    ones under uniform decay, say; its plan has the bytes.
    """
    batch = batch_size(info)
    terms = [TraceTerm(t.pairs // batch, t.inputs // batch, t.lanes // batch, t.states) for t in trace_terms(info)]
    hidden = sum(size_of(var) for var in info.hidden_invars) // batch
    parameters = sum(size_of(var) for var in info.weight_invars)
    kept = _kept_results(info) // batch
    itemsize = max(slot.dtype.itemsize for slot in info.hidden)

    def row(rule: str, formula: str, numbers: str, elements: int, grows: bool = False) -> RuleMemory:
        return RuleMemory(rule, formula, numbers, elements, elements * itemsize, grows)

    full = sum(t.pairs * t.states for t in terms)
    full_numbers = _sum(f"{t.pairs}·{t.states}" for t in terms)
    split = sum(t.inputs + t.lanes * t.states for t in terms)
    pairs = sum(t.pairs for t in terms)
    return [
        row("BPTT", "T·(H + A)", f"T·({hidden} + {kept})", hidden + kept, grows=True),
        row("RTRL", "H·P", f"{hidden}·{parameters}", hidden * parameters),
        row("UORO", "H + P", f"{hidden} + {parameters}", hidden + parameters),
        row("SnAp(1)", "Σ w·s", full_numbers, full),
        row("D_RTRL", "Σ w·s", full_numbers, full),
        row("OSTL", "Σ w·s", full_numbers, full),
        row("EProp", "Σ w·(s + 1)", _sum(f"{t.pairs}·{t.states + 1}" for t in terms), full + pairs),
        row("ThreeFactor", "Σ w", _sum(str(t.pairs) for t in terms), pairs),
        row("ES_D_RTRL", "Σ (x + y·s)", _sum(f"{t.inputs} + {t.lanes}·{t.states}" for t in terms), split),
        row("OTTT", "Σ x", _sum(str(t.inputs) for t in terms), sum(t.inputs for t in terms)),
    ]


def batch_size(info: ModuleInfo) -> int:
    """Size of the leading axis that all inputs and hidden states share besides other axes; 1 without a batch."""
    shapes = [*(aval.shape for aval in info.input_avals), *(slot.shape for slot in info.hidden)]
    leading = {shape[0] if len(shape) > 1 else None for shape in shapes}
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
    pairs = lanes if operation.kind is OperationKind.ELEMENTWISE else round(per_element * lanes)
    return TraceTerm(pairs, sum(map(size_of, operation.xs)), lanes, len(reachable_components(connection)))


def reachable_components(connection: Connection) -> frozenset[int]:
    """Components of the group that y reaches, now or in a later step; the others carry no trace."""
    components = connection.group.positions.components
    reached = {a for a, c in enumerate(components) if c.state in connection.states}
    nonzero = connection.group.transition.nonzero
    while True:
        more = {a for a, b in nonzero if b in reached} - reached
        if not more:
            return frozenset(reached)
        reached |= more


def _kept_results(info: ModuleInfo) -> int:
    levels = levels_of(info)
    mixing = [e for e in info.equations if classify(e) in (Kind.MIXING, Kind.OPAQUE)]
    return sum(size_of(var) for eqn in mixing for var in eqn.outvars if levels.level.get(var) is Level.DYNAMIC)


def _sum(parts: Iterable[str]) -> str:
    return " + ".join(parts) or "0"


def size_text(count: int) -> str:
    """Bytes for a person."""
    if count < 10 * 1024:
        return f"{count} B"
    if count < 2**20 // 10:
        return f"{count / 1024:.1f} KiB"
    return f"{count / 2**20:.2f} MiB"
