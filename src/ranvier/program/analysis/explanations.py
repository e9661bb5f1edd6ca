"""Why a parameter is in no relation, and what opaque equations hide.

In ``v' = 0.9 v + x @ w; out = v' @ o; flag = (v' > a)`` with the parameters w, o, a and b the reasons are: w has
a relation and needs none; o is a readout parameter, for it reaches the output only; the derivative by a is stopped by
the comparison; and b is unused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from .._jax import Equation, Literal, Var, dtype_of, is_floating, open_jaxpr, shape_of, source_line
from ..bodies import bodies, has_own_derivative
from ..diagnostic import Diagnostic, DiagnosticKind
from ..nested import classify_derivative, tangents_of
from ..paths import Path, path_text
from ..primitives import Kind, is_known
from ..program import ModuleInfo, shape_text
from .binding_time import BindingTimes, binding_times_of
from .reachability import Reaches, bits_of, paths_through_mixing, reach_by_any, reach_by_gradient


def equation_text(eqn: Equation) -> str:
    """Primitive and source line, for a diagnostic."""
    return f"{eqn.primitive.name} at {source_line(eqn)}"


def mixing_text(eqn: Equation) -> str:
    """A mixing equation for a person; of a statistic, such as the sums of a normalization, also the axes it is over."""
    axes = eqn.params.get("axes")
    if axes is None:
        return equation_text(eqn)
    shape = shape_of(eqn.invars[0])
    over = ", ".join(f"axis {axis} (of size {shape[axis]})" for axis in axes)
    return f"{eqn.primitive.name} over {over} of {shape_text(shape)} at {source_line(eqn)}"


def opaque_diagnostics(info: ModuleInfo) -> list[Diagnostic]:
    """One diagnostic for every opaque equation that stands between parameters or states and results.

    What reaches it only past ``stop_gradient`` does not count: no derivative is lost there.
    """
    binding_times = binding_times_of(info)
    anything = reach_by_any(info)
    names = {**info.invar_to_hidden_path, **info.invar_to_weight_path}
    diagnostics = []
    for outer in info.equations:
        if classify_derivative(outer) is not Kind.OPAQUE or not any(anything.anything(var) for var in outer.outvars):
            continue
        hidden_paths = _hidden_behind(outer, binding_times, names)
        if not hidden_paths:
            continue
        eqn = _innermost_opaque(outer)
        known = is_known(eqn.primitive)
        diagnostics.append(
            Diagnostic(
                DiagnosticKind.OPAQUE_EQUATION if known else DiagnosticKind.UNKNOWN_PRIMITIVE,
                _opaque_message(eqn, known),
                equation_text(eqn),
                hidden_paths,
            )
        )
    return diagnostics


def backward_only(info: ModuleInfo) -> list[str]:
    """Functions on the paths from parameters or old states to new states whose declared derivative has no forward mode:
    equation and reason of each."""
    binding_times, reached = binding_times_of(info), reach_by_gradient(info)
    learned = sum(binding_times.bits[var] for var in (*info.weight_invars, *info.hidden_invars))
    reasons = []
    for eqn in info.equations:
        changing = {k for k, atom in enumerate(eqn.invars) if binding_times.learned_of(atom) & learned}
        if changing and any(map(reached.hidden, eqn.outvars)):
            reasons += [f"{equation_text(inner)}: {reason}" for inner, reason in _without_forward(eqn, changing)]
    return list(dict.fromkeys(reasons))


def _without_forward(eqn: Equation, changing: Collection[int]) -> Iterator[tuple[Equation, str]]:
    if has_own_derivative(eqn) and bodies(eqn):
        missing = tangents_of(eqn).missing
        yield from ((eqn, missing[k]) for k in missing if k in changing)
    elif not has_own_derivative(eqn):
        for body in bodies(eqn):
            for inner in open_jaxpr(body)[0].eqns:
                yield from _without_forward(inner, range(len(inner.invars)))


def _innermost_opaque(eqn: Equation) -> Equation:
    """The equation inside branches, loops and calls that makes this one opaque."""
    for body in bodies(eqn):
        for inner in open_jaxpr(body)[0].eqns:
            if classify_derivative(inner) is Kind.OPAQUE:
                return _innermost_opaque(inner)
    return eqn


def _opaque_message(eqn: Equation, known: bool) -> str:
    if not known:
        return (
            f"the primitive {eqn.primitive.name} is unknown, so nothing is assumed about it, and nothing that passes "
            "through it has a trace; declare what it does to positions with "
            f"ranvier.register_primitive({eqn.primitive.name!r}, kind)."
        )
    remedy = (
        "write it as lax.scan or lax.fori_loop with a fixed number of iterations"
        if eqn.primitive.name == "while"
        else ("keep it outside the step, or write it in JAX operations")
    )
    return f"no derivative passes through {eqn.primitive.name}, which hides these from learning; {remedy}."


def _hidden_behind(eqn: Equation, binding_times: BindingTimes, names: Mapping[Var, Path]) -> tuple[Path, ...]:
    mask = 0
    for atom in eqn.invars:
        if not isinstance(atom, Literal) and is_floating(dtype_of(atom)):
            mask |= binding_times.learned_of(atom)
    return tuple(dict.fromkeys(path for var, path in names.items() if mask & binding_times.bits[var]))


def second_mixing_diagnostics(info: ModuleInfo, paths: tuple[Path, ...], y: Var, direct: bool) -> list[Diagnostic]:
    """A note where a projection reaches hidden states through another mixing equation of the same step.

    Args:
        info: the program.
        paths: the parameters of the projection.
        y: its result.
        direct: whether it reaches some hidden states without mixing as well.
    """
    states, eqn = paths_through_mixing(info).get(y, (0, None))
    if eqn is None or not states:
        return []
    names = ", ".join(path_text(info.hidden[j].path) for j in bits_of(states & (1 << len(info.hidden)) - 1))
    if not names:
        return []
    if direct:
        kind = DiagnosticKind.MIXED_PATH
        message = (
            f"f and the trace cover the direct path; the one into {names} through this equation is in the same-step "
            "gradient only."
        )
    else:
        kind = DiagnosticKind.INDIRECT_PARAMETER
        message = (
            f"a mixing operation lies between it and {names}; on that path it has its exact same-step gradient, but "
            "no trace."
        )
    return [Diagnostic(kind, message, mixing_text(eqn), paths)]


def other_state_diagnostics(info: ModuleInfo) -> list[Diagnostic]:
    """Hidden states and parameters that act on later steps through floating-point states that are not hidden."""
    by_gradient = reach_by_gradient(info)
    if not any(by_gradient.hidden(var) or by_gradient.outputs(var) for var in info.other_invars):
        return []
    message = (
        "acts on later steps through a state that is not hidden, and learning carries nothing through that; make the "
        "state a hidden state, or accept a gradient without this path."
    )
    states = zip(info.hidden, info.hidden_invars, info.hidden_outvars, strict=True)
    kinds = [(DiagnosticKind.STATE_THROUGH_OTHER, {slot.path: [old, new] for slot, old, new in states})]
    kinds.append((DiagnosticKind.OTHER_STATE_PARAMETER, info.weight_path_to_invars))
    return [
        Diagnostic(kind, message, paths=(path,))
        for kind, variables in kinds
        for path, of_path in variables.items()
        if any(by_gradient.other(var) for var in of_path)
    ]


def parameter_diagnostics(info: ModuleInfo, related: Collection[Path]) -> list[Diagnostic]:
    """Why each parameter without a relation has none.

    Args:
        info: the program.
        related: paths of the parameters with a relation.
    """
    by_gradient = reach_by_gradient(info)
    by_any = reach_by_any(info)
    behind_opaque = {path for d in opaque_diagnostics(info) for path in d.paths}
    diagnostics = other_state_diagnostics(info)
    explained = {path for note in diagnostics for path in note.paths}
    for slot in info.parameters:
        leaves = info.weight_path_to_invars[slot.path]
        if slot.path in related or slot.path in explained:
            continue
        kind, message = _reason(slot.path, leaves, by_gradient, by_any, behind_opaque)
        diagnostics.append(Diagnostic(kind, message, paths=(slot.path,)))
    return diagnostics


def _reason(
    path: Path,
    leaves: list[Var],
    by_gradient: Reaches,
    by_any: Reaches,
    behind_opaque: set[Path],
) -> tuple[DiagnosticKind, str]:
    # From the strongest reason to the weakest: each test may assume that those before it failed.
    if not any(by_any.anything(var) for var in leaves):
        return DiagnosticKind.UNUSED_PARAMETER, "the step computes nothing from it; its gradient is zero."
    if path in behind_opaque and not any(by_gradient.anything(var) for var in leaves):
        return DiagnosticKind.OPAQUE_EQUATION, "reaches results only through an opaque equation; it has no gradient."
    if any(by_gradient.outputs(var) for var in leaves):
        return DiagnosticKind.READOUT_PARAMETER, "reaches outputs only; its same-step gradient is its whole gradient."
    return DiagnosticKind.GRADIENT_STOPPED, (
        "every path from it ends in stop_gradient, a comparison or an integer; it has no gradient."
    )
