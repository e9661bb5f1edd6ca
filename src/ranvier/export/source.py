"""One time step of a graph as Python source that needs JAX alone, to be read and to be run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportError, reason_text
from ..graph.analysis.blame import whole_array_equation
from ..graph.elements import Population, Projection
from ..graph.footprint import check_carried
from ..graph.names import free_name
from ..graph.neurons import IN, OUT
from ..graph.order import Port, delayed_ports, input_ports, update_order
from ..graph.shared import ArrayName, ParameterBinding, numbers_of
from ..graph.snn_graph import SNNGraph
from ..graph.traced import Traced
from ..graph.verifier import check
from ..util.files import npz_bytes, replacing
from .derived_arrays import statements_of
from .expressions import Expression, Statements, leaf
from .source_names import OWN, Names, check_program
from .source_ops import SPIKES, SourceOps
from .traced_equations import TracedEquations

ENDING = ".py"
MOST_IN_A_SUM = 20
"""Terms that are written with ``+``; Python's compiler takes no expression that is nested too deeply."""
HEAD = '''"""One time step of a network, in JAX.

    arrays = load()
    state = initial_state(arrays)
    state, output = step(arrays, state, x)

Values are of one sample; jax.vmap(step, in_axes=(None, 0, 0)) runs a batch. Every floating-point
array can be trained.
"""

import hashlib
import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

NAME = {name!a}
DT = {dt!r}  # seconds
FILE = Path(__file__).with_suffix(".npz")
SHA256 = {digest!r}
NAMES = {names}
"""Element and name of every array in the file, in order."""


def content():
    """The file of arrays that was written with this program."""
    read = FILE.read_bytes()
    if hashlib.sha256(read).hexdigest() != SHA256:
        raise ImportError(f"{{FILE}} does not hold the arrays that {{__file__}} was written with; export again")
    return read


def load(path=None):
    """The arrays by element and name; with a path those of another file, such as trained ones."""
    found = {{}}
    with np.load(io.BytesIO(content()) if path is None else path, allow_pickle=False) as file:
        for number, (element, name) in enumerate(NAMES):
            found.setdefault(element, {{}})[name] = jnp.asarray(file[f"arr_{{number}}"])
    return found


content()
'''
SPIKE = '''
@jax.custom_jvp
def {name}(above, width):
    """One where a potential is {where} its threshold."""
    return ({comparison}).astype(above.dtype)


@{name}.defjvp
def _{name}_derivative(primals, tangents):
    above, width = primals
    slope = jnp.maximum(0, 1 - jnp.abs(above) / width) / width
    return {name}(above, width), slope * tangents[0]
'''
HEAVISIDE = '''
@jax.custom_jvp
def heaviside(x, slope):
    """One where x is not negative; its derivative is the slope given."""
    return (x >= 0).astype(x.dtype)


@heaviside.defjvp
def _heaviside_derivative(primals, tangents):
    x, slope = primals
    return heaviside(x, slope), slope * tangents[0]
'''


def write_source(graph: SNNGraph, path: str | os.PathLike[str]) -> Path:
    """Writes a graph as a Python module, with its arrays in an ``.npz`` file of the same name beside it.

    The module has ``load()``, ``initial_state(arrays)`` and ``step(arrays, state, inputs)``, and imports only JAX and
    numpy. It knows its arrays by their hash, so that it never runs with those of another export. Names of the graph are
    data in it; its variables have names made of them.

    Raises:
        GraphError: the graph is not valid.
        ExportError: a population or projection cannot be written as source, or a file cannot be written.
    """
    check(graph)
    check_carried(graph, 1, np.dtype(np.float32).itemsize)
    target = Path(path)
    if target.suffix != ENDING:
        raise ExportError(f"{str(target)!r}: source goes into a file that ends in {ENDING}.")
    writer = _Writer(graph)
    body = writer.body()
    arrays = npz_bytes({f"arr_{number}": value for number, value in enumerate(writer.arrays.values())})
    text = f"{writer.head(hashlib.sha256(arrays).hexdigest())}\n{body}"
    check_program(text, writer.names.issued)
    try:
        with replacing(target.with_suffix(".npz")) as data, replacing(target) as program:
            data.write_bytes(arrays)
            program.write_text(text, encoding="ascii")
    except OSError as error:
        raise ExportError(f"{str(target)!r} cannot be written: {reason_text(error)}.") from error
    return target


class _Writer:
    """The text of a step, and the arrays that it reads."""

    def __init__(self, graph: SNNGraph) -> None:
        self.graph = graph
        self.arrays: dict[tuple[str, str], np.ndarray] = {}
        self.names = Names({*SPIKES.values(), *OWN})
        self.known: dict[Port, str] = {}
        self.parameters: dict[str, str] = {}
        self.made: dict[ArrayName, str] = {}
        self.making: list[str] = []
        self.functions: dict[str, str] = {}
        self.delayed = delayed_ports(graph.projections.values())
        self.pasts = self._keys_of_pasts()

    def _keys_of_pasts(self) -> dict[Port, str]:
        """Where among the states the earlier values of a port are."""
        keys: dict[Port, str] = {}
        for name, port in self.delayed:
            wanted = f"past {name}" if port == OUT else f"past {name} {port}"
            keys[name, port] = free_name({*self.graph.populations, *keys.values()}, wanted)
        return keys

    def body(self) -> str:
        """The functions of the program, and what comes before them except for its head."""
        body = list(self._step())
        initial = list(self._initial())
        functions = [f"\n{text.replace('NAME', name)}\n" for text, name in self.functions.items()]
        if any("heaviside(" in line for line in (*body, *functions)):
            functions.insert(0, HEAVISIDE)
        return "\n".join([*self._spikes(), *functions, "", *initial, "", "", *body, ""])

    def head(self, digest: str) -> str:
        """The beginning of the program: what it imports, its constants, and how its arrays are read."""
        names = "".join(f"    {key!a},\n" for key in self.arrays)
        table = f"(\n{names})" if names else "()"
        return HEAD.format(name=self.graph.name, dt=float(self.graph.dt), digest=digest, names=table)

    def _spikes(self) -> Iterator[str]:
        """The functions that make spikes, where the graph needs them."""
        fires = {p.neuron.choices["fires"] for p in self.graph.populations.values() if "fires" in p.neuron.choices}
        for kind, where in ((">", "above"), (">=", "at or above")):
            if kind in fires:
                yield SPIKE.format(name=SPIKES[kind], where=where, comparison=f"above {kind} 0")

    # States before the first step

    def _initial(self) -> Iterator[str]:
        yield "def initial_state(arrays):"
        yield '    """States before the first step, by element and name."""'
        yield "    return {"
        for name, population in self.graph.populations.items():
            entries = {k: self._start(name, f"initial {k}", v) for k, v in population.initial_state().items()}
            memory = population.neuron.memory(population.shape)
            entries.update({k: _zeros(shape) for k, shape in memory.items()})
            if entries:
                yield f"        {name!a}: {_table(entries)},"
        for (name, port), depth in self.delayed.items():
            value = self._before(name, port)
            start = self._start(name, f"before {port}", value)
            shape = (depth, *value.shape)
            yield f"        {self.pasts[name, port]!a}: jnp.broadcast_to({start}, {shape!r}),"
        yield "    }"

    def _before(self, name: str, port: str) -> np.ndarray:
        population = self.graph.populations.get(name)
        return np.zeros(self.graph.inputs[name].shape) if population is None else population.initial_value(port)

    def _start(self, name: str, label: str, value: np.ndarray) -> str:
        if not np.any(value):
            return _zeros(value.shape)
        return self._array(name, label, value)

    def _array(self, element: str, label: str, value: Any) -> str:
        """An array as the text reads it; single numbers are written out."""
        use = self.graph.bindings.get((element, label))
        if use is not None and use.parameters:
            return self._made((element, label), use)
        array = np.asarray(value)
        if array.ndim == 0:
            return repr(float(array))
        return self._file(element, label, array)

    def _file(self, element: str, label: str, array: np.ndarray) -> str:
        """An array in the file of arrays, as the text reads it."""
        single = np.issubdtype(array.dtype, np.floating)
        own = free_name({name for owner, name in self.arrays if owner == element}, label)
        self.arrays[element, own] = array.astype(np.float32) if single else array
        return f"arrays[{element!a}][{own!a}]"

    def _made(self, array: ArrayName, use: ParameterBinding) -> str:
        """A variable with an array that is made of parameters, at the start of the step."""
        if array not in self.made:
            element, label = array
            values = [self.graph.parameters[name] for name in use.parameters]
            operands = [self._parameter(name) for name in use.parameters]
            self.made[array] = self.names.variable(f"{element} {label}")
            shapes = [value.shape for value in values]

            def keep(name: str, value: np.ndarray) -> str:
                return self._file(element, f"{label} {name}", value)

            self.making += statements_of(use, operands, shapes, self.made[array], keep)
        return self.made[array]

    def _parameter(self, name: str) -> str:
        if name not in self.parameters:
            self.parameters[name] = self._file(name, "value", self.graph.parameters[name])
        return self.parameters[name]

    # A step

    def _step(self) -> Iterator[str]:
        body = list(self._body())
        yield "def step(arrays, state, inputs):"
        yield '    """New states and outputs from arrays, states and the values of the inputs."""'
        yield "    new = dict(state)"
        yield from (f"    {line}" for line in self.making)
        yield from body

    def _body(self) -> Iterator[str]:
        for name in self.graph.inputs:
            variable = self.names.variable(name)
            self.known[name, OUT] = variable
            value = "inputs" if len(self.graph.inputs) == 1 else f"inputs[{name!a}]"
            yield f"    {variable} = jnp.asarray({value}, jnp.float32)"
        for name in update_order(self.graph):
            yield ""
            yield from self._population(self.graph.populations[name])
        yield ""
        yield from self._outputs()

    def _outputs(self) -> Iterator[str]:
        results = {}
        for name in self.graph.outputs:
            results[name] = self.names.variable(name)
            yield f"    {results[name]} = {self._summed((name, IN))}"
        for port in self.delayed:
            past = f"{self.pasts[port]!a}"
            yield f"    new[{past}] = jnp.concatenate([{self.known[port]}[None], state[{past}][:-1]])"
        yield f"    return new, {next(iter(results.values())) if len(results) == 1 else _table(results)}"

    def _population(self, population: Population) -> Iterator[str]:
        name, neuron = population.name, population.neuron
        yield f"    # {name[:60]!a}: {type(neuron).__name__} {list(population.shape)}"
        if isinstance(neuron, Traced):
            yield from self._traced(population, neuron)
            return
        prefix = self.names.variable(name)
        yield f"    {prefix}_in = {self._summed((name, IN))}"
        statements = Statements(prefix)
        states, output = self._updated(population, leaf(f"{prefix}_in"))
        label = "z" if neuron.spikes else "out"
        variables = statements.assign({**states, free_name(states, label): output})
        yield from (f"    {line}" for line in statements.lines)
        *names, self.known[name, OUT] = variables.values()
        if states:
            yield f"    new[{name!a}] = {_table(dict(zip(states, names, strict=True)))}"
        self.known.update({(name, state): variables[state] for state in neuron.states})

    def _updated(self, population: Population, current: Expression) -> tuple[dict[str, Expression], Expression]:
        """New states and the output of neurons with a name."""
        name, neuron = population.name, population.neuron
        ops = SourceOps(name, partial(self._array, name))
        parameters = {label: leaf(self._array(name, label, value)) for label, value in neuron.parameters.items()}
        before = {s: leaf(f"state[{name!a}][{s!a}]") for s in (*neuron.states, *neuron.memory(population.shape))}
        dt: Any = leaf("DT")
        return neuron.with_arrays(parameters).update(ops, before, current, dt)

    def _traced(self, population: Population, neuron: Traced) -> Iterator[str]:
        name = population.name
        if not neuron.by_position:
            raise ExportError(
                f"population {name!r} works on whole arrays [{whole_array_equation(neuron)}], which is not written as "
                "source; export_artifact(model, path) writes any model."
            )
        prefix = self.names.variable(name)
        operands = self.names.parts(prefix, neuron.inputs)
        for port, variable in zip(neuron.inputs, operands, strict=True):
            yield f"    {variable} = {self._summed((name, port))}"
        operands += [f"state[{name!a}][{state!a}]" for state in neuron.states]
        operands += [self._array(name, key, value) for key, value in neuron.parameters.items()]
        equations = TracedEquations(f"population {name!r}", prefix, self.functions)
        results = equations.results(neuron.function.jaxpr, operands)
        yield from (f"    {line}" for line in equations.lines)
        shaped = [
            f"jnp.broadcast_to({r}, {tuple(population.shape)!r})" if leaf(r).number is not None else r for r in results
        ]
        states = dict(zip(neuron.states, shaped, strict=False))
        if states:
            yield f"    new[{name!a}] = {_table(states)}"
        named = dict(zip((*neuron.states, *neuron.outputs), shaped, strict=True))
        self.known.update({(name, port): value for port, value in named.items()})

    def _summed(self, port: Port) -> str:
        into = [p for p in self.graph.projections.values() if (p.target, p.target_port) == port]
        if not into:
            return _zeros(input_ports(self.graph)[port])
        terms = [self._projection(p) for p in into]
        if len(terms) <= MOST_IN_A_SUM:
            return " + ".join(terms)
        return f"sum([{', '.join(terms[1:])}], {terms[0]})"

    def _projection(self, projection: Projection) -> str:
        source = projection.source, projection.source_port
        x = f"state[{self.pasts[source]!a}][{projection.delay - 1}]" if projection.delay else self.known[source]
        operation, name = projection.operation, projection.name
        arrays = {label: leaf(self._array(name, label, numbers_of(value))) for label, value in operation.arrays.items()}
        if (mask := projection.mask) is not None:
            # Truth values are no weights: training with this program leaves absent synapses absent.
            arrays["weight"] = arrays["weight"] * leaf(self._file(name, "mask", mask))
        ops = SourceOps(name, partial(self._array, name))
        return operation.apply(ops, arrays, leaf(x, self.graph.source_shape(projection))).text


def _zeros(shape: tuple[int, ...]) -> str:
    return f"jnp.zeros({tuple(shape)!r}, jnp.float32)"


def _table(values: Mapping[str, str]) -> str:
    """A dictionary of expressions."""
    return f"{{{', '.join(f'{key!a}: {value}' for key, value in values.items())}}}"
