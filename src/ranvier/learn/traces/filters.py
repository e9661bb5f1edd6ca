"""What a population emits within a step, and programs that low-pass filter it.

An emission is a variable that a hidden group computes position by position and that a projection then carries toward
the outputs: the spikes that a readout sees, say. Filtering its eligibility trace is the same as giving the group one
more hidden state ``m_t = decay m_{t-1} + z_t``, so a filter is a rewriting of the program, and all else follows.

For example, a decay of 0.9 and spikes at the steps 0 and 2: m is 1, 0.9, 1.81. The trace of m is the filtered trace of
z, which no rule has to know of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import RuleError
from ...program._jax import Equation, Literal, Var, bind, dtype_of, is_floating, located_at, shape_of, size_of
from ...program.analysis.cache import cached_by_program
from ...program.analysis.hidden_groups import HiddenGroup, analyse_groups
from ...program.analysis.reachability import feeds_of, reach
from ...program.bodies import has_derivative
from ...program.interpret import Environment, read, run_equations
from ...program.nested import classify_derivative
from ...program.normalize import normalize
from ...program.paths import Path, path_text
from ...program.primitives import Kind
from ...program.program import ModuleInfo, Slot, SlotRole, slot_of
from ..step.stages import stages_of
from ..uses.traced_uses import traced_uses_of
from .readouts import is_plain_move, path_out, readouts_of

FILTERED = "filtered emission"
"""Label of the hidden states that filter emissions."""


@dataclass(frozen=True, eq=False)
class FilteredOutput:
    """One emission of a group.

    Attributes:
        group: the hidden group.
        var: z, one element for every position.
        equations: the projections that carry it to the outputs, other than through the group itself.
    """

    group: HiddenGroup
    var: Var
    equations: tuple[Equation, ...]


@cached_by_program
def filtered_outputs_of(info: ModuleInfo) -> tuple[FilteredOutput, ...]:
    """The emissions toward the outputs, within a step, of the groups that carry traces."""
    return _emissions(info, past=False)


@cached_by_program
def filtered_readout_outputs_of(info: ModuleInfo) -> tuple[FilteredOutput, ...]:
    """Like :func:`filtered_outputs_of`, plus emissions from earlier steps: old spikes, the end of a delay line."""
    return _emissions(info, past=True)


def _emissions(info: ModuleInfo, *, past: bool) -> tuple[FilteredOutput, ...]:
    groups = dict.fromkeys(c.group for use in traced_uses_of(info) for c in use.connections)
    return tuple(emission for group in groups for emission in _emissions_of_group(info, group, past))


def _emissions_of_group(info: ModuleInfo, group: HiddenGroup, past: bool) -> list[FilteredOutput]:
    # Closed at the group's own states: a recurrent projection also leads to the outputs in the end, but back through
    # the neuron, where the trace has it already. Filtered, it would be counted with a readout's memory.
    outward = reach(info, by_gradient=True, past_hidden=True, closed=frozenset(group.state_indices))
    others = {j for g in analyse_groups(info).groups if g is not group for j in g.state_indices}
    emitted = _emitted(info, group, past)
    readers: dict[Var, list[Equation]] = {}
    for var in emitted:
        for number in feeds_of(info).consumers.get(var, ()):
            eqn = info.equations[number]
            leads_out = any(outward.outputs(out) or others & set(outward.hidden(out)) for out in eqn.outvars)
            # If the result is an emission too, it is not this equation that leaves the population.
            if not leads_out or not has_derivative(eqn) or emitted.keys() & set(eqn.outvars):
                continue
            mixing = classify_derivative(eqn) is Kind.MIXING
            # A sum over neurons has no weights, so it is no projection, but it may still be a readout.
            projects = mixing and sum(not isinstance(atom, Literal) for atom in eqn.invars) > 1
            if projects or readouts_of(info, var, eqn):
                readers.setdefault(var, []).append(eqn)
    return [FilteredOutput(group, var, tuple(eqns)) for var, eqns in readers.items()]


def _emitted(info: ModuleInfo, group: HiddenGroup, past: bool) -> dict[Var, None]:
    """Variables that the group's projections and states reach position by position, in order."""
    # What projections give the population, and what is computed from it position by position. An elementwise parameter,
    # such as a threshold, starts nothing: it is there without any activity.
    starts = [use.y for use in traced_uses_of(info) if any(c.group is group for c in use.connections) and use.equations]
    emitted = dict.fromkeys([*starts, *(group.hidden_invars if past else ()), *group.hidden_outvars])
    # A delay line is an old state with several values for each position.
    most = group.positions.size * (group.num_state if past else 1)
    for eqn in info.equations:
        sizes = [size_of(a) for a in eqn.invars if not isinstance(a, Literal) and a in emitted]
        if sizes and _stays_apart(eqn, past) and has_derivative(eqn):
            for out in eqn.outvars:
                moved = past and size_of(out) <= max(sizes)
                if (
                    is_floating(dtype_of(out))
                    and (moved or size_of(out) == group.positions.size)
                    and size_of(out) <= most
                ):
                    emitted[out] = None
    return emitted


def _stays_apart(eqn: Equation, moves: bool) -> bool:
    """Whether the equation computes position by position, or moves what comes from positions."""
    if classify_derivative(eqn) is Kind.ELEMENTWISE or eqn.primitive.name in ("reshape", "squeeze", "expand_dims"):
        return True
    return moves and is_plain_move(eqn)


def readout_decay(info: ModuleInfo, emission: FilteredOutput) -> float:
    """The constant decay of the readouts that an emission drives; zero where they have no memory, or are no leaky
    integrators of the emission that the rest of the step sees only through their new states.

    Raises:
        RuleError: the readouts' decay is not one constant.
    """
    decays: set[float | None] = set()
    for eqn in emission.equations:
        # A projection into no readout, to an output itself, say, has no memory: a filter there would add one.
        decays |= {readout.decay for readout in readouts_of(info, emission.var, eqn)} or {0.0}
    if len(decays) == 1 and None not in decays:
        (decay,) = decays
        assert decay is not None
        return decay
    names = ", ".join(map(path_text, emission.group.hidden_paths))
    raise RuleError(
        f"the output of the group of {names} does not drive readouts with one constant decay, so EProp cannot take "
        "its filter from them; write filter=exp(-dt / tau) with the readout's time constant, or filter=None for no "
        "filter."
    )


def with_filters(info: ModuleInfo, decays: Mapping[Var, float], *, detached: bool = False) -> ModuleInfo:
    """The program with one more hidden state for each of these emissions: its low-pass filtered value.

    Args:
        info: the program.
        decays: emission to the decay of its filter.
        detached: whether the filtered value feels the step's projections only, not the old states; then the rest of
            the step does not read it. Otherwise the projections toward the outputs read the emission through it.
    """
    candidates = filtered_outputs_of(info) if detached else filtered_readout_outputs_of(info)
    emissions = {e.var: e for e in candidates if e.var in decays}
    counts = [len(info.input_invars), len(info.weight_invars), len(info.hidden_invars)]
    end = sum(counts)
    extra = list(emissions)

    def step(*operands: Any) -> list[Any]:
        # The filters come after the model's own hidden states, whose numbers stay as they are: parts of a mixed rule
        # share the model's states by number.
        filters = dict(zip(extra, operands[end : end + len(extra)], strict=True))
        values: Environment = dict(zip(info.jaxpr.constvars, info.consts, strict=True))
        values.update(zip(info.jaxpr.invars, [*operands[:end], *operands[end + len(extra) :]], strict=True))
        if detached:
            run_equations(info.equations, values)
            new = _detached(info, values, filters, decays)
        else:
            new = _run_filtered(info, values, filters, decays, emissions)
        results = [jnp.asarray(read(values, atom)) for atom in info.jaxpr.outvars]
        last = len(info.output_outvars) + len(info.hidden_outvars)
        return [*results[:last], *new, *results[last:]]

    avals = [var.aval for var in info.jaxpr.invars]
    avals[end:end] = [var.aval for var in extra]
    first = len(info.output_outvars)
    closed = normalize(step, avals, slice(first, first + len(info.hidden) + len(extra)))
    slots = tuple(_slot(emission, number) for number, emission in enumerate(emissions.values()))
    return replace(info, closed_jaxpr=closed, hidden=(*info.hidden, *slots))


def filter_path(emission: FilteredOutput, number: int) -> Path:
    """Name of the hidden state that filters an emission."""
    return (*emission.group.hidden_paths[0], f"filter{number}")


def _slot(emission: FilteredOutput, number: int) -> Slot:
    zeros = jnp.zeros(shape_of(emission.var), dtype_of(emission.var))
    path = filter_path(emission, number)
    treedef = jax.tree.structure(0)
    return slot_of(path, SlotRole.HIDDEN, treedef, (jax.typeof(zeros),), (zeros,), label=FILTERED)


def _run_filtered(
    info: ModuleInfo,
    values: Environment,
    filters: Mapping[Var, Any],
    decays: Mapping[Var, float],
    emissions: Mapping[Var, FilteredOutput],
) -> list[Any]:
    """Runs the step; the projections read ``z`` with the derivative of its filtered value."""
    # Emissions that are old states are there from the start; the others are filtered as soon as they are computed.
    filtered = {var: decays[var] * filters[var] + values[var] for var in emissions if var in values}
    for eqn in info.equations:
        operands = []
        for atom in eqn.invars:
            value = read(values, atom)
            # The projection reads z, so that the model's numbers stay. Its derivative is that of m, so that L is a
            # signal for m and meets F(e). Other equations, a recurrent projection above all, read z as it is.
            if not isinstance(atom, Literal) and atom in emissions and eqn in emissions[atom].equations:
                hold = jax.lax.stop_gradient
                value = hold(value) + (filtered[atom] - hold(filtered[atom]))
            operands.append(value)
        with located_at(eqn):
            values.update(zip(eqn.outvars, bind(eqn, operands), strict=True))
        for var in eqn.outvars:
            if var in emissions:
                filtered[var] = decays[var] * filters[var] + values[var]
    return [filtered[var] for var in emissions]


def _detached(
    info: ModuleInfo, values: Environment, filters: Mapping[Var, Any], decays: Mapping[Var, float]
) -> list[Any]:
    """The new filtered values, with no derivative by the old states; results of projections are those of the step."""
    # The population is computed a second time from old states without derivatives. Projections are not: their results
    # carry the derivative dz_t/dy_t, the rule's postsynaptic factor.
    detached = {var: jax.lax.stop_gradient(values[var]) for var in info.hidden_invars}
    for eqn in info.equations:
        reads = any(not isinstance(a, Literal) and a in detached for a in eqn.invars)
        if reads and classify_derivative(eqn) in (Kind.ELEMENTWISE, Kind.STRUCTURAL) and not eqn.effects:
            operands = [
                detached[a] if not isinstance(a, Literal) and a in detached else read(values, a) for a in eqn.invars
            ]
            detached.update(zip(eqn.outvars, bind(eqn, operands), strict=True))
    return [decays[var] * filters[var] + detached.get(var, values[var]) for var in filters]


def filtered_readouts(info: ModuleInfo) -> frozenset[int]:
    """``id`` of the mixing equations that carry filtered emissions into readouts whose one state has the filter's
    decay."""
    filtered = {var for slot, var in zip(info.hidden, info.hidden_invars, strict=True) if slot.label == FILTERED}
    for eqn in info.equations:
        if any(not isinstance(a, Literal) and a in filtered for a in eqn.invars):
            filtered.update(eqn.outvars)
    paths = [
        path_out(info, emission.var, eqn)
        for emission in filtered_readout_outputs_of(info)
        for eqn in emission.equations
        if emission.var in filtered and readouts_of(info, emission.var, eqn)
    ]
    return frozenset(id(eqn) for path in paths for eqn, _ in path if classify_derivative(eqn) is Kind.MIXING)


def check_kept_together(info: ModuleInfo, filtered: ModuleInfo, emissions: Sequence[FilteredOutput]) -> None:
    """Raises :class:`RuleError` where a filter feels states of the emission's group and is no state of that group.

    What the group's projections emit without its states, as ``tanh(x @ w)``, has a filter that stands by itself.
    """
    group_of, old = analyse_groups(filtered).group_of, filtered.hidden_path_to_invar
    for number, emission in enumerate(emissions):
        path = filter_path(emission, number)
        group, index = group_of[path], [slot.path for slot in filtered.hidden].index(path)
        felt = [p for p in emission.group.hidden_paths if (index, True) in feeds_of(filtered).of(old[p])]
        if not set(felt) <= set(group.hidden_paths):
            names = ", ".join(map(path_text, emission.group.hidden_paths))
            raise RuleError(
                f"the output of the group of {names} is not arranged by the group's positions, so its trace cannot be "
                "filtered; write EProp(filter=None)."
            )


def feedback_equations(info: ModuleInfo) -> tuple[tuple[Equation, int], ...]:
    """The projections that carry emissions toward the outputs with a parameter: (equation, operand of the weight)."""
    by_id: dict[int, tuple[Equation, int]] = {}
    sequential = {id(e) for e in stages_of(info).changing}
    emitted = {emission.var for emission in filtered_readout_outputs_of(info)}
    for emission in filtered_readout_outputs_of(info):
        for eqn in emission.equations:
            # Exactly one other operand, which is the weight: between two emissions there is none to replace.
            operands = [k for k, a in enumerate(eqn.invars) if a is not emission.var and not isinstance(a, Literal)]
            if id(eqn) in sequential and len(operands) == 1 and eqn.invars[operands[0]] not in emitted:
                by_id[id(eqn)] = (eqn, operands[0])
    return tuple(by_id.values())
