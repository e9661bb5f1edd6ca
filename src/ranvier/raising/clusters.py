"""Which arithmetic belongs to one population, and what comes before what within a step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..graph.order import strong_components
from ..program._jax import Equation, Literal, Var, dtype_of, is_floating, size_of, variables_of
from .references import Earlier, OldState, Root, Terms, base, is_whole
from .roles import EquationKind, EquationKinds, crosses

Member = int | OldState
"""The ``id`` of an equation, or a part of a state."""
KEPT = -1
"""Stage of a part of a state that is kept apart from the arithmetic that it would have to wait for."""
ClusterKey = Any
"""What stands for all members of a cluster."""


@dataclass(frozen=True)
class PlannedPopulation:
    """A population to be: some arithmetic of a cluster, or a part of a state that only keeps what it gets.

    Attributes:
        cluster: whose.
        stage: number of the part of the cluster, in the order of the step.
    """

    cluster: ClusterKey
    stage: int = 0


@dataclass(eq=False)
class Clusters:
    """Arithmetic on the same positions, split where a part must wait for what another part gives.

    Attributes:
        roles: of the equations.
        place: of every arithmetic equation, by ``id``, and of every part of a state the population.
        retimed: results that old states alone decide; what they are in the next step can be told at the end of this
            one, so they are an output that is read one step later.
    """

    roles: EquationKinds
    place: dict[Member, PlannedPopulation] = field(default_factory=dict)
    retimed: set[Var] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._leader: dict[Member, Member] = {}
        self._join_all()
        self.retimed = {var for var in self.crossing - self._passed_on if self._is_of_old_states(var)}
        while True:
            self._assign()
            torn = {var for var in self.retimed if not self._is_at_home(var)}
            if not torn:
                return
            self.retimed -= torn

    # Clusters

    def find(self, member: Member) -> ClusterKey:
        """The cluster of an equation or a part of a state."""
        self._leader.setdefault(member, member)
        while self._leader[member] != member:
            self._leader[member] = self._leader[self._leader[member]]
            member = self._leader[member]
        return member

    def _join(self, a: Member, b: Member) -> None:
        self._leader[self.find(a)] = self.find(b)

    @cached_property
    def arithmetic(self) -> list[Equation]:
        return [e for e in self.roles.equations if self.roles.role[id(e)] is EquationKind.ARITHMETIC]

    @cached_property
    def maker(self) -> dict[Root, Equation]:
        """The arithmetic equation of a result."""
        return {out: e for e in self.arithmetic for out in e.outvars}

    def member_of(self, root: Root) -> Member | None:
        """What in a cluster a root is; None for what is in none."""
        if isinstance(root, OldState):
            return root if self._is_real(root) else None
        return id(self.maker[root]) if root in self.maker else None

    def _is_real(self, part: OldState) -> bool:
        return crosses(dtype_of(self.roles.state_vars[part.state][0]))

    def inner(self, eqn: Equation, atom: Any) -> Root | None:
        """The root that an operand is as it stands, where it can be of the equation's own cluster."""
        if isinstance(atom, Literal) or self.roles.levels.is_static(atom):
            return None
        terms = self.roles.of(atom)
        if not is_whole(terms) or self.member_of(terms[0].root) is None:
            return None
        return terms[0].root if self.roles.sizes[terms[0].root] == size_of(eqn.outvars[0]) else None

    def _join_all(self) -> None:
        for eqn in self.arithmetic:
            for atom in eqn.invars:
                root = self.inner(eqn, atom)
                member = None if root is None else self.member_of(root)
                if member is not None:
                    self._join(id(eqn), member)
        for part in self.roles.components:
            home = self.own_result(part)
            if home is not None:
                self._join(part, id(home))

    def own_result(self, part: OldState) -> Equation | None:
        """The arithmetic that makes the new value of a part of a state, where nothing else is done to it."""
        terms = self.roles.new_state(part)
        if not is_whole(terms) or self.roles.sizes[terms[0].root] != self.roles.sizes[part]:
            return None
        return self.maker.get(terms[0].root) if self._is_real(part) else None

    @cached_property
    def memories(self) -> set[OldState]:
        """Parts of states that only keep a result of the step for others to read in the next one.

        They are no states of a population, but a delay on the way to their readers.
        """
        results = [
            self.roles.new_state(p)[0].root if self.own_result(p) is not None else None for p in self.roles.components
        ]
        read_inside = {self.inner(e, a) for e in self.arithmetic for a in variables_of(e.invars)}
        read_outside = {base(t.root) for terms in self._outer_uses() for t in terms}
        for eqn in self.arithmetic:
            for atom in variables_of(eqn.invars):
                if not self.roles.levels.is_static(atom) and self.inner(eqn, atom) is None:
                    read_outside.update(base(t.root) for t in self.roles.of(atom))
        found = set()
        for part, result in zip(self.roles.components, results, strict=True):
            alone = result is not None and results.count(result) == 1 and result not in self.retimed
            if alone and part in read_outside and part not in read_inside:
                found.add(part)
        return found

    # What leaves a cluster

    @cached_property
    def crossing(self) -> set[Var]:
        """Results of arithmetic that are read outside of their cluster, or moved."""
        found: set[Var] = set()
        for eqn in self.arithmetic:
            for atom in variables_of(eqn.invars):
                if not self.roles.levels.is_static(atom) and self.inner(eqn, atom) is None:
                    found.update(self._results(self.roles.of(atom)))
        for terms in self._outer_uses():
            found.update(self._results(terms))
        return found

    def _outer_uses(self) -> Iterable[Terms]:
        """What is read by all that is no arithmetic."""
        roles = self.roles
        for eqn in roles.equations:
            role = roles.role[id(eqn)]
            if role is EquationKind.WHOLE:
                yield from (roles.of(a) for a in variables_of(eqn.invars))
        for operation in roles.maps.values():
            yield from (roles.of(x) for x in operation.xs)
        for atom in variables_of(roles.info.output_outvars):
            yield roles.of(atom)
        for part in roles.components:
            if self.own_result(part) is None:
                yield roles.new_state(part)

    def _results(self, terms: Terms) -> set[Any]:
        return {base(t.root) for t in terms if base(t.root) in self.maker}

    @cached_property
    def _passed_on(self) -> set[Root]:
        """What is read some steps later."""
        return {base(t.root) for terms in self.roles.terms.values() for t in terms if isinstance(t.root, Earlier)}

    def _is_of_old_states(self, var: Var) -> bool:
        """Whether old states and fixed numbers alone decide a result."""
        states = self.old_states(var)
        return bool(states) and is_floating(dtype_of(var))

    def old_states(self, var: Var) -> set[OldState] | None:
        """The old states that decide a result; None where something else does too."""
        return self._deciding[id(self.maker[var])]

    @cached_property
    def _deciding(self) -> dict[int, set[OldState] | None]:
        """Of every arithmetic equation the old states that decide its results."""
        found: dict[int, set[OldState] | None] = {}
        for eqn in self.arithmetic:
            parts = [self._deciding_operand(eqn, atom, found) for atom in variables_of(eqn.invars)]
            found[id(eqn)] = None if any(part is None for part in parts) else set().union(*filter(None, parts))
        return found

    def _deciding_operand(self, eqn: Equation, atom: Var, known: dict[int, Any]) -> set[OldState] | None:
        if self.roles.levels.is_static(atom):
            return None if self.roles.is_learned(atom) else set()
        root = self.inner(eqn, atom)
        if root is None or isinstance(root, OldState):
            return None if root is None else {root}
        return known[id(self.maker[root])]

    def _is_at_home(self, var: Var) -> bool:
        """Whether all states that decide a result have their new values in one population."""
        return len({self.place[part] for part in self.old_states(var) or ()}) == 1

    # Order within a step

    def _assign(self) -> None:
        self.place = {id(eqn): PlannedPopulation(self.find(id(eqn))) for eqn in self.arithmetic}
        cyclic = self._cyclic()
        depth = self._depths()
        for eqn in reversed(self.arithmetic):
            cluster = self.find(id(eqn))
            if cluster in cyclic:
                self.place[id(eqn)] = PlannedPopulation(cluster, self._stage(eqn, depth))
        for part in self.roles.components:
            home = self.own_result(part)
            kept = PlannedPopulation(part, KEPT) if self.find(part) in cyclic else PlannedPopulation(part)
            self.place[part] = kept if home is None else self.place[id(home)]

    def _stage(self, eqn: Equation, depth: dict[Any, int]) -> int:
        """As late as what reads the result allows."""
        earliest = depth[eqn.outvars[0]]
        if any(out in self.crossing and out not in self.retimed for out in eqn.outvars):
            return earliest
        if any(out in self._new_values for out in eqn.outvars):
            return earliest
        stages = [self.place[id(e)].stage for out in eqn.outvars for e in self._readers.get(out, ())]
        return min(stages, default=earliest)

    @cached_property
    def _new_values(self) -> set[Root]:
        return {self.roles.new_state(p)[0].root for p in self.roles.components if self.own_result(p) is not None}

    @cached_property
    def _readers(self) -> dict[Root, list[Equation]]:
        """The equations of its own cluster that read a result."""
        found: dict[Root, list[Equation]] = {}
        for eqn in self.arithmetic:
            for root in {self.inner(eqn, a) for a in variables_of(eqn.invars)}:
                if root is not None:
                    found.setdefault(root, []).append(eqn)
        return found

    def _depths(self) -> dict[Any, int]:
        """Of every root the number of nodes that must come before its own within the step."""
        roles, depth = self.roles, {}

        def of(terms: Terms) -> int:
            return max(
                (depth.get(t.root, 0) + (t.root in depth) for t in terms if t.root not in self.retimed), default=0
            )

        for eqn in roles.equations:
            role = roles.role[id(eqn)]
            if role is EquationKind.MAP:
                (x,) = roles.maps[eqn.outvars[0]].xs
                depth[eqn.outvars[0]] = of(roles.of(x))
            elif role in (EquationKind.ARITHMETIC, EquationKind.WHOLE):
                found = 0
                for atom in variables_of(eqn.invars):
                    if roles.levels.is_static(atom):
                        continue
                    root = self.inner(eqn, atom) if role is EquationKind.ARITHMETIC else None
                    found = max(found, of(roles.of(atom)) if root is None else depth.get(root, 0))
                depth.update(dict.fromkeys(eqn.outvars, found))
        return depth

    def _cyclic(self) -> set[ClusterKey]:
        """Clusters that, as one population, would wait for themselves."""
        edges: list[tuple[Any, Any]] = []

        def owner(root: Root) -> Any:
            return self.find(id(self.maker[root])) if root in self.maker else root

        def read(key: Any, terms: Terms) -> None:
            for term in terms:
                if not isinstance(term.root, (OldState, Earlier)) and term.root not in self.retimed:
                    edges.append((owner(term.root), key))

        roles = self.roles
        for eqn in roles.equations:
            role = roles.role[id(eqn)]
            if role is EquationKind.MAP:
                (x,) = roles.maps[eqn.outvars[0]].xs
                read(eqn.outvars[0], roles.of(x))
            elif role is EquationKind.ARITHMETIC:
                for atom in variables_of(eqn.invars):
                    if not roles.levels.is_static(atom) and self.inner(eqn, atom) is None:
                        read(self.find(id(eqn)), roles.of(atom))
            elif role is EquationKind.WHOLE:
                for out in eqn.outvars:
                    for atom in variables_of(eqn.invars):
                        read(out, roles.of(atom))
        for part in roles.components:
            if self.own_result(part) is None:
                read(self.find(part), roles.new_state(part))
        if not edges:
            return set()
        component = strong_components(dict.fromkeys(end for edge in edges for end in edge), edges)
        looped = {component[a] for a, b in edges if component[a] == component[b]}
        clusters = {self.find(id(e)) for e in self.arithmetic}
        return {key for key, number in component.items() if key in clusters and number in looped}
