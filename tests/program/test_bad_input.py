"""Every mistake a user can make at the door gets an error that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import brainpy.state as neurons
import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier


class Layer(brainstate.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.neuron = neurons.LIF(4, tau=10.0 * u.ms, V_th=1.0 * u.mV)

    def update(self, x: jax.Array) -> jax.Array:
        return self.neuron(x * u.mA)


def initialized_layer() -> Layer:
    brainstate.environ.set(dt=0.1 * u.ms)
    layer = Layer()
    brainstate.nn.init_all_states(layer)
    return layer


def test_uninitialized_states() -> None:
    brainstate.environ.set(dt=0.1 * u.ms)
    with pytest.raises(ranvier.ModelError, match=r"not initialized .* Call brainstate.nn.init_all_states\(model\)"):
        ranvier.extract_module_info(Layer(), jnp.ones(4))


def test_missing_dt() -> None:
    layer = initialized_layer()
    saved = brainstate.environ.get("dt")
    brainstate.environ.pop("dt")
    try:
        with pytest.raises(ranvier.ModelError, match=r"needs the time step dt .* brainstate.environ.set\(dt="):
            ranvier.extract_module_info(layer, jnp.ones(4))
    finally:
        brainstate.environ.set(dt=saved)


def test_wrong_input_shape() -> None:
    with pytest.raises(ranvier.InputError, match=r"Layer cannot be traced with float32\[5\]"):
        ranvier.extract_module_info(initialized_layer(), jnp.ones(5))


def test_wrong_unit() -> None:
    with pytest.raises(ranvier.InputError, match="UnitMismatchError"):
        ranvier.extract_module_info(initialized_layer(), jnp.ones(4) * u.mV)


def test_missing_input() -> None:
    with pytest.raises(ranvier.InputError, match="cannot be traced with no inputs"):
        ranvier.extract_module_info(initialized_layer())


def test_input_that_is_no_array() -> None:
    with pytest.raises(ranvier.InputError, match="'spam' of type str"):
        ranvier.extract_module_info(initialized_layer(), "spam")


def test_no_hidden_state() -> None:
    with pytest.raises(ranvier.ModelError, match=r"no hidden state.*brainstate.HiddenState"):
        ranvier.extract_module_info(brainstate.nn.Linear(3, 4), jnp.ones(3))


def test_integer_hidden_state() -> None:
    class Counter(brainstate.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n = brainstate.HiddenState(jnp.zeros(4, dtype=jnp.int32))

        def update(self, x: jax.Array) -> jax.Array:
            self.n.value = self.n.value + 1
            return x

    with pytest.raises(ranvier.ModelError, match=r"hidden state n has dtype int32.*ShortTermState"):
        ranvier.extract_module_info(Counter(), jnp.ones(3))


@pytest.mark.parametrize("thing", [42, "model", None, [1, 2], object()])
def test_objects_that_are_no_model(thing: object) -> None:
    with pytest.raises(ranvier.ModelError, match=r"is not a model that Ranvier can read; pass a brainstate.nn.Module"):
        ranvier.extract_module_info(thing, jnp.ones(3))


def test_a_bare_function_is_pointed_to_step_function() -> None:
    with pytest.raises(ranvier.ModelError, match=r"wrap a step function with ranvier.step_function"):
        ranvier.extract_module_info(lambda params, state, x: (state, x), jnp.ones(3))


def test_a_module_class_is_no_model() -> None:
    with pytest.raises(ranvier.ModelError, match="is not a model"):
        ranvier.extract_module_info(Layer, jnp.ones(4))


STATE = {"v": jnp.zeros(4)}


@pytest.mark.parametrize(
    ("step", "state", "message"),
    [
        (lambda p, s, x: s, STATE, r"returned dict, but a step function returns \(new_state, output\)"),
        (lambda p, s, x: (x, s), STATE, "return the state with the same keys"),
        (lambda p, s, x: ({"v": s["v"][:2]}, x), STATE, r"goes in as float32\[4\] and comes out as float32\[2\]"),
        (lambda p, s, x: ({"v": s["v"].astype(jnp.float16)}, x), STATE, "comes out as float16"),
        (lambda p, s, x: ({"n": s["n"] + 1}, x), {"n": jnp.zeros(4, jnp.int32)}, "has no hidden state: .*n int32"),
        (lambda p, s, x: (s, x), {}, "has no hidden state: its state has no leaves"),
        (lambda p, s, x: ({"v": s["v"] @ x}, x), STATE, "cannot be traced"),
        (lambda p, s, x: ({"v": s["missing"]}, x), STATE, "KeyError: 'missing'"),
    ],
)
def test_step_functions_that_do_not_fit(step: object, state: dict, message: str) -> None:
    model = ranvier.step_function(step, {}, state)
    with pytest.raises(ranvier.RanvierError, match=message):
        ranvier.extract_module_info(model, jnp.ones(3))


def test_step_function_arguments() -> None:
    with pytest.raises(ranvier.ModelError, match="needs a function step"):
        ranvier.step_function({"v": 1}, {}, {})
    with pytest.raises(ranvier.ModelError, match="names delay, but the leaves of the state are v"):
        ranvier.step_function(lambda p, s, x: (s, x), {}, STATE, other=["delay"])


def test_registration_is_checked() -> None:
    with pytest.raises(ranvier.RegistrationError, match="use one of 'elementwise', 'structural'"):
        ranvier.register_primitive("my_op", "banana")
    with pytest.raises(ranvier.RegistrationError, match="drop `move`"):
        ranvier.register_primitive("my_op", "mixing", move=lambda params, operands: operands[0])


def _graph() -> ranvier.SNNGraph:
    return ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (3,))],
        populations=[ranvier.Population("p", (3,), ranvier.neurons.LIF(tau=0.02))],
        projections=[
            ranvier.Projection("w", "x", "p", ranvier.operations.Linear(np.eye(3))),
            ranvier.Projection("y", "p", "y", ranvier.operations.Identity()),
        ],
        outputs=[ranvier.Output("y", (3,))],
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("run", [ranvier.simulate, ranvier.interpret], ids=["simulate", "interpret"])
def test_inputs_of_a_graph_are_finite(run, value: float) -> None:
    xs = np.ones((4, 3))
    xs[2, 1] = value
    with pytest.raises(ranvier.InputError, match="input 'x' has values that are not finite"):
        run(_graph(), xs)
    run(_graph(), np.full((4, 3), 3e38, np.float32))


def test_a_dtype_that_numpy_has_not() -> None:
    with pytest.raises(ranvier.InputError, match=r"bfloat16.*float32"):
        ranvier.simulate(_graph(), np.ones((4, 3)), dtype="bfloat16")


def test_a_shape_without_an_axis() -> None:
    graph = _graph()
    graph.populations["p"] = graph.populations["p"].replace(shape=())
    with pytest.raises(ranvier.GraphError, match=r"p: shape \[\]"):
        ranvier.simulate(graph, np.ones((4, 3)))


def test_one_name_for_arrays_of_a_population_and_of_a_projection() -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.9 * s["v"] * p["weight"] + x
        return {"v": v}, v

    model = ranvier.step_function(step, {"weight": jnp.linspace(0.1, 1, 3)}, {"v": jnp.zeros(3)})
    graph = ranvier.SNNGraph.from_module(model, jnp.ones(3))
    name = next(iter(graph.populations))
    assert "weight" in graph.populations[name].neuron.parameters
    graph.projections[name] = ranvier.Projection(name, "input", name, ranvier.operations.Linear(np.eye(3)))
    graph.projections[name] = graph.projections[name].replace(target_port=graph.populations[name].neuron.inputs[0])
    with pytest.raises(ranvier.GraphError, match=r"both have \['weight'\]"):
        ranvier.simulate(graph, np.ones((4, 3)))


def test_a_file_that_says_its_own_dt(tmp_path: Path) -> None:
    path = tmp_path / "graph.nir"
    ranvier.to_nir(_graph(), path=path)
    assert ranvier.from_nir(path, dt=1e-3).dt == 1e-3
    with pytest.raises(ranvier.GraphError, match=r"dt=0.0002 s contradicts the file, which says 0.001 s"):
        ranvier.from_nir(path, dt=2e-4)


@pytest.mark.parametrize("shape", [(10, 2, 5), (3,), (10, 2, 4, 3)])
def test_calibration_of_a_model_in_another_shape(shape: tuple[int, ...]) -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.9 * s["v"] + x @ p["w"]
        return {"v": v}, v

    model = ranvier.step_function(step, {"w": jnp.ones((3, 4))}, {"v": jnp.zeros(4)})
    with pytest.raises(ranvier.InputError, match=r"calibration of 'input' has shape .*\[T, samples, 3\]"):
        ranvier.optimize(model, level="O1", calibration=np.ones(shape), inputs=jnp.ones(3))
    small, _ = ranvier.optimize(model, level="O1", calibration=np.ones((10, 3)), inputs=jnp.ones(3))
    assert small.params


def test_what_a_population_without_an_output_has_to_record() -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.9 * s["v"] + x @ p["w"]
        return {"v": v}, v

    model = ranvier.step_function(step, {"w": jnp.ones((3, 4))}, {"v": jnp.zeros(4)})
    graph = ranvier.SNNGraph.from_module(model, jnp.ones(3))
    with pytest.raises(ranvier.GraphError, match=r"'v' has no output of that name; record one of \['v\.v'\]"):
        ranvier.simulate(graph, np.ones((4, 3)), record=["v"])
