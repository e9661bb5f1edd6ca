"""Planned populations and blocks as populations of a graph, with names, parameters and initial states.

In the example of ``step.py`` the one population is called v after its state. Its one port is called in, its one output,
z, is called out and marked as binary. A learned decay in place of 0.9 would be a parameter of it, of shape [2].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..graph.elements import Population
from ..graph.neurons import IN, OUT
from ..graph.traced import Traced
from ..program._jax import Literal, Var, dtype_of, shape_of, size_of
from ..program.analysis.spikes import binary_results
from ..program.interpret import needed_equations, run_equations
from .affine_operation import AffineOperation, Derived
from .dynamics import Key, PositionFunction
from .kinds import EquationKinds
from .naming import LocalNames, free, name_of_module, name_of_parameter, name_of_state, name_of_variable
from .nodes import Demand, MadePopulation, Shape, SourcePort
from .population_plan import PopulationPlan
from .references import MovedSource, OldState, Terms, node_shape
from .state_locations import StateLocation
from .step import StepView
from .whole_array_blocks import Block, packed

Operations = Mapping[Var, AffineOperation]
"""The operations of affine maps, by the results of these."""


def make_populations(
    plan: PopulationPlan,
    dynamics: Iterable[PositionFunction],
    blocks: Iterable[Block],
    operations: Operations,
    taken: Iterable[str],
) -> list[MadePopulation]:
    """The populations of a graph: those that work at positions, then blocks.

    Args:
        plan: where everything at positions is computed.
        dynamics: of the planned populations.
        blocks: equations on whole arrays.
        operations: of affine maps, after which ports are named.
        taken: names of inputs, which populations avoid.
    """
    kinds = plan.arithmetic.kinds
    names = set(taken)
    populations = []
    for function in dynamics:
        name = free(names, _name(kinds.step, function))
        names.add(name)
        populations.append(_of_dynamics(name, plan, function, operations))
    for block in blocks:
        is_noise = any(out in kinds.noise for out in block.outputs)
        name = free(names, "noise" if is_noise else block.equations[-1].primitive.name.strip("_"))
        names.add(name)
        populations.append(_of_block(name, kinds, block))
    return populations


# Dynamics at positions


@dataclass(frozen=True, eq=False)
class _Labels:
    """Names within a population of what its dynamics read and give.

    Attributes:
        states, outputs, ports, parameters: of each the name; outputs that are another result or a new state have none.
        memories: states that only wait for the next step, with the output or state that they are read at.
        binary: outputs that are spikes.
        alias: for outputs without a name, what they are the same as.
    """

    states: Mapping[OldState, str]
    outputs: Mapping[Var, str]
    ports: Mapping[Key, str]
    parameters: Mapping[Var, str]
    memories: Mapping[OldState, str]
    binary: frozenset[str]
    alias: Mapping[Var, Key]

    def of(self, result: Var) -> str:
        """The output or state at which a result is read."""
        key = self.alias.get(result, result)
        return self.states[key] if isinstance(key, OldState) else self.outputs[key]


def _of_dynamics(name: str, plan: PopulationPlan, function: PositionFunction, operations: Operations) -> MadePopulation:
    kinds = plan.arithmetic.kinds
    step, parts = kinds.step, kinds.step.parts
    shape = _shape(step, function)
    labels = _label(plan, function, operations)
    learned = {var: label for var, label in labels.parameters.items() if step.is_learned(var)}
    neuron = Traced(
        function=function.function,
        values={label: _at_positions(step.static[var], shape) for var, label in labels.parameters.items()},
        inputs=tuple(labels.ports.values()),
        outputs=tuple(labels.outputs.values()),
        states=tuple(labels.states.values()),
        trained=frozenset(learned.values()),
        binary=labels.binary,
    )
    initial = {
        **_initial_values(step, labels.states, shape),
        **_initial_outputs(plan, function, labels.outputs, shape),
        **_initial_values(step, labels.memories, shape),
    }
    states = [(part.state, StateLocation(name, label, parts[part])) for part, label in labels.states.items()]
    memories = [(part.state, StateLocation(name, label, parts[part], 1)) for part, label in labels.memories.items()]
    return MadePopulation(
        Population(name, shape, neuron, initial),
        _sources(name, plan, function, labels),
        tuple(demand for key, port in labels.ports.items() for demand in _demands(kinds, key, (name, port), shape)),
        {(name, label): _reshaped(var, shape if size_of(var) > 1 else ()) for var, label in learned.items()},
        (*states, *memories),
    )


def _label(plan: PopulationPlan, function: PositionFunction, operations: Operations) -> _Labels:
    kinds, contents = plan.arithmetic.kinds, function.contents
    step = kinds.step
    outputs = [var for var in contents.outputs if var not in function.same]
    is_binary = binary_results(function.function.jaxpr)[len(contents.states) :]
    binary = [var for var, flag in zip(outputs, is_binary, strict=True) if flag]
    # The one output, or the first that is spikes, is what readers of a graph take for the output of the neurons.
    main = outputs if len(outputs) == 1 else binary[:1]
    names = LocalNames()
    labels = _Labels(
        names.of((part, name_of_state(step, part)) for part in contents.states),
        names.of((var, OUT if var in main else name_of_variable(step, var)) for var in outputs),
        names.of((key, _port_name(kinds, function, key, operations)) for key in function.ports),
        names.of((var, name_of_parameter(step, var)) for var in function.parameters),
        {},
        frozenset(),
        function.same,
    )
    here = [part for part in plan.memories if plan.population[part] == contents.population]
    memories = {
        part: labels.of(plan.arithmetic.new_value(part))
        for part in sorted(here, key=lambda part: (part.state, part.component))
    }
    return replace(labels, memories=memories, binary=frozenset(labels.outputs[var] for var in binary))


def _name(step: StepView, function: PositionFunction) -> str:
    """That of the module, or of the first state; a letter where there is none."""
    contents = function.contents
    if not contents.states:
        return name_of_variable(step, contents.outputs[0])
    return name_of_module(step, contents.states[0])


def _port_name(kinds: EquationKinds, function: PositionFunction, key: Key, operations: Operations) -> str:
    """Of several ports that of the state behind it, of the affine map that leads here, or of the variable."""
    if len(function.ports) == 1:
        return IN
    if isinstance(key, tuple):
        return name_of_state(kinds.step, key[0])
    if isinstance(key, OldState):
        return name_of_state(kinds.step, key)
    names = [operations[term.root].name for term in kinds.terms_of(key) if term.root in operations]
    return names[0] if names else name_of_variable(kinds.step, key)


def _shape(step: StepView, function: PositionFunction) -> Shape:
    """Of the first state that is whole, else of the first result."""
    contents = function.contents
    for part in contents.states:
        if step.parts[part] is None:
            return node_shape(shape_of(step.states[part.state][0]))
    if contents.states:
        return (step.size(contents.states[0]),)
    return node_shape(shape_of(contents.equations[0].outvars[0]))


def _at_positions(value: Any, shape: Shape) -> np.ndarray:
    """A parameter of dynamics: one number for every neuron, or one for all."""
    array = np.asarray(value)
    return array.reshape(shape if array.size > 1 else ())


def _initial_values(step: StepView, names: Mapping[OldState, str], shape: Shape) -> dict[str, np.ndarray]:
    """What parts of states are before the first step, where that is not zero."""
    values = {name: step.initial_part(part).astype(np.float64).reshape(shape) for part, name in names.items()}
    return {name: value for name, value in values.items() if np.any(value)}


def _initial_outputs(
    plan: PopulationPlan, function: PositionFunction, outputs: Mapping[Var, str], shape: Shape
) -> dict[str, np.ndarray]:
    """What retimed outputs are before the first step: the same function of the initial states."""
    retimed = {var: label for var, label in outputs.items() if var in plan.retimed}
    if not retimed:
        return {}
    step = plan.arithmetic.kinds.step
    own = {part.state for part in function.contents.states}
    known = dict(step.static)
    for number in own:
        old, _ = step.states[number]
        known[old] = jnp.asarray(step.initial_state(number), dtype_of(old))
    # Readers see these outputs one step later, so in the first step they see what was computed before it.
    run_equations(needed_equations([e for e in step.equations if not e.effects], list(retimed)), known)
    values = {label: np.asarray(known[var], np.float64).reshape(shape) for var, label in retimed.items()}
    return {label: value for label, value in values.items() if np.any(value)}


def _sources(name: str, plan: PopulationPlan, function: PositionFunction, labels: _Labels) -> dict[Any, SourcePort]:
    """Where states and results are read; results that are a new state are read as the state."""
    old = {**labels.states, **labels.memories}
    results = {var: SourcePort(name, labels.of(var), int(var in plan.retimed)) for var in function.contents.outputs}
    return {**{part: SourcePort(name, label, 1) for part, label in old.items()}, **results}


def _demands(kinds: EquationKinds, key: Key, port: tuple[str, str], shape: Shape) -> Sequence[Demand]:
    """What a port gets: nothing where a state becomes zero."""
    new = kinds.step.states[key[0].state][1] if isinstance(key, tuple) else None
    if isinstance(new, Literal):
        return [Demand(port, shape, constant=np.full(shape, float(new.val)))] if np.any(new.val) else []
    return [Demand(port, shape, _terms_of(kinds, key, shape))]


def _terms_of(kinds: EquationKinds, key: Key, shape: Shape) -> Terms:
    if isinstance(key, tuple):
        return kinds.new_terms(key[0])
    if isinstance(key, OldState):
        return (MovedSource(key),)
    terms = kinds.terms_of(key)
    if size_of(key) == 1 and prod(shape) > 1:
        # One number for all neurons is brought to each of them.
        first = np.zeros(prod(shape), np.int64)
        return tuple(MovedSource(t.root, first if t.index is None else t.index[first]) for t in terms)
    return terms


# Blocks


def _of_block(name: str, kinds: EquationKinds, block: Block) -> MadePopulation:
    step = kinds.step
    names = LocalNames()
    ports = names.of((var, name_of_variable(step, var)) for var in block.ports)
    states = names.of((part, name_of_state(step, part)) for part in block.states)
    parameters = names.of((var, name_of_parameter(step, var)) for var in block.parameters)
    single = len(block.outputs) == 1
    outputs = names.of((var, OUT if single else name_of_variable(step, var)) for var in block.outputs)
    labels = [*ports.values(), *states.values(), *parameters.values(), *outputs.values()]
    shapes = dict(zip(labels, block.shapes, strict=True))
    neuron = Traced(
        function=block.function,
        values={label: np.asarray(step.static[var]).reshape(shapes[label]) for var, label in parameters.items()},
        inputs=tuple(ports.values()),
        outputs=tuple(outputs.values()),
        states=tuple(states.values()),
        trained=frozenset(parameters.values()),
        shapes=shapes,
    )
    initial = {label: packed(step.initial_state(part.state)).astype(np.float64) for part, label in states.items()}
    shape = next((shapes[label] for label in outputs.values()), (1,))
    return MadePopulation(
        Population(name, shape, neuron, initial),
        {var: SourcePort(name, label) for var, label in outputs.items()},
        tuple(Demand((name, port), shapes[port], kinds.terms_of(var)) for var, port in ports.items()),
        {(name, label): _reshaped(var, shapes[label]) for var, label in parameters.items()},
        tuple((part.state, StateLocation(name, label, None)) for part, label in states.items()),
    )


def _reshaped(var: Var, shape: Shape) -> Derived:
    return lambda static: jnp.asarray(static[var]).reshape(shape)
