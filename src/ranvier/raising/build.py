"""Putting a graph together from the parts of a program."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..errors import ModelError
from ..graph.arrays import constant
from ..graph.elements import Input, Output, Population, Projection
from ..graph.names import free_name
from ..graph.neurons import IN, OUT, Relay
from ..graph.operations import Constant, Flatten, Identity, Operation, Select
from ..graph.order import Port
from ..graph.snn_graph import SNNGraph
from ..graph.traced import Traced
from ..program._jax import Literal, Var, dtype_of, is_complex, shape_of, size_of, variables_of
from ..program.analysis.spikes import binary_results
from ..program.interpret import needed_equations, run_equations
from ..program.paths import path_text
from ..program.program import ModuleInfo
from .affine import AffineOperation, Derived, form_of
from .blocks import Block, blocks_of, packed
from .clusters import Clusters, PlannedPopulation
from .dynamics import Key, PositionFunction
from .references import Earlier, MovedSource, OldState, Root, Terms, base, node_shape
from .registers import pass_by_registers
from .roles import EquationKinds
from .sharing import Sharing

Shape = tuple[int, ...]


@dataclass(frozen=True)
class StateLocation:
    """Where a part of a state is in the graph.

    Attributes:
        population, state: names; empty where nothing reads it.
        elements: which elements of the program's state it is, in order; None for all.
        past: how many steps ago it was an output; 0 for a state.
        taken: which elements of that it is; None for all.
    """

    population: str
    state: str
    elements: np.ndarray | None
    past: int = 0
    taken: np.ndarray | None = None


@dataclass(eq=False)
class Build:
    """A graph in the making.

    Attributes:
        info: the program.
        dt: of the graph.
        derived: by element and name how trained arrays of the graph are made of what does not change.
        held: by number of the program's state the places of its parts.
        reserved: names of projections, and of populations that have parameters.
        leaves: by parameter of the graph, which of the leaves of the program's parameters it is.
    """

    info: ModuleInfo
    dt: float
    derived: dict[tuple[str, str], Derived] = field(default_factory=dict)
    held: dict[int, list[StateLocation]] = field(default_factory=dict)
    reserved: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.leaves: dict[str, int] = {}
        _check_real(self.info)
        self.roles = EquationKinds(self.info)
        pass_by_registers(self.roles)
        self.clusters = Clusters(self.roles)
        self.graph = SNNGraph(name=self.info.name, dt=self.dt)
        self.where: dict[Root, tuple[str, str, int]] = {}
        self.demands: list[tuple[Terms, Port, Shape]] = []
        self.forms = {y: form_of(self.roles, operation) for y, operation in self.roles.maps.items()}
        self._inputs()
        self.places = self._places()
        for place, found in self.places.items():
            self._population(place, found)
        for block in blocks_of(self.roles):
            self._block(block)
        self._outputs()
        self._connect()
        self._hold_registers()
        self._share()

    def _share(self) -> None:
        """Makes the arrays that one parameter is used in, or a function of it, of that parameter."""
        sharing = Sharing(self.roles, self.derived)
        names = [name for slot in self.info.parameters for name in slot.leaf_names]
        leaves = [leaf for slot in self.info.parameters for leaf in slot.initial]
        for name in {names[leaf] for leaf in sharing.leaves} & self.graph.populations.keys():
            if isinstance(self.graph.populations[name].neuron, Relay):
                self._rename(name, free({*self.graph.nodes, *names}, f"{name}.sum"))
        taken = {*self.graph.nodes, *(element for element, _ in sharing.own)}
        given: dict[int, str] = {}
        for leaf in sharing.leaves:
            given[leaf] = free({*taken, *given.values()}, names[leaf])
            self.graph.parameters[given[leaf]] = constant(leaves[leaf])
        self.graph.bindings = {array: use(given) for array, use in sharing.uses.items()}
        self.leaves = {name: leaf for leaf, name in given.items()}
        self.derived, self.index = sharing.own, sharing.index

    def _rename(self, relay: str, name: str) -> None:
        """Gives a relay, which nothing but projections refers to, another name."""
        graph = self.graph
        graph.populations[name] = graph.populations.pop(relay).replace(name=name)
        for key, projection in graph.projections.items():
            source, target = (name if end == relay else end for end in (projection.source, projection.target))
            graph.projections[key] = projection.replace(source=source, target=target)

    # Nodes

    def _inputs(self) -> None:
        count = len(self.info.input_invars)
        for k, var in enumerate(self.info.input_invars):
            name = "input" if count == 1 else f"input.{k}"
            self.graph.inputs[name] = Input(name, node_shape(shape_of(var)))
            self.where[var] = name, OUT, 0

    def _outputs(self) -> None:
        count = len(self.info.output_outvars)
        for k, atom in enumerate(self.info.output_outvars):
            name = "output" if count == 1 else f"output.{k}"
            name = free(self.graph.nodes, name)
            shape = node_shape(shape_of(atom))
            self.graph.outputs[name] = Output(name, shape)
            if isinstance(atom, Literal):
                self._constant(np.full(shape, float(atom.val)), (name, IN), trained=False)
            else:
                self.demands.append((self.roles.of(atom), (name, IN), shape))

    def _places(self) -> dict[PlannedPopulation, PositionFunction]:
        """What is computed where, leaving out what nobody reads."""
        roles, clusters = self.roles, self.clusters
        states: dict[PlannedPopulation, list[OldState]] = {}
        for part in roles.components:
            if clusters.member_of(part) is not None and part not in clusters.memories:
                states.setdefault(clusters.place[part], []).append(part)
        arithmetic: dict[PlannedPopulation, list[Any]] = {}
        for eqn in clusters.arithmetic:
            arithmetic.setdefault(clusters.place[id(eqn)], []).append(eqn)
        read = self._read_from_elsewhere()
        found = {}
        for place in dict.fromkeys([*states, *arithmetic]):
            outs = [v for e in arithmetic.get(place, []) for v in e.outvars if v in read and v not in clusters.retimed]
            outs += [v for v in sorted(clusters.retimed & read, key=self._number) if self._home(v) == place]
            mine = states.get(place, [])
            equations = self._live(arithmetic.get(place, []), outs, [roles.new_state(p) for p in mine])
            if mine or outs:
                found[place] = PositionFunction(clusters, place, equations, mine, outs)
        return found

    def _live(self, equations: list[Any], outputs: list[Var], new: list[Terms]) -> list[Any]:
        """The equations of a place that results and new states need, in order."""
        needed: set[Any] = {*outputs, *(term.root for terms in new for term in terms)}
        kept = []
        for eqn in reversed(equations):
            if any(out in needed for out in eqn.outvars):
                kept.append(eqn)
                for atom in variables_of(eqn.invars):
                    needed.update((atom, self.clusters.inner(eqn, atom)))
        return kept[::-1]

    def _number(self, var: Var) -> int:
        return self._numbers[id(self.clusters.maker[var])]

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {id(e): k for k, e in enumerate(self.clusters.arithmetic)}

    def _home(self, var: Var) -> PlannedPopulation:
        return next(self.clusters.place[part] for part in self.clusters.old_states(var) or ())

    def _read_from_elsewhere(self) -> set[Var]:
        """Results that are read outside of their place."""
        clusters = self.clusters
        found = set(clusters.crossing) | {self.roles.new_state(part)[0].root for part in clusters.memories}
        for eqn in clusters.arithmetic:
            for atom in eqn.invars:
                root = clusters.inner(eqn, atom)
                if root is None or isinstance(root, OldState):
                    continue
                if clusters.place[id(clusters.maker[root])] != clusters.place[id(eqn)]:
                    found.add(root)
        return found

    def _population(self, place: PlannedPopulation, dynamics: PositionFunction) -> None:
        roles = self.roles
        shape = self._shape(place, dynamics)
        name = free({*self.graph.nodes, *self.graph.projections}, self._name(place, dynamics))
        names = _Names()
        states = {part: names.new(self._state_name(part)) for part in dynamics.states}
        distinct = [v for v in dynamics.outputs if v not in dynamics.same]
        results = binary_results(dynamics.function.jaxpr)[len(dynamics.states) :]
        binary = [v for v, found in zip(distinct, results, strict=True) if found]
        main = distinct if len(distinct) == 1 else binary[:1]
        outputs = {v: names.new(OUT if v in main else self._letter(v)) for v in distinct}
        single = len(dynamics.ports) == 1
        ports = {key: names.new(IN if single else self._port_name(key)) for key in dynamics.ports}
        parameters = {v: names.new(self._parameter_name(v)) for v in dynamics.parameters}
        neuron = Traced(
            function=dynamics.function,
            values={n: self._value(v, shape) for v, n in parameters.items()},
            inputs=tuple(ports.values()),
            outputs=tuple(outputs.values()),
            states=tuple(states.values()),
            trained=frozenset(n for v, n in parameters.items() if roles.is_learned(v)),
            binary=frozenset(outputs[v] for v in binary),
        )
        for var, label in parameters.items():
            if roles.is_learned(var):
                self.derived[name, label] = _reshaped(var, shape if size_of(var) > 1 else ())
        self.graph.populations[name] = Population(name, shape, neuron, self._initial(states, shape))
        if neuron.parameters:
            self.reserved.add(name)
        for part, state in states.items():
            self.where[part] = name, state, 1
            elements = roles.components[part]
            self.held.setdefault(part.state, []).append(StateLocation(name, state, elements))
        self._locate_results(name, dynamics, states, outputs)
        self._initial_outputs(name, dynamics, outputs)
        self._memories(name, place, outputs)
        for key, port in ports.items():
            self._demand(key, (name, port), shape)

    def _value(self, var: Var, shape: Shape) -> np.ndarray:
        """A parameter of dynamics: one for every neuron, or one for all."""
        return np.asarray(self.roles.static[var]).reshape(shape if size_of(var) > 1 else ())

    def _locate_results(
        self, name: str, dynamics: PositionFunction, states: Mapping[OldState, str], outputs: Mapping[Var, str]
    ) -> None:
        """Where results are read: results that are a new state are read as the state."""
        for var in dynamics.outputs:
            delay = int(var in self.clusters.retimed)
            key: Key = dynamics.same.get(var, var)
            label = states[key] if isinstance(key, OldState) else outputs[key]
            self.where[var] = name, label, delay

    def _initial(self, states: Mapping[OldState, str], shape: Shape) -> dict[str, np.ndarray]:
        found = {}
        for part, name in states.items():
            value = np.asarray(self._initial_value(part.state), np.float64).reshape(-1)
            elements = self.roles.components[part]
            value = (value if elements is None else value[elements]).reshape(shape)
            if np.any(value):
                found[name] = value
        return found

    def _initial_value(self, state: int) -> Any:
        leaves = [leaf for slot in (*self.info.hidden, *self.info.other) for leaf in slot.initial]
        return leaves[state]

    def _initial_outputs(self, name: str, dynamics: PositionFunction, outputs: Mapping[Var, str]) -> None:
        """What delayed outputs are before the first step: the same function of the initial states."""
        retimed = {v: label for v, label in outputs.items() if v in self.clusters.retimed}
        if not retimed:
            return
        old = {self.roles.state_vars[p.state][0] for p in dynamics.states}
        known = dict(self.roles.static)
        for k, (var, _) in enumerate(self.roles.state_vars):
            if var in old:
                known[var] = jnp.asarray(self._initial_value(k), dtype_of(var))
        needed = needed_equations([e for e in self.roles.equations if not e.effects], list(retimed))
        run_equations(needed, known)
        population = self.graph.populations[name]
        found = {label: np.asarray(known[v], np.float64).reshape(population.shape) for v, label in retimed.items()}
        initial = {**population.initial, **{k: v for k, v in found.items() if np.any(v)}}
        self.graph.populations[name] = population.replace(initial=initial)

    def _memories(self, name: str, place: PlannedPopulation, outputs: Mapping[Var, str]) -> None:
        """Results that are kept for the next step are read a step later."""
        population = self.graph.populations[name]
        for part in sorted(self.clusters.memories, key=lambda part: (part.state, part.component)):
            if self.clusters.place[part] != place:
                continue
            _, label, _ = self.where[self.roles.new_state(part)[0].root]
            self.where[part] = name, label, 1
            elements = self.roles.components[part]
            self.held.setdefault(part.state, []).append(StateLocation(name, label, elements, past=1))
            initial = {**population.initial, **self._initial({part: label}, population.shape)}
            population = population.replace(initial=initial)
        self.graph.populations[name] = population

    def _demand(self, key: Key, port: Port, shape: Shape) -> None:
        """Writes down what a port gets; a number is brought at once."""
        new = self.roles.state_vars[key[0].state][1] if isinstance(key, tuple) else None
        if isinstance(new, Literal):
            if np.any(new.val):
                self._constant(np.full(shape, float(new.val)), port, trained=False)
            return
        self.demands.append((self._terms_of(key, shape), port, shape))

    def _terms_of(self, key: Key, shape: Shape) -> Terms:
        """What a port gets."""
        if isinstance(key, tuple):
            return self.roles.new_state(key[0])
        terms = (MovedSource(key),) if isinstance(key, OldState) else self.roles.of(key)
        if not isinstance(key, OldState) and size_of(key) == 1 and prod(shape) > 1:
            at = np.zeros(prod(shape), np.int64)
            return tuple(MovedSource(t.root, at if t.index is None else t.index[at]) for t in terms)
        return terms

    def _block(self, block: Block) -> None:
        names = _Names()
        is_noise = any(out in self.roles.noise for out in block.outputs)
        name = free(
            {*self.graph.nodes, *self.graph.projections},
            "noise" if is_noise else block.equations[-1].primitive.name.strip("_"),
        )
        ports = {v: names.new(self._letter(v)) for v in block.ports}
        states = {p: names.new(self._state_name(p)) for p in block.states}
        parameters = {v: names.new(self._parameter_name(v)) for v in block.parameters}
        outputs = {v: names.new(OUT if len(block.outputs) == 1 else self._letter(v)) for v in block.outputs}
        labels = [*ports.values(), *states.values(), *parameters.values(), *outputs.values()]
        shapes = dict(zip(labels, block.shapes, strict=True))
        neuron = Traced(
            function=block.function,
            values={n: np.asarray(self.roles.static[v]).reshape(shapes[n]) for v, n in parameters.items()},
            inputs=tuple(ports.values()),
            outputs=tuple(outputs.values()),
            states=tuple(states.values()),
            trained=frozenset(parameters.values()),
            shapes=shapes,
        )
        self.derived.update({(name, label): _reshaped(v, shapes[label]) for v, label in parameters.items()})
        initial = {label: packed(self._initial_value(p.state)).astype(np.float64) for p, label in states.items()}
        first = next((shapes[label] for label in outputs.values()), (1,))
        self.graph.populations[name] = Population(name, first, neuron, initial)
        if neuron.parameters:
            self.reserved.add(name)
        for part, label in states.items():
            self.held.setdefault(part.state, []).append(StateLocation(name, label, None))
        self.where.update({v: (name, label, 0) for v, label in outputs.items()})
        for var, port in ports.items():
            self.demands.append((self.roles.of(var), (name, port), shapes[port]))

    # Projections

    def _connect(self) -> None:
        waiting = list(self.demands)
        self._uses = self._counted()
        for terms, port, shape in waiting:
            self._bring(terms, port, shape)

    def _counted(self) -> dict[Root, list[MovedSource]]:
        """Of every affine map what is read of it."""
        found: dict[Root, list[MovedSource]] = {}
        read = [terms for terms, _, _ in self.demands]
        read += [self.roles.of(operation.xs[0]) for operation in self.roles.maps.values()]
        for terms in read:
            for term in terms:
                found.setdefault(base(term.root), []).append(term)
        return found

    def _bring(self, terms: Terms, port: Port, shape: Shape) -> None:
        """Projections that bring a sum to a port."""
        fixed = [t for t in terms if self.roles.is_static(t.root)]
        for term in terms:
            if self.roles.is_static(term.root):
                continue
            if term.root in self.forms and self._goes_straight(term, shape):
                form = self._rows(term)
                if fixed and form.is_dense and "bias" not in form.arrays and self._is_like(form, fixed[0]):
                    form = form.with_bias(_selected(fixed.pop(0), shape))
                self._map(term.root, form, port)
                continue
            self._materialise(term.root)
            self._move(term, port, shape)
        for term in fixed:
            self._constant_of(term, port, shape)

    def _is_like(self, form: AffineOperation, fixed: MovedSource) -> bool:
        return isinstance(fixed.root, Var) and self.roles.is_learned(fixed.root) == form.learned

    def _goes_straight(self, term: MovedSource, shape: Shape) -> bool:
        """Whether an affine map can lead to a port itself, not by way of a relay."""
        form, uses = self.forms[term.root], self._uses[term.root]
        target = form.target if term.index is None else (term.index.size,)
        if target != shape or term.root in self.where:
            return False
        if len(uses) == 1 and term.index is None:
            return True
        parts = [t.index for t in uses]
        if not form.is_dense or any(p is None or np.any(p < 0) for p in parts):
            return False
        taken = np.concatenate([p for p in parts if p is not None])
        return np.unique(taken).size == taken.size

    def _rows(self, term: MovedSource) -> AffineOperation:
        form = self.forms[term.root]
        return form if term.index is None else form.part(rows=term.index)

    def _materialise(self, root: Root) -> None:
        """A relay with the result of an affine map, where a root is one, or was one some steps ago."""
        root = base(root)
        if root in self.where or root not in self.forms:
            return
        form = self.forms[root]
        name = free(self.graph.nodes, form.name)
        self.graph.populations[name] = Population(name, form.target, Relay())
        self.where[root] = name, OUT, 0
        self._map(root, form, (name, IN))

    def _map(self, root: Root, form: AffineOperation, port: Port) -> None:
        """An affine map into a port."""
        (x,) = self.roles.maps[root].xs
        terms = self.roles.of(x)
        if (taken := self._taking(terms, form)) is not None:
            self._projection(*taken, port)
            return
        found = [self._source(t, form) for t in terms] if self._is_split(terms, form) else []
        sources = [source for source in found if source is not None]
        if not sources or len(sources) < len(terms):
            self._projection(form, self._gathered(root, terms, form), port)
            return
        for k, (term, source) in enumerate(zip(terms, sources, strict=True)):
            part = form if term.index is None else form.part(columns=_places_of(term, self.roles.sizes[term.root]))
            self._projection(part if k == 0 else part.without_bias(), source, port)

    def _taking(self, terms: Terms, form: AffineOperation) -> tuple[AffineOperation, tuple[str, str, int]] | None:
        """A sparse matrix that reads the source of gathered elements itself, and that source."""
        if form.taking is None or len(terms) != 1 or terms[0].index is None:
            return None
        found = form.taking(terms[0].index, self.roles.sizes[terms[0].root])
        source = None if found is None else self._source(terms[0], found)
        return None if found is None or source is None else (replace(found, name=form.name), source)

    def _is_split(self, terms: Terms, form: AffineOperation) -> bool:
        """Whether a matrix can be split into one for every source."""
        if len(terms) == 1 and terms[0].index is None:
            return True
        return form.is_dense and all(
            t.index is not None and np.array_equal(np.sort(t.index[t.index >= 0]), np.arange(self.roles.sizes[t.root]))
            for t in terms
        )

    def _source(self, term: MovedSource, form: AffineOperation) -> tuple[str, str, int] | None:
        """A node whose value a map can read as it is."""
        if self.roles.is_static(term.root):
            return None
        self._materialise(term.root)
        name, port, _ = found = self._place_of(term.root)
        wanted = form.source if term.index is None else (self.roles.sizes[term.root],)
        return found if self.graph.port_shape(name, port) == wanted else None

    def _gathered(self, root: Root, terms: Terms, form: AffineOperation) -> tuple[str, str, int]:
        """A relay with what a map reads."""
        name = free(self.graph.nodes, f"{form.name}.x")
        self.graph.populations[name] = Population(name, form.source, Relay())
        self._bring_moved(terms, (name, IN), form.source)
        return name, OUT, 0

    def _bring_moved(self, terms: Terms, port: Port, shape: Shape) -> None:
        for term in terms:
            if self.roles.is_static(term.root):
                self._constant_of(term, port, shape)
                continue
            self._materialise(term.root)
            self._move(term, port, shape)

    def _place_of(self, root: Root) -> tuple[str, str, int]:
        """Name and port at which a root is read, and how many steps later."""
        name, port, delay = self.where[base(root)]
        return name, port, delay + (root.steps if isinstance(root, Earlier) else 0)

    def _projection(self, form: AffineOperation, source: tuple[str, str, int], port: Port) -> None:
        arrays = {name: np.asarray(derived(self.roles.static)) for name, derived in form.arrays.items()}
        name = self._add(form.name, source, form.make(arrays), port, form.learned)
        if form.learned:
            self.derived.update({(name, label): derived for label, derived in form.arrays.items()})

    def _move(self, term: MovedSource, port: Port, shape: Shape) -> None:
        name, of, _ = source = self._place_of(term.root)
        operation = _moving(term.index, self.graph.port_shape(name, of), shape)
        self._add(f"{name}->{port[0]}", source, operation, port, trained=False)

    def _constant_of(self, term: MovedSource, port: Port, shape: Shape) -> None:
        derived = _selected(term, shape)
        learned = isinstance(term.root, Var) and self.roles.is_learned(term.root)
        name = self._constant(np.asarray(derived(self.roles.static)), port, learned)
        if learned:
            self.derived[name, "bias"] = derived

    def _constant(self, value: np.ndarray, port: Port, trained: bool) -> str:
        source = next(iter(self.graph.inputs), None)
        if source is None:
            raise ModelError(f"{self.info.name} takes no input; give it one, so that a graph knows how long to run.")
        return self._add(f"{port[0]}.{port[1]}.bias", (source, OUT, 0), Constant(value), port, trained)

    def _add(self, name: str, source: tuple[str, str, int], operation: Operation, port: Port, trained: bool) -> str:
        name = free(self.reserved, name)
        self.reserved.add(name)
        node, of, delay = source
        self.graph.projections[name] = Projection(
            name, node, port[0], operation, delay, source_port=of, target_port=port[1], trained=trained
        )
        return name

    def _hold_registers(self) -> None:
        """Where what states only passed on is: in what delayed projections have still to bring."""
        for part, register in self.roles.registers.items():
            elements = self.roles.register_elements[part]
            for term in register.terms(None):
                filled = np.flatnonzero(term.index >= 0) if term.index is not None else np.arange(register.steps.size)
                taken = filled if term.index is None else term.index[filled]
                is_read = base(term.root) in self.where
                name, port, delay = self._place_of(term.root) if is_read else ("", "", 1)
                own = filled if elements is None else elements[filled]
                self.held.setdefault(part.state, []).append(StateLocation(name, port, own, delay, taken))

    # Names

    def _name(self, place: PlannedPopulation, dynamics: PositionFunction) -> str:
        """That of the module, or of the first state; a letter where there is none."""
        if not dynamics.states:
            return self._letter(dynamics.outputs[0])
        path = self._path(dynamics.states[0])
        return path_text(path[:-1]) if len(path) > 1 else path_text(path)

    def _path(self, part: OldState) -> Any:
        return self.info.state_slots[part.state].path

    def _state_name(self, part: OldState) -> str:
        suffix = f".{part.component}" if self.roles.components[part] is not None else ""
        return f"{self._path(part)[-1]}{suffix}"

    def _port_name(self, key: Key) -> str:
        if isinstance(key, tuple):
            return self._state_name(key[0])
        if isinstance(key, OldState):
            return self._state_name(key)
        names = [self.forms[t.root].name for t in self.roles.of(key) if t.root in self.forms]
        return names[0] if names else self._letter(key)

    def _letter(self, var: Var) -> str:
        return self.info.variable_names.get(var, "value").strip("'")

    def _parameter_name(self, var: Var) -> str:
        path = self.info.invar_to_weight_path.get(var)
        return path_text(path) if path is not None else self._letter(var)

    def _shape(self, place: PlannedPopulation, dynamics: PositionFunction) -> Shape:
        """Of the first state that is whole, else of the first result."""
        for part in dynamics.states:
            if self.roles.components[part] is None:
                return node_shape(shape_of(self.roles.state_vars[part.state][0]))
        if dynamics.states:
            return (dynamics.size,)
        return node_shape(shape_of(dynamics.equations[0].outvars[0]))


def _moving(index: np.ndarray | None, source: Shape, target: Shape) -> Operation:
    if index is None:
        if source == target:
            return Identity()
        if target == (prod(source),):
            return Flatten()
        index = np.arange(prod(source))
    return Select(index.reshape(target))


def _selected(term: MovedSource, shape: Shape) -> Derived:
    """What a static term brings."""

    def derived(static: Mapping[Var, Any]) -> Any:
        value = jnp.asarray(static[term.root]).reshape(-1)
        if term.index is not None:
            value = jnp.where(term.index >= 0, value[np.maximum(term.index, 0)], 0)
        return value.reshape(shape)

    return derived


def _places_of(term: MovedSource, size: int) -> np.ndarray:
    """Of every element of a root its place in what it is moved to."""
    found = np.empty(size, np.int64)
    used = np.flatnonzero(term.index >= 0) if term.index is not None else np.arange(size)
    found[term.index[used] if term.index is not None else used] = used
    return found


def _reshaped(var: Var, shape: Shape) -> Derived:
    return lambda static: jnp.asarray(static[var]).reshape(shape)


def _check_real(info: ModuleInfo) -> None:
    for slot in (*info.hidden, *info.other, *info.parameters):
        if any(is_complex(leaf.dtype) for leaf in slot.leaves):
            raise ModelError(
                f"{info.name}: {path_text(slot.path)} is complex; graphs hold real numbers. Keep real and imaginary "
                "parts as two states."
            )


def free(taken: Container[str], wanted: str) -> str:
    """A name without blanks that is not taken."""
    return free_name(taken, re.sub(r"\s+", "_", wanted) or "value")


class _Names:
    """Names within a population."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def new(self, wanted: str) -> str:
        name = free(self.taken, wanted)
        self.taken.add(name)
        return name
