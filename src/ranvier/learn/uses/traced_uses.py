"""Where parameters meet the data of a step, and which of these places carry an eligibility trace.

For example, ``v' = 0.9 v + x @ softplus(w) + b`` has two uses that reach v without mixing: ``softplus(w)`` at the
product, whose X is x, and ``b`` itself, whose X is 1. ``slots`` says which parameter each is made of; the path from
softplus(w) back to w is taken once per call, outside the traces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...program._jax import Equation, Literal, Var, shape_of
from ...program._jax import operand as operand_of
from ...program.analysis.binding_time import BindingTime, binding_times_of
from ...program.analysis.cache import cached_by_program
from ...program.analysis.parameter_use import ParameterUse, UseKind
from ...program.analysis.parameter_uses import mixes, parameter_uses_of
from ...program.analysis.reachability import feeds_past_static, paths_through_mixing, reach_by_gradient
from ...program.analysis.relations import Connection, connections_of
from ...program.program import ModuleInfo
from ..step.stages import stages_of
from .alignment import Alignment
from .bilinear import BilinearMap, Convolution, Dense, Elementwise, product_map, rows_map
from .probing import sparse_map


@dataclass(frozen=True, eq=False)
class TracedUse:
    """One static operand of one projection, with the groups that its result reaches without mixing.

    Attributes:
        form: the projection, linear in the operand.
        operand: the static variable.
        y: the projection's result.
        equations: the equations that apply the operand; none for an elementwise parameter.
        lanes: the path into each group.
        is_direct: whether the loss of the same step feels y only through the groups' new states.
        slots: indices of the parameters that the operand is made of.
    """

    form: BilinearMap
    operand: Var
    y: Var
    equations: tuple[Equation, ...]
    lanes: tuple[Alignment, ...]
    is_direct: bool
    slots: tuple[int, ...]

    @property
    def connections(self) -> tuple[Connection, ...]:
        return tuple(lanes.connection for lanes in self.lanes)


@cached_by_program
def traced_uses_of(info: ModuleInfo) -> tuple[TracedUse, ...]:
    """All uses of parameters that reach a group, in program order."""
    uses = []
    for operation in parameter_uses_of(info):
        if _connections(info, operation.y):
            uses += _terms_of_operation(info, operation)
    return tuple(uses)


def _terms_of_operation(info: ModuleInfo, operation: ParameterUse) -> Iterator[TracedUse]:
    parts = list(_parts(info, operation))
    # Each operand with a form of its own, where the result of its own equation reaches a state position by position.
    if all(_connections(info, y) for _, y, _, _ in parts):
        for operand, y, equations, form in parts:
            yield _traced_use(info, operation, operand, y, equations, form)
        return
    # Otherwise a further mixing equation belongs to the projection, as in a product that is then scattered: only the
    # whole has a result by position, and its form is found by running it.
    static = operation.transform([leaf for slot in info.parameters for leaf in slot.initial])
    for number, operand in enumerate(operation.operands):
        if binding_times_of(info).learned_of(operand) and slots_of(info, operand):
            form = sparse_map(info, operation, number, static) or Dense(operand, operation.y, operation)
            yield _traced_use(info, operation, operand, operation.y, operation.equations, form)


Part = tuple[Var, Var, tuple[Equation, ...], BilinearMap | None]


def _parts(info: ModuleInfo, operation: ParameterUse) -> Iterator[Part]:
    """For every operand with parameters: itself, the result of the equation that applies it, the equation, its form."""
    if not operation.equations:
        yield operation.y, operation.y, (), Elementwise(operation.y, operation.y)
        return
    operands = [w for w in operation.operands if slots_of(info, w)]
    for operand in operands:
        for eqn in operation.equations:
            for k, atom in enumerate(eqn.invars):
                # One part for every reading: an operand that two equations read has a trace at each, and their
                # gradients add up.
                if atom is operand:
                    if mixes(eqn, k):
                        yield operand, eqn.outvars[0], (eqn,), _form_of(operation, eqn, k)
                    else:
                        yield operand, operand, (), Elementwise(operand, operand)


def _form_of(operation: ParameterUse, eqn: Equation, operand: int) -> BilinearMap | None:
    name, params = eqn.primitive.name, eqn.params
    # ``w @ w`` is not linear in w, so it has no X.
    if name == "dot_general" and eqn.invars[0] is not eqn.invars[1]:
        return product_map(eqn, operand)
    if name == "conv_general_dilated" and operand == 1 and params["batch_group_count"] == 1:
        return Convolution(operand_of(eqn, 1), eqn.outvars[0], eqn)
    if name == "gather" and operand == 0:
        return rows_map(eqn)
    return None


def _traced_use(
    info: ModuleInfo,
    operation: ParameterUse,
    operand: Var,
    y: Var,
    equations: tuple[Equation, ...],
    form: BilinearMap | None,
) -> TracedUse:
    if form is None:
        form = _form_by_running(info, operation, operand, y, equations)
    lanes = tuple(Alignment(connection, shape_of(y)) for connection in _connections(info, y))
    return TracedUse(form, operand, y, equations, lanes, _is_direct(info, y, lanes), slots_of(info, operand))


def _form_by_running(
    info: ModuleInfo, operation: ParameterUse, operand: Var, y: Var, equations: tuple[Equation, ...]
) -> BilinearMap:
    (eqn,) = equations
    # This one equation as a projection of its own, with the variables it reads parted into data and static ones.
    static = tuple(
        dict.fromkeys(a for a in eqn.invars if not isinstance(a, Literal) and binding_times_of(info).is_static(a))
    )
    xs = tuple(dict.fromkeys(a for a in eqn.invars if not isinstance(a, Literal) and a not in static))
    part = ParameterUse(
        operation.kind, y, xs, static, equations, operation.slots, operation.pairs, operation.reason, info
    )
    number = static.index(operand)
    form = None
    if operation.kind is UseKind.SPARSE:
        form = sparse_map(info, part, number, part.transform([leaf for s in info.parameters for leaf in s.initial]))
    # The last resort costs size(y) * size(w) numbers per step, and is right for everything that has a derivative.
    return form or Dense(operand, y, part)


def slots_of(info: ModuleInfo, operand: Var) -> tuple[int, ...]:
    """Indices of the parameters from which a derivative reaches the operand."""
    binding_times = binding_times_of(info)
    mask = binding_times.learned_of(operand)
    by_slot = info.weight_path_to_invars
    return tuple(
        k for k, slot in enumerate(info.parameters) if any(mask & binding_times.bits[var] for var in by_slot[slot.path])
    )


def slots_in_time(info: ModuleInfo) -> tuple[int, ...]:
    """Indices of the parameters that act on later steps: those from which a derivative reaches a state."""
    reach, by_slot = reach_by_gradient(info), info.weight_path_to_invars
    return tuple(
        k
        for k, slot in enumerate(info.parameters)
        if any(reach.hidden(var) or reach.other(var) for var in by_slot[slot.path])
    )


def _connections(info: ModuleInfo, y: Var) -> tuple[Connection, ...]:
    """How y reaches groups; where y is a parameter, not through static values, which are uses of their own."""
    return connections_of(info, y, feeds_past_static(info))


def _is_direct(info: ModuleInfo, y: Var, lanes: Sequence[Alignment]) -> bool:
    """Whether y acts within the step only through the new states of its groups."""
    reach = reach_by_gradient(info)
    # Only then is f_t . L_t all of dl_t/dy_t, and rules need not take dl_t/dy_t apart.
    connected = {lane.connection.group.state_indices[s] for lane in lanes for s in lane.connection.states}
    through_mixing, _ = paths_through_mixing(info).get(y, (0, None))
    return not reach.outputs(y) and not through_mixing and set(reach.hidden(y)) <= connected


@cached_by_program
def entering_variables(info: ModuleInfo) -> tuple[Var, ...]:
    """Static variables made of parameters that the step's changing part, its outputs or its states read."""
    binding_times, stages = binding_times_of(info), stages_of(info)
    read = [a for eqn in stages.changing for a in eqn.invars]
    atoms = [*read, *info.jaxpr.outvars]
    variables = dict.fromkeys(a for a in atoms if not isinstance(a, Literal))
    return tuple(v for v in variables if binding_times.of(v) is BindingTime.STATIC and slots_of(info, v))
