"""Reachability: which hidden states a variable feeds position by position, and what it can affect at all.

Two questions, both answered by one walk backward over the equations. Take the step ``y = x @ w; u = roll(y, 1);
v' = 0.9 v + u; z = v' > 1`` with three neurons.

- :class:`Feeds` follows positions and stops where an equation mixes them. v feeds v' by the identity. y feeds v' by the
  map [2, 0, 1]: position 0 of v' takes element 2 of y, since the roll moved it there. x and w feed nothing: the product
  lies in between, so no element of x belongs to one position of v'.
- :class:`Reaches` follows everything, as bit masks. x, w, y, u and v all have the bit of v'. What counts as a path is
  a choice: with a derivative only (z has none, so v' does not reach an output z), or past the new states as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .._jax import Atom, Equation, Literal, Var, dtype_of, is_floating, size_of
from ..bodies import has_derivative, is_loop
from ..nested import classify_derivative, mixes
from ..primitives import Kind, rule_of
from ..program import ModuleInfo
from ..turn_axes import turn_axes_of
from .binding_time import BindingTime, binding_times_of
from .cache import cached_by_program
from .dependence import Sources, equation_dependences
from .dependences import Dependences, add_dependence
from .lost_paths import lost_paths
from .position_map import ONLY_IDENTITY, Maps, compose

NOTHING: Dependences = {}


@dataclass(frozen=True, eq=False)
class Feeds:
    """Paths from variables to new hidden states without mixing in between.

    Attributes:
        of_variable: for every variable, (index of the hidden state, whether a derivative passes) to the maps
            from the elements of the new hidden state to the elements of the variable.
        of_equation: for every equation on such a path, by ``id``, the dependences of its results.
        lost: for every branch and loop among these the pairs (operand, result) between which positions are lost.
        consumers: variable to the numbers of the equations that read it, in order.
    """

    of_variable: dict[Var, Dependences]
    of_equation: dict[int, list[Dependences]]
    lost: dict[int, frozenset[tuple[int, int]]]
    consumers: dict[Var, list[int]]

    def of(self, atom: Atom) -> Dependences:
        return NOTHING if isinstance(atom, Literal) else self.of_variable.get(atom, NOTHING)

    def reaches(self, atom: Atom, states: frozenset[int]) -> bool:
        return any(j in states for j, _ in self.of(atom))

    def passes(self, eqn: Equation, operand: int) -> bool:
        """Whether the operand reaches a result position by position with a derivative."""
        return any((operand, True) in dependences for dependences in self.of_equation.get(id(eqn), ()))


@cached_by_program
def feeds_of(info: ModuleInfo) -> Feeds:
    """The feeds of all variables, by one pass backward over the program."""
    return _feeds(info, info.equations)


@cached_by_program
def feeds_past_static(info: ModuleInfo) -> Feeds:
    """The feeds of all variables, but through no equation that makes a static value.

    What a parameter feeds through a static value that is made of it is that value's own.
    """
    binding_times = binding_times_of(info)
    changing = [
        e for e in info.equations if e.effects or any(binding_times.of(v) is BindingTime.DYNAMIC for v in e.outvars)
    ]
    return _feeds(info, changing)


def _feeds(info: ModuleInfo, equations: Sequence[Equation]) -> Feeds:
    binding_times = binding_times_of(info)
    sizes = [size_of(var) for var in info.hidden_outvars]
    of_variable: dict[Var, Dependences] = {var: {(j, True): ONLY_IDENTITY} for j, var in enumerate(info.hidden_outvars)}
    of_equation: dict[int, list[Dependences]] = {}
    lost: dict[int, frozenset[tuple[int, int]]] = {}

    def is_fixed(atom: Atom) -> bool:
        return not binding_times.learned_of(atom)

    old_states = sum(binding_times.bits[var] for var in info.hidden_invars)

    def holds_no_state(atom: Atom) -> bool:
        return not binding_times.learned_of(atom) & old_states

    sources = Sources(binding_times.producers, is_fixed, info.samples, turn_axes_of(info.equations, holds_no_state))
    # Backward: when an equation is visited, all that its results feed is known, so each is visited once.
    for eqn in reversed(equations):
        if not any(var in of_variable for var in eqn.outvars):
            continue
        of_equation[id(eqn)] = equation_dependences(eqn, binding_times.constant_value, sources)
        if eqn.primitive.name == "cond" or is_loop(eqn):
            lost[id(eqn)] = lost_paths(eqn, of_equation[id(eqn)], binding_times.constant_value, sources)
        for out, dependences in zip(eqn.outvars, of_equation[id(eqn)], strict=True):
            fed = of_variable.get(out, NOTHING)
            for (operand, gradient), maps in dependences.items():
                source = eqn.invars[operand]
                if not isinstance(source, Literal):
                    _extend(of_variable, source, fed, gradient, maps, sizes)
    return Feeds(of_variable, of_equation, lost, _consumers(info))


def _extend(
    of_variable: dict[Var, Dependences], source: Var, fed: Dependences, gradient: bool, maps: Maps, sizes: list[int]
) -> None:
    size = size_of(source)
    for (j, passes), to_out in fed.items():
        through = compose(to_out, maps, sizes[j], size)
        # An empty union of maps means that no element comes through; a pair without maps would join states by nothing.
        if through != ():
            into = of_variable.setdefault(source, {})
            add_dependence(into, (j, passes and gradient), through, sizes[j], size)


def _consumers(info: ModuleInfo) -> dict[Var, list[int]]:
    consumers: dict[Var, list[int]] = {}
    for number, eqn in enumerate(info.equations):
        for atom in eqn.invars:
            # Once for each equation, also where it reads a variable twice (x * x): users count equations.
            if not isinstance(atom, Literal) and consumers.setdefault(atom, [])[-1:] != [number]:
                consumers[atom].append(number)
    return consumers


@dataclass(frozen=True, eq=False)
class Reaches:
    """Bit masks of what each variable can affect, through any equation.

    Bits below ``num_hidden`` stand for the new hidden states in order; then come one bit for the outputs
    and one for every leaf of the new other states.
    """

    masks: dict[Var, int]
    num_hidden: int

    def hidden(self, atom: Atom) -> list[int]:
        """Indices of the hidden states reached."""
        return bits_of(self.mask(atom) & (1 << self.num_hidden) - 1)

    def outputs(self, atom: Atom) -> bool:
        return bool(self.mask(atom) >> self.num_hidden & 1)

    def other(self, atom: Atom) -> list[int]:
        """Indices of the leaves of other states reached."""
        return bits_of(self.mask(atom) >> self.num_hidden + 1)

    def anything(self, atom: Atom) -> bool:
        return self.mask(atom) != 0

    def mask(self, atom: Atom) -> int:
        return 0 if isinstance(atom, Literal) else self.masks.get(atom, 0)


def bits_of(mask: int) -> list[int]:
    """The numbers of the bits that are set, in order."""
    numbers = []
    # Bit by bit from the lowest: masks have a bit per state, and few are set.
    while mask:
        lowest = mask & -mask
        numbers.append(lowest.bit_length() - 1)
        mask ^= lowest
    return numbers


@cached_by_program
def reach_by_gradient(info: ModuleInfo) -> Reaches:
    """What variables reach with a derivative, up to the first new hidden state."""
    return reach(info, by_gradient=True, past_hidden=False)


@cached_by_program
def reach_onward(info: ModuleInfo) -> Reaches:
    """What variables reach with a derivative, past new hidden states too."""
    return reach(info, by_gradient=True, past_hidden=True)


@cached_by_program
def reach_by_any(info: ModuleInfo) -> Reaches:
    """What variables reach in any way."""
    return reach(info, by_gradient=False, past_hidden=True)


def reach(
    info: ModuleInfo,
    *,
    by_gradient: bool,
    past_hidden: bool,
    closed: frozenset[int] = frozenset(),
    without: frozenset[int] = frozenset(),
) -> Reaches:
    """Computes what variables reach.

    Args:
        info: the program.
        by_gradient: count only paths along which a derivative passes.
        past_hidden: whether a path goes on after it has reached a new hidden state.
        closed: indices of hidden states past which none goes on.
        without: ``id`` of equations through which none goes.
    """
    count = len(info.hidden)
    own = {var: 1 << j for j, var in enumerate(info.hidden_outvars)}
    ends = {var for j, var in enumerate(info.hidden_outvars) if not past_hidden or j in closed}
    masks: dict[Var, int] = dict(own)
    # Integers have no derivative: a path that ends in one (a spike count, an index) ends there.
    results = [(count, atom) for atom in info.output_outvars]
    results += [(count + 1 + k, atom) for k, atom in enumerate(info.other_outvars)]
    for position, atom in results:
        if not isinstance(atom, Literal) and (not by_gradient or is_floating(dtype_of(atom))):
            masks[atom] = masks.get(atom, 0) | 1 << position
    for eqn in reversed(info.equations):
        mask = 0
        # A new state that paths end at shows only itself. Without this, a parameter would seem to reach the outputs
        # that read the state, and the same-step part would be counted in two places.
        for var in eqn.outvars:
            mask |= own[var] if var in ends else masks.get(var, 0)
        if mask and id(eqn) not in without and (not by_gradient or has_derivative(eqn)):
            for atom in eqn.invars:
                if not isinstance(atom, Literal) and (not by_gradient or is_floating(dtype_of(atom))):
                    masks[atom] = masks.get(atom, 0) | mask
    return Reaches(masks, count)


@cached_by_program
def paths_through_mixing(info: ModuleInfo) -> dict[Var, tuple[int, Equation]]:
    """For every variable with such a path: the hidden states it reaches within the step, up to the first new one,
    through at least one mixing equation along which a derivative passes (bit mask), and one such equation."""
    masks, new_states, feeds = reach_by_gradient(info).masks, set(info.hidden_outvars), feeds_of(info)
    paths: dict[Var, tuple[int, Equation]] = {}
    for eqn in reversed(info.equations):
        if not has_derivative(eqn):
            continue
        through = eqn
        later = 0
        for var in eqn.outvars:
            # A new state ends a path: what mixes after it belongs to the next relation.
            if var in paths and var not in new_states:
                later, through = later | paths[var][0], paths[var][1]
        for k, atom in differentiated_operands(eqn):
            mask, mixed = later, mixed_results(feeds, eqn, k)
            for var in mixed:
                mask |= masks.get(var, 0)
            if mask:
                known, first = paths.get(atom, (0, eqn if mixed else through))
                paths[atom] = known | mask, first
    return paths


def differentiated_operands(eqn: Equation) -> Iterator[tuple[int, Var]]:
    """The operands that can have a derivative, with their numbers."""
    for k, atom in enumerate(eqn.invars):
        if not isinstance(atom, Literal) and is_floating(dtype_of(atom)):
            yield k, atom


def is_mixed(feeds: Feeds, eqn: Equation, operand: int) -> bool:
    """Whether the equation mixes the operand's positions.

    A sum into constant places mixes what it adds up, and so does any other move that leaves an operand no place. A sum
    over the elements of one position (see :mod:`.position_sums`) does not.
    """
    return bool(mixed_results(feeds, eqn, operand))


def mixed_results(feeds: Feeds, eqn: Equation, operand: int) -> Sequence[Var]:
    """The results in which an equation mixes the operand's positions, as :func:`is_mixed` has it.

    A loop that takes v to the new v, and writes it into a row of a buffer that data decide, mixes it in the buffer.
    """
    if rule_of(eqn.primitive).kind is Kind.MIXING and feeds.passes(eqn, operand):
        return ()
    if id(eqn) in feeds.lost:
        return [out for r, out in enumerate(eqn.outvars) if (operand, r) in feeds.lost[id(eqn)]]
    moved = classify_derivative(eqn) in (Kind.STRUCTURAL, Kind.MIXING)
    lost = moved and id(eqn) in feeds.of_equation and not feeds.passes(eqn, operand)
    return eqn.outvars if mixes(eqn, operand) or lost else ()
