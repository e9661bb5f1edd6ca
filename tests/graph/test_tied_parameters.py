"""A parameter that is used in several places, or through a function, stays one parameter of the graph."""

from __future__ import annotations

import importlib.util
import json

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier
from tests.support.examples import few

N = 4


def _array(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape) * 0.5


def _recurrent(p, s, x):
    h = jnp.tanh(x @ p["w"] + s["h"] @ p["w"])
    return {"h": h}, h


def _transposed(p, s, x):
    h = jnp.tanh(0.5 * s["h"] + p["w"] @ x)
    return {"h": h}, p["w"].T @ h


MASK = (np.random.default_rng(5).random((N, N)) < 0.6).astype(float)


def _masked(p, s, x):
    w = MASK * jax.nn.softplus(p["w"])
    h = jnp.tanh(x @ w - s["h"] @ w)
    return {"h": h}, h


def _scanned(p, s, x):
    h, _ = jax.lax.scan(lambda h, _: (jnp.tanh(h @ p["w"] + x), None), s["h"], None, length=3)
    return {"h": h}, h


def _convolved(p, s, x):
    def conv(v):
        return jax.lax.conv_general_dilated(
            v.reshape(1, 1, 2, 2), p["w"].reshape(1, 1, 4, 4)[..., :3, :3], (1, 1), "SAME"
        )

    h = jnp.tanh(conv(x).reshape(-1) + conv(s["h"]).reshape(-1))
    return {"h": h}, h


def _as_weight_and_elementwise(p, s, x):
    h = jnp.tanh(0.5 * s["h"] * p["w"][0] + x @ p["w"])
    return {"h": h}, h


def _overlapping(p, s, x):
    h = jnp.tanh(x[:3] @ p["w"][:3] + s["h"][:3] @ p["w"][1:])
    return {"h": h}, h


def _symmetric(p, s, x):
    h = jnp.tanh(x @ (p["w"] + p["w"].T) + 0.3 * s["h"])
    return {"h": h}, h


def _scaled(p, s, x):
    h = jnp.tanh(x @ (0.1 * p["w"]) + 0.3 * s["h"])
    return {"h": h}, h


def _picked_by_argmax(p, s, x):
    h = jnp.tanh(0.5 * s["h"] + x @ p["w"] + jnp.eye(N)[jnp.argmax(p["w"].sum(0))])
    return {"h": h}, h


def _compared(p, s, x):
    h = jnp.tanh(0.5 * s["h"] + x @ p["w"])
    return {"h": h}, h * (p["w"].sum(0) > 0) + jnp.round(3 * p["w"][0])


def _stopped(p, s, x):
    """A product that follows the parameter without teaching it, beside one that teaches."""
    h = jnp.tanh(0.5 * s["h"] + x @ jax.lax.stop_gradient(p["w"]) + x * p["w"][0])
    return {"h": h}, h


def _in_a_branch(p, s, x):
    y = jax.lax.cond(x.sum() > 0, lambda: jnp.tanh(x @ p["w"]), lambda: -x @ p["w"])
    h = jnp.tanh(0.5 * s["h"] + y + s["h"] @ p["w"])
    return {"h": h}, h


def _long_scan(p, s, x):
    h, _ = jax.lax.scan(lambda h, _: (h + 0.02 * (jnp.tanh(x @ p["w"]) + h @ p["w"] - h), None), s["h"], length=100)
    return {"h": h}, h


@jax.custom_jvp
def _fires(v, threshold):
    return (v > threshold).astype(v.dtype)


_fires.defjvp(lambda x, t: (_fires(*x), (t[0] - t[1]) / (1 + jnp.abs(x[0] - x[1])) ** 2))


def _threshold_of_a_spike(p, s, x):
    h = 0.8 * s["h"] + x @ p["w"]
    z = _fires(h, p["w"][0])
    return {"h": h - z}, z @ p["w"]


def _solved(p, s, x):
    h = jnp.tanh(0.5 * s["h"] + jnp.linalg.solve(3 * jnp.eye(N) + p["w"], x) + x @ p["w"])
    return {"h": h}, h


def _fourier(p, s, x):
    kernel = jnp.fft.irfft(jnp.fft.rfft(p["w"][0]) * jnp.fft.rfft(p["w"][1]), n=N)
    h = jnp.tanh(0.5 * s["h"] + x * kernel + x @ p["w"])
    return {"h": h}, h


def _cell(weight):
    """A recurrent step whose one matrix is a function of the parameter."""

    def step(p, s, x):
        w = weight(p["w"])
        h = jnp.tanh(x @ w + s["h"] @ w)
        return {"h": h}, h

    step.__name__ = weight.__name__
    return step


def _without_diagonal(w):
    return w.at[jnp.arange(N), jnp.arange(N)].set(0.0)


def _rows_added(w):
    return w.at[jnp.array([0, 2, 0])].add(jnp.abs(w)[jnp.array([3, 1, 1])])


def _softmax(w):
    return jax.nn.softmax(w, axis=1)


def _standardized(w):
    return (w - w.mean(0)) / jnp.sqrt(w.var(0) + 1e-5)


def _sorted_products(w):
    return jnp.cumprod(jnp.sort(w, axis=0), axis=1) * jnp.prod(jnp.abs(w), axis=0)


def _shifted_block(w):
    return jax.lax.dynamic_update_slice(jnp.sin(w), jax.lax.dynamic_slice(jnp.cos(w), (1, 0), (2, 2)), (0, 2))


OF_CELLS = [_without_diagonal, _rows_added, _softmax, _standardized, _sorted_products, _shifted_block]
MODELS = [
    _recurrent,
    _transposed,
    _masked,
    _scanned,
    _convolved,
    _as_weight_and_elementwise,
    _overlapping,
    _symmetric,
    _scaled,
    *map(_cell, OF_CELLS),
]
IN_MEMORY = {
    _picked_by_argmax: r"argmax at .*_picked_by_argmax.*untie.*export_artifact",
    _compared: None,
    _stopped: None,
    _threshold_of_a_spike: None,
    _in_a_branch: r"works on whole arrays \[dot_general at .*_in_a_branch.*export_artifact",
    _long_scan: r"works on whole arrays \[dot_general at .*_long_scan.*export_artifact",
    _solved: r"(lu|custom_linear_solve|map without a name).*(untie.*)?export_artifact",
    _fourier: r"fft at .*_fourier.*untie.*export_artifact",
}
"""Models that graphs hold as programs, with what the export of source says of those that it refuses."""
KINDS = [pytest.param(step, id=step.__name__.strip("_")) for step in MODELS]
OF_PROGRAMS = [pytest.param(step, id=step.__name__.strip("_")) for step in IN_MEMORY]


@pytest.fixture(autouse=True)
def _in_double_precision():
    with jax.enable_x64(True):
        yield


def _model(step, seed=0):
    return ranvier.step_function(step, {"w": _array(seed, N, N)}, {"h": np.zeros(N)})


def _loss(model, params, xs, run=None):
    def one(state, x):
        state, y = model.step(params, state, x)
        return state, jnp.sum(jnp.tanh(y).ravel() * jnp.arange(1.0, 1 + y.size))

    return jax.lax.scan(one, jax.tree.map(jnp.asarray, model.state), xs)[1].sum()


def _gradient(model, xs):
    return jax.tree.map(np.asarray, jax.grad(lambda params: _loss(model, params, xs))(model.params))


def _losses(model, xs, steps=6):
    """While it trains with Adam."""
    optimizer, params, found = optax.adam(0.05), jax.tree.map(jnp.asarray, model.params), []
    state = optimizer.init(params)
    step = jax.jit(jax.value_and_grad(lambda params: _loss(model, params, xs)))
    for _ in range(steps):
        value, gradient = step(params)
        found.append(float(value))
        change, state = optimizer.update(gradient, state)
        params = optax.apply_updates(params, change)
    return found


@few("step", KINDS)
def test_the_graph_has_the_one_parameter_and_its_gradient(step):
    model, xs = _model(step), _array(1, 5, N)
    graph = ranvier.SNNGraph.from_module(model, xs[0])
    assert list(graph.parameters) == ["w"]
    assert graph.total_params <= N * N
    lowered = ranvier.lower(graph, dtype=jnp.float64)
    np.testing.assert_array_equal(lowered.params["w"], model.params["w"])
    assert jax.tree.structure(lowered.params) == jax.tree.structure({"w": 0})
    np.testing.assert_allclose(_gradient(lowered, xs)["w"], _gradient(model, xs)["w"], rtol=1e-9, atol=1e-12)


@few("step", OF_PROGRAMS)
def test_what_graphs_hold_as_programs_has_the_one_parameter(step):
    model, xs = _model(step), _array(1, 5, N)
    graph = ranvier.SNNGraph.from_module(model, xs[0])
    assert graph.total_params <= N * N + N
    lowered = ranvier.lower(graph, dtype=jnp.float64)
    (value,) = jax.tree.leaves(lowered.params)
    np.testing.assert_array_equal(value, model.params["w"])
    found, expected = _gradient(lowered, xs), _gradient(model, xs)
    np.testing.assert_allclose(jax.tree.leaves(found)[0], expected["w"], rtol=1e-9, atol=1e-12)
    # Other weights, as training makes them: what has no derivative follows too.
    other = -1.7 * model.params["w"][::-1]
    moved = _loss(lowered, jax.tree.map(lambda _: other, lowered.params), xs)
    np.testing.assert_allclose(moved, _loss(model, {"w": other}, xs), rtol=1e-9)


@few("step", OF_PROGRAMS, quick=1)
def test_programs_that_are_optimized_train_as_the_model_does(step):
    model, xs = _model(step), _array(1, 5, N)
    small, _ = ranvier.optimize(model, level="O1", inputs=xs[0], calibration=xs[:, None])
    np.testing.assert_allclose(_losses(small, xs), _losses(model, xs), rtol=1e-6)


@few("step", OF_PROGRAMS, quick=1)
def test_what_the_text_and_the_source_cannot_hold_is_refused_with_a_remedy(step, tmp_path):
    graph = ranvier.SNNGraph.from_module(_model(step), np.zeros(N))
    with pytest.raises(ranvier.GraphError, match=r"traced program.*export_artifact"):
        ranvier.save(graph, tmp_path / "model.snn")
    if IN_MEMORY[step] is None:
        ranvier.export_source(graph, tmp_path / "model.py")
    else:
        with pytest.raises(ranvier.ExportError, match=IN_MEMORY[step]):
            ranvier.export_source(graph, tmp_path / "model.py")


@few("step", KINDS)
def test_optimized_models_train_as_the_model_does(step):
    model, xs = _model(step), _array(1, 5, N)
    expected = _losses(model, xs)
    for level in ("O1", "O3"):
        small, report = ranvier.optimize(model, level=level, inputs=xs[0], calibration=xs[:, None])
        assert list(small.params) == ["w"]
        np.testing.assert_allclose(_losses(small, xs), expected, rtol=1e-6)
        carried = report.carry({("w",): jnp.asarray(model.params["w"])})
        np.testing.assert_array_equal(carried["w",], model.params["w"])
    parted, _ = ranvier.optimize(model, "untie", inputs=xs[0])
    assert not np.allclose(_losses(parted, xs), expected, rtol=1e-4)


class _Twice(brainstate.nn.Module):
    """One Linear, with its bias, for the input and for the recurrence."""

    def __init__(self):
        super().__init__()
        self.linear = brainstate.nn.Linear(N, N)
        self.h = brainstate.HiddenState(jnp.zeros(N))

    def update(self, x):
        self.h.value = jnp.tanh(self.linear(x) + self.linear(self.h.value))
        return self.h.value


def test_a_linear_applied_twice_stays_one_parameter_of_the_module():
    model, xs = _Twice(), _array(1, 6, N)
    small, report = ranvier.optimize(model, level="O2", inputs=xs[0], calibration=xs[:, None])
    states = small.states(brainstate.ParamState)
    assert {path: state.value.shape for path, state in states.items()} == {
        ("linear.weight.weight",): (N, N),
        ("linear.weight.bias",): (N,),
    }
    assert report.before.parameters == report.after.parameters == N * N + N

    def gradient(module):
        learner = ranvier.compile(module, ranvier.BPTT(), xs[0])
        return learner.grad(lambda y, _: jnp.sum(y**2), xs, np.zeros(len(xs)))[0]

    after = gradient(small)
    for path, value in report.carry(gradient(model)).items():
        np.testing.assert_allclose(after[path], value, rtol=1e-4, atol=1e-6)


def _two_populations(p, s, x):
    decay = jnp.exp(-1 / p["tau"])
    a = decay * s["a"] + x @ p["u"]
    b = decay * s["b"] + (1 - decay) * jnp.tanh(a) @ p["v"]
    return {"a": a, "b": b}, b


def test_one_time_constant_of_two_populations_stays_one():
    params = {"tau": 2.0 + np.arange(N), "u": _array(1, N, N), "v": _array(2, N, N)}
    model = ranvier.step_function(_two_populations, params, {"a": np.zeros(N), "b": np.zeros(N)})
    xs = _array(3, 6, N)
    graph = ranvier.SNNGraph.from_module(model, xs[0])
    assert list(graph.parameters) == ["tau"]
    small, _ = ranvier.optimize(model, level="O2", inputs=xs[0], calibration=xs[:, None])
    expected = _gradient(model, xs)
    for found in (ranvier.lower(graph, dtype=jnp.float64), small):
        assert set(found.params) == {"tau", "u", "v"}
        gradient = _gradient(found, xs)
        np.testing.assert_allclose(gradient["tau"], expected["tau"], rtol=1e-6)
        np.testing.assert_allclose(gradient["u"]["weight"].T, expected["u"], rtol=1e-6)


def _random_step(seed):
    """A network whose parts use slices, transposes and functions of two parameters at random."""
    generator = np.random.default_rng(seed)

    def weight(number):
        kind = [generator.integers(6) for _ in range(number)]
        name = [generator.choice(["w", "u"]) for _ in range(number)]
        at = [int(generator.integers(0, 3)) for _ in range(number)]
        makers = {
            0: lambda p, k: p,
            1: lambda p, k: p.T,
            2: lambda p, k: jnp.roll(p, k, axis=0),
            3: lambda p, k: jnp.abs(p) * MASK,
            4: lambda p, k: p @ p,
            5: lambda p, k: jnp.diag(p[k]),
        }
        return [lambda p, k=k, n=n, a=a: makers[int(k)](p[n], a) for k, n, a in zip(kind, name, at, strict=True)]

    made = weight(4)

    def step(p, s, x):
        h = jnp.tanh(x @ made[0](p) + s["h"] @ made[1](p) + p["w"][1])
        g = 0.7 * s["g"] + h @ made[2](p)
        return {"h": h, "g": g}, g @ made[3](p)

    return step


@few("seed", range(8))
def test_random_tied_models(seed):
    params = {"w": _array(10 + seed, N, N), "u": _array(50 + seed, N, N)}
    model = ranvier.step_function(_random_step(seed), params, {"h": np.zeros(N), "g": np.zeros(N)})
    xs = _array(90 + seed, 4, N)
    raised = ranvier.raise_model(model, xs[0])
    lowered = ranvier.lower(raised.graph, dtype=jnp.float64)
    assert sum(x.size for x in jax.tree.leaves(lowered.params)) <= 2 * N * N
    _, pull = jax.vjp(lambda p: raised.parameters({("w",): p["w"], ("u",): p["u"]}), params)
    (expected,) = pull(_gradient(lowered, xs))
    for name, value in _gradient(model, xs).items():
        np.testing.assert_allclose(expected[name], value, rtol=1e-7, atol=1e-10)


def _relays(step):
    """The graph of a model whose arithmetic is taken out of it, so that text can hold it: projections and relays."""
    model = _model(step)
    graph = ranvier.SNNGraph.from_module(model, np.zeros(N))
    for name, population in graph.populations.items():
        neuron = population.neuron
        if isinstance(neuron, ranvier.neurons.Relay):
            continue
        graph.populations[name] = population.replace(neuron=ranvier.neurons.LI(tau=np.full(population.shape, 0.02)))
        for key, projection in graph.projections.items():
            if projection.source == name:
                graph.projections[key] = projection.replace(source_port="out")
            if projection.target == name:
                graph.projections[key] = graph.projections[key].replace(target_port="in")
    graph.forget_unused()
    return graph


@few("step", KINDS)
def test_text_and_files_keep_parameters(step, tmp_path):
    graph = _relays(step)
    text, arrays = ranvier.to_text(graph)
    ranvier.save(graph, tmp_path / "graph.snn")
    for again in (ranvier.from_text(text, arrays), ranvier.load(tmp_path / "graph.snn")):
        assert ranvier.to_text(again)[0] == text
        assert set(again.parameters) == {"w"}
        models = [ranvier.lower(g, dtype=jnp.float64) for g in (graph, again)]
        expected, found = (_gradient(model, _array(1, 4, N)) for model in models)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), expected, found)
        assert np.abs(expected["w"]).max() > 0


def _imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _gradient_of_source(module, xs):
    """Of the parameter ``w`` of an exported program."""
    arrays = module.load()

    def loss(value):
        own = {**arrays, "w": {**arrays["w"], "value": value}}
        state, total = module.initial_state(own), 0.0
        for x in xs:
            state, y = module.step(own, state, jnp.asarray(x, jnp.float32))
            total += jnp.sum(jnp.tanh(y).ravel() * jnp.arange(1.0, 1 + y.size))
        return total

    return jax.grad(loss)(arrays["w"]["value"])


@few("step", KINDS)
def test_source_has_the_one_parameter_and_its_gradient(step, tmp_path):
    model, xs = _model(step), _array(1, 4, N)
    if step in (_convolved,):
        pytest.skip("maps without a name are not written as source")
    module = _imported(ranvier.export_source(model, tmp_path / "model.py", xs[0]))
    learned = [value for entries in module.load().values() for label, value in entries.items() if label == "value"]
    assert [value.shape for value in learned] == [(N, N)]
    found = _gradient_of_source(module, xs)
    np.testing.assert_allclose(found, _gradient(model, xs)["w"], rtol=2e-3, atol=1e-4)


def _layers_of_convolutions(p, s, x):
    """One kernel before both layers."""
    kernel = p["w"].reshape(1, 1, 4, 4)[..., :3, :3]

    def conv(image):
        return jax.lax.conv_general_dilated(image[None], kernel, (1, 1), "SAME")[0]

    v = 0.5 * s["v"] + conv(x)
    u = 0.3 * s["u"] + conv(jnp.tanh(v))
    return {"v": v, "u": u}, u


@pytest.mark.slow
def test_a_kernel_of_two_convolutions_stays_one(tmp_path):
    model = ranvier.step_function(
        _layers_of_convolutions, {"w": _array(0, N, N)}, {"v": np.zeros((1, 4, 4)), "u": np.zeros((1, 4, 4))}
    )
    xs = _array(1, 4, 1, 4, 4)
    graph = ranvier.SNNGraph.from_module(model, xs[0])
    assert [p.name for p in graph.projections.values() if isinstance(p.operation, ranvier.operations.Conv)]
    assert list(graph.parameters) == ["w"]
    expected = _gradient(model, xs)["w"]
    lowered = ranvier.lower(graph, dtype=jnp.float64)
    np.testing.assert_allclose(_gradient(lowered, xs)["w"], expected, rtol=1e-9, atol=1e-12)
    small, _ = ranvier.optimize(model, level="O2", inputs=xs[0], calibration=xs[:, None])
    np.testing.assert_allclose(_losses(small, xs), _losses(model, xs), rtol=1e-6)
    module = _imported(ranvier.export_source(model, tmp_path / "model.py", xs[0]))
    np.testing.assert_allclose(_gradient_of_source(module, xs), expected, rtol=2e-3, atol=1e-4)


def test_an_artifact_has_the_one_parameter(tmp_path):
    model, xs = _model(_recurrent), _array(1, 4, N).astype(np.float32)
    graph = ranvier.SNNGraph.from_module(model, xs[0])
    path = ranvier.export_artifact(graph, tmp_path / "model.rva")
    artifact = ranvier.load_artifact(path)
    assert [np.shape(value) for value in artifact.params] == [(N, N)]
    (expected,) = ranvier.interpret(graph, xs).outputs.values()
    np.testing.assert_allclose(artifact.run(xs)["output"], expected, rtol=1e-5, atol=1e-6)


@jax.custom_jvp
def _spike(v):
    return (v > 0).astype(v.dtype)


@_spike.defjvp
def _spike_derivative(primals, tangents):
    return _spike(*primals), tangents[0] / (1 + jnp.abs(primals[0])) ** 2


def _spiking(p, s, x):
    """LIF neurons with one matrix for the input and for the spikes of the step before."""
    v = 0.9 * s["v"] + 0.1 * (x @ p["w"] + s["z"] @ p["w"])
    z = _spike(v - 0.05)
    return {"v": jnp.where(z > 0, 0.0, v), "z": z}, z @ p["o"]


def _spiking_model():
    params = {"w": np.abs(_array(0, N, N)), "o": _array(1, N, 2)}
    return ranvier.step_function(_spiking, params, {"v": np.zeros(N), "z": np.zeros(N)})


def test_recognized_neurons_keep_tied_weights_and_nir_says_that_it_cannot():
    model, xs = _spiking_model(), np.abs(_array(3, 8, N)) * 3
    graph, findings = ranvier.recognise(ranvier.SNNGraph.from_module(model, xs[0]))
    assert all(finding.neuron for finding in findings)
    assert list(graph.parameters) == ["w"]
    assert len(graph.bindings) == 2
    (expected,) = ranvier.interpret(ranvier.SNNGraph.from_module(model, xs[0]), xs).outputs.values()
    (found,) = ranvier.interpret(graph, xs).outputs.values()
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.ptp(found) > 0
    text = ranvier.to_nir(graph).metadata["ranvier"]
    uses = json.loads(text)["untied"]["w"]
    assert len(uses) == 2
    for name in uses:
        assert name in ranvier.to_nir(graph).nodes


def _grown(model, **parts):
    """The same with other parameters."""
    return ranvier.step_function(model.step, {**model.params, **parts}, model.state)


def test_neurons_that_go_take_their_numbers_out_of_the_parameter():
    model, xs = _spiking_model(), np.abs(_array(3, 8, N)) * 3
    w = np.array(model.params["w"])
    w[:, 2] = -1.0
    model = _grown(model, w=w)
    small, report = ranvier.optimize(model, "dead-neurons{threshold=0}", inputs=xs[0], calibration=xs[:, None])
    assert report.after.neurons == report.before.neurons - 1
    assert small.params["w"].shape == (N, N - 1)
    assert report.before.parameters - report.after.parameters == N + 2
    learners = [ranvier.compile(m, ranvier.D_RTRL(), xs[0]) for m in (model, small)]
    before, after = (
        learner.grad(lambda y, _: jnp.sum(y * jnp.arange(1.0, 3)), xs, np.zeros(8))[0] for learner in learners
    )
    np.testing.assert_allclose(after["w",], report.carry(before)["w",], rtol=1e-6)
    values = report.carry({path: jnp.asarray(model.params[path[0]]) for path in before})
    np.testing.assert_array_equal(values["w",], np.delete(w, 2, 1))
    assert np.abs(after["w",]).max() > 0


def test_passes_leave_shared_numbers_and_say_so():
    """Two neurons that are alike would be merged, a matrix with few weights stored as rows, the weakest pruned."""
    model, xs = _spiking_model(), np.abs(_array(3, 8, N)) * 3
    w = np.zeros((N, N))
    w[0, :2] = 1.0
    w[1, 2], w[3, 2] = 0.7, 0.3
    model = _grown(model, w=w)
    graph, _ = ranvier.recognise(ranvier.SNNGraph.from_module(model, xs[0]))
    pipeline = "canonicalize,merge-neurons,connections{sparse_below=0.9},prune{sparsity=0.5},quantize,fuse"
    made, report = ranvier.optimize(graph, pipeline, calibration=xs[:, None])
    np.testing.assert_array_equal(made.parameters["w"], w)
    left = {remark.of for run in report.runs for remark in run.remarks if "'w'" in remark.message and not remark.done}
    assert left >= {"merge-neurons", "connections", "quantize", "prune"}
    parted, report = ranvier.optimize(graph, f"untie,{pipeline}", calibration=xs[:, None])
    assert not parted.parameters
    assert any(remark.of == "untie" and "16 numbers became 32" in remark.message for remark in report.runs[0].remarks)
    assert parted.total_synapses < made.total_synapses


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_tied_graphs_stay_true_through_every_pass(seed):
    """Two populations with arrays that are random elements of one parameter: outputs and uses agree after each pass."""
    generator = np.random.default_rng(seed)
    w = generator.choice([-1.0, 0.0, 0.5, 2.0], (N, N))
    whole = np.arange(N * N)
    index = [(generator.permutation(whole) if k % 2 else whole).reshape(N, N).T for k in range(4)]
    neuron = ranvier.neurons.LIF(tau=0.02, r=20.0)
    names = [("in->a", "in", "a", 0), ("a->a", "a", "a", 1), ("a->b", "a", "b", 0), ("b->out", "b", "out", 0)]
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("in", (N,), low=0.0, high=1.0)],
        populations=[ranvier.Population(name, (N,), neuron) for name in "ab"],
        outputs=[ranvier.Output("out", (N,))],
        projections=[
            ranvier.Projection(name, source, target, ranvier.operations.Linear(w.ravel()[at]), delay)
            for (name, source, target, delay), at in zip(names, index, strict=True)
        ],
        parameters={"w": w},
        bindings={
            (n[0], "weight"): ranvier.types.ParameterBinding(("w",), index=at)
            for n, at in zip(names, index, strict=True)
        },
    )
    xs = (generator.random((20, 3, N)) < 0.5).astype(float)
    (expected,) = ranvier.interpret(graph, xs).outputs.values()
    for level in ("O1", "O2", "O3", "untie,dead-neurons,merge-neurons,connections,fuse"):
        options = {"level": level} if level.startswith("O") else {"passes": level}
        made, report = ranvier.optimize(graph, calibration=xs, **options)
        assert ranvier.problems(made) == []
        (found,) = ranvier.interpret(made, xs).outputs.values()
        np.testing.assert_allclose(found, expected, atol=1e-9)
        assert made.total_params <= (N * N if level.startswith("O") else 4 * N * N)
        carried = report.carry({("w",): jnp.asarray(w)})
        for path, value in ranvier.lower(made, dtype=jnp.float64).params.items():
            if path == "w":
                np.testing.assert_array_equal(carried["w",], value)


def test_layers_and_parameters_of_a_graph_built_by_hand():
    w, neuron = _array(0, N, N), ranvier.neurons.LIF(tau=0.02)
    ends = [("in->a", "in", "a"), ("a->b", "a", "b"), ("b->out", "b", "out")]
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("in", (N,))],
        populations=[ranvier.Population(name, (N,), neuron) for name in "ab"],
        outputs=[ranvier.Output("out", (N,))],
        projections=[ranvier.Projection(*names, ranvier.operations.Linear(w)) for names in ends],
        parameters={"w": w},
        bindings={(name, "weight"): ranvier.types.ParameterBinding(("w",)) for name, _, _ in ends[:2]},
    )
    assert graph.total_params == 2 * N * N
    with pytest.raises(ranvier.GraphError, match="set_parameter"):
        graph.layers[0].weights = 2 * w
    graph.set_parameter("w", 2 * w)
    graph.layers[0].name = "first"
    assert ranvier.problems(graph) == []
    for name in ("in->first", "first->b"):
        np.testing.assert_array_equal(graph.projections[name].operation.weight, 2 * w)
    again = ranvier.with_weights(graph, {("w",): w})
    np.testing.assert_array_equal(again.projections["first->b"].operation.weight, w)
    with pytest.raises(ranvier.GraphError, match="computed from 'w'"):
        ranvier.with_weights(graph, {("in->first", "weight"): w})
    graph.projections["in->first"] = graph.projections["first->b"].replace(
        name="in->first", source="in", target="first"
    )
    graph.parameters["w"] = w
    assert len(ranvier.problems(graph)) == 2
