"""What a population emits within a step, and programs that low-pass filter it.

An emission is a variable that a hidden group computes position by position and that a projection then carries toward
the outputs: the spikes that a readout sees, say. Filtering its eligibility trace is the same as giving the group one
more hidden state ``m_t = decay m_{t-1} + z_t``, so a filter is a rewriting of the program, and all else follows.

For example, a decay of 0.9 and spikes at the steps 0 and 2: m is 1, 0.9, 1.81. The trace of m is the filtered trace of
z, which no rule has to know of.

Of two readouts with the decays 0.9 and 0.5 each needs a filter of its own. The projection that drives both is then
taken twice, from the one filter and from the other, and of each result only the elements of its readout are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import RuleError
from ...program._jax import Equation, Literal, Var, bind, dtype_of, is_floating, located_at, shape_of, size_of
from ...program.analysis.cache import cached_by_program
from ...program.analysis.hidden_groups import HiddenGroup, analyse_groups
from ...program.analysis.reachability import feeds_of, reach
from ...program.analysis.relations import connections_of
from ...program.bodies import has_derivative
from ...program.interpret import Environment, read, run_equations
from ...program.nested import classify_derivative
from ...program.normalize import normalize
from ...program.paths import Path, path_text
from ...program.primitives import Kind
from ...program.program import ModuleInfo, Slot, SlotRole, slot_of
from ..step.stages import stages_of
from ..uses.traced_uses import traced_uses_of
from .readouts import Readout, is_plain_move, path_out, readouts_of

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


MAX_DECAYS = 16
"""Readouts of one emission with more different decays than this have no filter: each is a trace of every weight."""


@dataclass(frozen=True, eq=False)
class Filters:
    """The low-pass filters of one emission.

    Attributes:
        decays: of the filters, without repetition.
        of_results: by ``id`` of a projection that reads filtered values, for each of its results the decay of the
            filter that each element is read through.
    """

    decays: tuple[float, ...]
    of_results: Mapping[int, tuple[np.ndarray, ...]] = field(default_factory=dict)

    @classmethod
    def with_decay(cls, emission: FilteredOutput, decay: float) -> Filters:
        """One filter for all that reads an emission."""
        of_results = {
            id(eqn): tuple(np.full(shape_of(out), decay) for out in eqn.outvars) for eqn in emission.equations
        }
        return cls((decay,), of_results)


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


def readout_filters(info: ModuleInfo, emission: FilteredOutput) -> Filters | None:
    """A filter for every decay of the leaky readouts that an emission drives; None where they have no memory.

    A projection into no readout, to an output itself, say, has no memory: a filter there would add one.

    Raises:
        RuleError: a readout's decay is not constant, or there are too many.
    """
    of_results = {
        id(eqn): _decays_of_results(info, emission, eqn, readouts)
        for eqn in emission.equations
        if (readouts := readouts_of(info, emission.var, eqn))
    }
    decays = _distinct(of_results.values())
    if len(decays) > MAX_DECAYS:
        raise RuleError(
            f"the output of the group of {_group_text(emission)} drives readouts with {len(decays)} different decays, "
            f"and each takes a filtered trace of every weight; EProp filters for at most {MAX_DECAYS}. Give the "
            "readouts fewer decays, or write filter=exp(-dt / tau) with one time constant for all, or filter=None for "
            "no filter."
        )
    return Filters(decays, of_results) if any(decays) else None


def _distinct(of_results: Iterable[tuple[np.ndarray, ...]]) -> tuple[float, ...]:
    """The decays of some results, each once."""
    return tuple(np.unique([x for results in of_results for result in results for x in result.flat]).tolist())


def _group_text(emission: FilteredOutput) -> str:
    return ", ".join(map(path_text, emission.group.hidden_paths))


def _decays_of_results(
    info: ModuleInfo, emission: FilteredOutput, eqn: Equation, readouts: Sequence[Readout]
) -> tuple[np.ndarray, ...]:
    """For every result of a projection the decay of the readout that each element drives."""
    by_component = {(readout.group.index, readout.component): readout.decays for readout in readouts}
    known = [decays for decays in by_component.values() if decays is not None]
    if len(known) < len(by_component):
        raise RuleError(
            f"the output of the group of {_group_text(emission)} does not drive readouts with one constant decay each, "
            "so EProp cannot take its filter from them; write filter=exp(-dt / tau) with the readout's time constant, "
            "or filter=None for no filter."
        )
    values = np.unique(np.concatenate(known))
    # One decay for all, whatever lies between the projection and the readouts.
    if values.size == 1:
        return tuple(np.full(shape_of(out), values[0]) for out in eqn.outvars)
    results = []
    for out in eqn.outvars:
        of_element = np.full(size_of(out), values[0])
        reached: dict[int, float] = {}
        for connection in connections_of(info, out, feeds_of(info)):
            for component in connection.components:
                decays = by_component.get((connection.group.index, component))
                if decays is None:
                    continue
                for element, decay in zip(connection.y_index.tolist(), decays[connection.position].tolist()):
                    _check_one_decay(emission, reached.setdefault(element, decay), decay)
        if len(reached) < size_of(out):
            _check_one_decay(emission, None, None)
        of_element[list(reached)] = list(reached.values())
        results.append(of_element.reshape(shape_of(out)))
    return tuple(results)


def _check_one_decay(emission: FilteredOutput, known: float | None, decay: float | None) -> None:
    if known is None or known != decay:
        raise RuleError(
            f"the output of the group of {_group_text(emission)} drives readouts with different decays, but one result "
            "of the projection feeds several of them, so no one filter is right for it; write filter=exp(-dt / tau) "
            "with one time constant for all, or filter=None for no filter."
        )


def with_filters(info: ModuleInfo, filters: Mapping[Var, Filters], *, detached: bool = False) -> ModuleInfo:
    """The program with more hidden states for each of these emissions: its low-pass filtered values.

    Args:
        info: the program.
        filters: emission to its filters.
        detached: whether the filtered value feels the step's projections only, not the old states; then the rest of
            the step does not read it. Otherwise the projections toward the outputs read the emission through it.
    """
    candidates = filtered_outputs_of(info) if detached else filtered_readout_outputs_of(info)
    emissions = {e.var: e for e in candidates if e.var in filters}
    counts = [len(info.input_invars), len(info.weight_invars), len(info.hidden_invars)]
    end = sum(counts)
    extra = [(var, decay) for var in emissions for decay in filters[var].decays]

    def step(*operands: Any) -> list[Any]:
        # The filters come after the model's own hidden states, whose numbers stay as they are: parts of a mixed rule
        # share the model's states by number.
        old = dict(zip(extra, operands[end : end + len(extra)], strict=True))
        values: Environment = dict(zip(info.jaxpr.constvars, info.consts, strict=True))
        values.update(zip(info.jaxpr.invars, [*operands[:end], *operands[end + len(extra) :]], strict=True))
        if detached:
            run_equations(info.equations, values)
            new = _detached(info, values, old)
        else:
            new = _run_filtered(info, values, old, filters, emissions)
        results = [jnp.asarray(read(values, atom)) for atom in info.jaxpr.outvars]
        last = len(info.output_outvars) + len(info.hidden_outvars)
        return [*results[:last], *new, *results[last:]]

    avals = [var.aval for var in info.jaxpr.invars]
    avals[end:end] = [var.aval for var, _ in extra]
    first = len(info.output_outvars)
    closed = normalize(step, avals, slice(first, first + len(info.hidden) + len(extra)))
    slots = tuple(_slot(emissions[var], number) for number, (var, _) in enumerate(extra))
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
    old: Mapping[tuple[Var, float], Any],
    filters: Mapping[Var, Filters],
    emissions: Mapping[Var, FilteredOutput],
) -> list[Any]:
    """Runs the step; the projections read ``z`` with the derivative of its filtered value."""
    new: dict[tuple[Var, float], Any] = {}

    def advance(variables: Iterable[Var]) -> None:
        for var, decay in old:
            if var in variables:
                new[var, decay] = decay * old[var, decay] + values[var]

    # Emissions that are old states are there from the start; the others are filtered as soon as they are computed.
    advance([var for var in emissions if var in values])
    for eqn in info.equations:
        operands = [read(values, atom) for atom in eqn.invars]
        # Other equations, a recurrent projection above all, read z as it is.
        read_here = [a for a in eqn.invars if not isinstance(a, Literal) and a in filters]
        filtered = {var: filters[var].of_results[id(eqn)] for var in read_here if id(eqn) in filters[var].of_results}
        with located_at(eqn):
            results = _read_filtered(eqn, operands, filtered, new) if filtered else bind(eqn, operands)
        values.update(zip(eqn.outvars, results, strict=True))
        advance(eqn.outvars)
    return [new[key] for key in old]


def _read_filtered(
    eqn: Equation,
    operands: Sequence[Any],
    filtered: Mapping[Var, tuple[np.ndarray, ...]],
    new: Mapping[tuple[Var, float], Any],
) -> list[Any]:
    """The results of a projection, each element with the derivative of the emission as its filter has it."""
    decays = _distinct(filtered.values())
    (of_results, *_) = filtered.values()
    by_decay = []
    for decay in decays:
        values = list(operands)
        for k, atom in enumerate(eqn.invars):
            if not isinstance(atom, Literal) and atom in filtered and (atom, decay) in new:
                # The projection reads z, so that the model's numbers stay. Its derivative is that of m, so that L is a
                # signal for m and meets F(e).
                hold, m = jax.lax.stop_gradient, new[atom, decay]
                values[k] = hold(values[k]) + (m - hold(m))
        by_decay.append(bind(eqn, values))
    results = by_decay[0]
    for decay, others in zip(decays[1:], by_decay[1:], strict=True):
        masks = [jnp.asarray(of_element == decay) for of_element in of_results]
        results = [jnp.where(*parts) for parts in zip(masks, others, results, strict=True)]
    return results


def _detached(info: ModuleInfo, values: Environment, old: Mapping[tuple[Var, float], Any]) -> list[Any]:
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
    return [decay * before + detached.get(var, values[var]) for (var, decay), before in old.items()]


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


def check_kept_together(info: ModuleInfo, filtered: ModuleInfo, filters: Mapping[Var, Filters]) -> None:
    """Raises :class:`RuleError` where a filter feels states of the emission's group and is no state of that group.

    What the group's projections emit without its states, as ``tanh(x @ w)``, has a filter that stands by itself.
    """
    group_of, old = analyse_groups(filtered).group_of, filtered.hidden_path_to_invar
    filtered_here = [e for e in filtered_readout_outputs_of(info) if e.var in filters]
    emissions = [emission for emission in filtered_here for _ in filters[emission.var].decays]
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
