"""Learning rules written out in numpy: models with D, f, L derived by hand, and the rules as their papers write them.

Every case has a step in JAX and, independent of it, a generator that computes the same steps in numpy together with
their derivatives. The rules are plain loops over these steps with full eligibility tensors
``[states, neurons, *weight]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

import ranvier

from .learning import T, loss_slope, phases
from .zoo import MODELS
from .zoo.model import spike

Array = np.ndarray
Params = Mapping[str, Array]


@dataclass(frozen=True)
class Drive:
    """How one parameter acts on one group: f ``[S, N]`` and dy/dw ``[N, *w]``.

    ``past`` is dl/dy ``[N]`` of the same step on the ways past the group's new states, if there are any.
    """

    group: str
    f: Array
    dy: Array
    past: Array | None = None

    def result_gradient(self, signal: Array) -> Array:
        """Dl/dy of the same step."""
        through_states = np.einsum("an,an->n", signal, self.f)
        return through_states if self.past is None else through_states + self.past


@dataclass(frozen=True)
class Step:
    """One step's derivatives.

    Attributes:
        D: by group, ``[S, S, N]``.
        L: by group, dl/dh with the group's states as leaves, ``[S, N]``.
        drives: by traced parameter.
        same: by parameter, the gradient of the step's loss with the old states held fixed.
        R: by group, dl/dh of the old states with all new states held fixed; none where it is zero.
        spikes: what tells whether the neurons are alive.
    """

    D: Mapping[str, Array]
    L: Mapping[str, Array]
    drives: Mapping[str, Drive]
    same: Mapping[str, Array]
    R: Mapping[str, Array] = field(default_factory=dict)
    spikes: Array | None = None

    def past(self, group: str) -> Array:
        """R of a group."""
        return self.R.get(group, np.zeros_like(self.L[group]))


@dataclass(frozen=True)
class Case:
    """A model with inputs, and its steps in numpy."""

    model: Any
    xs: Array
    derive: Callable[[], Iterator[Step]]

    @property
    def inputs(self) -> tuple[Any, ...]:
        return (jnp.asarray(self.xs[0]),)

    def steps(self) -> list[Step]:
        return list(self.derive())


CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    CASES[build.__name__] = build
    return build


# The rules --------------------------------------------------------------------------------------------------------


def same_step(steps: Sequence[Step]) -> dict[str, Array]:
    return {name: sum(step.same[name] for step in steps) for name in steps[0].same}


def without_trace(steps: Sequence[Step]) -> dict[str, Array]:
    """The same-step gradient of the parameters without a trace, zeros for the others."""
    traced = steps[0].drives
    return {name: np.zeros_like(g) if name in traced else g for name, g in same_step(steps).items()}


def by_matrix(c: Array, dy: Array) -> Array:
    return np.einsum("n,n...->...", c, dy)


def read_out(signal: Array, trace: Array) -> Array:
    return np.einsum("an,an...->...", signal, trace)


def d_rtrl(steps: Sequence[Step]) -> dict[str, Array]:
    """e_t = D_t e_{t-1} + f_t dy_t/dw, and the temporal part L_t . D_t e_{t-1} + R_t . e_{t-1}."""
    total = same_step(steps)
    for name, first in steps[0].drives.items():
        trace = np.zeros((*first.f.shape, *first.dy.shape[1:]))
        for step in steps:
            drive = step.drives[name]
            total[name] = total[name] + read_out(step.past(drive.group), trace)
            trace = np.einsum("abn,bn...->an...", step.D[drive.group], trace)
            total[name] = total[name] + read_out(step.L[drive.group], trace)
            trace = trace + np.einsum("an,n...->an...", drive.f, drive.dy)
    return total


def es_d_rtrl(steps: Sequence[Step], decay: float) -> dict[str, Array]:
    """eps_x <- a eps_x + x and eps_f <- a D eps_f + (1 - a) f; what no trace holds is exact."""
    total = without_trace(steps)
    for name, first in steps[0].drives.items():
        eps_f, eps_x = np.zeros_like(first.f), np.zeros_like(first.dy)
        for step in steps:
            drive = step.drives[name]
            signal, past = step.L[drive.group], step.past(drive.group)
            total[name] = total[name] + by_matrix(np.einsum("an,an->n", past, eps_f), eps_x)
            eps_f = decay * np.einsum("abn,bn->an", step.D[drive.group], eps_f) + (1 - decay) * drive.f
            eps_x = decay * eps_x + drive.dy
            total[name] = total[name] + by_matrix(np.einsum("an,an->n", signal, eps_f), eps_x)
            if drive.past is not None:
                total[name] = total[name] + by_matrix(drive.past, drive.dy)
    return total


def ottt(steps: Sequence[Step], decay: float) -> dict[str, Array]:
    """x^_t = decay x^_{t-1} + x_t, times dl_t/dy_t."""
    total = without_trace(steps)
    for name, first in steps[0].drives.items():
        trace = np.zeros_like(first.dy)
        for step in steps:
            drive = step.drives[name]
            trace = decay * trace + drive.dy
            total[name] = total[name] + by_matrix(drive.result_gradient(step.L[drive.group]), trace)
    return total


# The models -------------------------------------------------------------------------------------------------------


def heaviside(v: Array) -> Array:
    return np.where(v >= 0, 1.0, 0.0)


def surrogate(v: Array) -> Array:
    """The derivative that the models' spike declares."""
    return 1.0 / (1.0 + 2.0 * np.abs(v)) ** 2


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def of_matrix(x: Array, n: int) -> Array:
    """dy/dw of ``y = x @ w``: ``[n, inputs, n]``."""
    return np.einsum("i,nj->nij", x, np.eye(n))


def of_vector(slope: Array) -> Array:
    """dy/dw where every y has an element of w for itself: ``[n, n]``."""
    return np.diag(slope)


def weights(seed: int, scale: float = 0.8, **shapes: tuple[int, ...]) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0.0, scale, shape) for name, shape in shapes.items()}


def inputs(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).uniform(0.0, 2.0, (T, *shape))


def on_device(params: Params) -> dict[str, Any]:
    return {name: jnp.asarray(value) for name, value in params.items()}


def model_of(step: Callable[..., Any], params: Params, **state: tuple[int, ...]) -> Any:
    return ranvier.step_function(step, on_device(params), {name: jnp.zeros(shape) for name, shape in state.items()})


@case
def lif_with_synapse() -> Case:
    """Exponential synapse, recurrent spikes of the old potential, a leaky readout: groups of two states and of one."""
    n, p, xs = 5, weights(0, w=(3, 5), u=(5, 5), w_out=(5, 2)), inputs(1, 3)

    def step(p: Any, s: Any, x: Any) -> Any:
        z = spike(s["v"] - 1.0)
        g = 0.7 * s["g"] + x @ p["w"] + z @ p["u"]
        v = 0.8 * s["v"] + 0.6 * g - z
        r = 0.9 * s["r"] + spike(v - 1.0) @ p["w_out"]
        return {"g": g, "v": v, "r": r}, r

    def derive() -> Iterator[Step]:
        g, v, r = np.zeros(n), np.zeros(n), np.zeros(2)
        for x, phase in zip(xs, np.asarray(phases())):
            v_old, z_old = v, heaviside(v - 1.0)
            g = 0.7 * g + x @ p["w"] + z_old @ p["u"]
            v = 0.8 * v + 0.6 * g - z_old
            z = heaviside(v - 1.0)
            r = 0.9 * r + z @ p["w_out"]
            by_r = loss_slope(r, phase)
            by_v = surrogate(v - 1.0) * (p["w_out"] @ by_r)
            one, zero = np.ones(n), np.zeros(n)
            D = np.array([[0.7 * one, zero], [0.6 * 0.7 * one, 0.8 - surrogate(v_old - 1.0)]])
            f = np.array([one, 0.6 * one])
            yield Step(
                D={"gv": D, "r": np.full((1, 1, 2), 0.9)},
                L={"gv": np.array([zero, by_v]), "r": by_r[None]},
                drives={
                    "w": Drive("gv", f, of_matrix(x, n)),
                    "u": Drive("gv", f, of_matrix(z_old, n)),
                    "w_out": Drive("r", np.ones((1, 2)), of_matrix(z, 2)),
                },
                same={
                    "w": np.outer(x, 0.6 * by_v),
                    "u": np.outer(z_old, 0.6 * by_v),
                    "w_out": np.outer(z, by_r),
                },
                spikes=z,
            )

    return Case(model_of(step, p, g=(n,), v=(n,), r=(2,)), xs, derive)


@case
def alif_recurrent() -> Case:
    """Potential, adaptation and spike are states; a bias, recurrent weights and a readout of the spikes."""
    n, beta, p, xs = 5, 0.4, weights(2, w=(3, 5), u=(5, 5), b=(5,), w_out=(5, 2)), inputs(3, 3)

    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.8 * s["v"] + x @ p["w"] + s["z"] @ p["u"] + p["b"] - s["z"]
        a = 0.9 * s["a"] + s["z"]
        z = spike(v - 1.0 - beta * a)
        return {"v": v, "a": a, "z": z}, z @ p["w_out"]

    def derive() -> Iterator[Step]:
        v, a, z = np.zeros(n), np.zeros(n), np.zeros(n)
        for x, phase in zip(xs, np.asarray(phases())):
            z_old = z
            v = 0.8 * v + x @ p["w"] + z_old @ p["u"] + p["b"] - z_old
            a = 0.9 * a + z_old
            z = heaviside(v - 1.0 - beta * a)
            slope = surrogate(v - 1.0 - beta * a)
            by_out = loss_slope(z @ p["w_out"], phase)
            by_z = p["w_out"] @ by_out
            one, zero = np.ones(n), np.zeros(n)
            to_v = np.array([0.8 * one, zero, -one])
            to_a = np.array([zero, 0.9 * one, one])
            f = np.array([one, zero, slope])
            yield Step(
                D={"vaz": np.array([to_v, to_a, slope * (to_v - beta * to_a)])},
                L={"vaz": np.array([zero, zero, by_z])},
                drives={
                    "w": Drive("vaz", f, of_matrix(x, n)),
                    "u": Drive("vaz", f, of_matrix(z_old, n)),
                    "b": Drive("vaz", f, of_vector(one)),
                },
                same={
                    "w": np.outer(x, slope * by_z),
                    "u": np.outer(z_old, slope * by_z),
                    "b": slope * by_z,
                    "w_out": np.outer(z, by_out),
                },
                spikes=z,
            )

    return Case(model_of(step, p, v=(n,), a=(n,), z=(n,)), xs, derive)


def zoo_case(name: str, seed: int) -> tuple[Any, Params, Array]:
    model, (x,) = MODELS[name].build(jnp.float64)
    return model, {key: np.asarray(value) for key, value in model.params.items()}, inputs(seed, *x.shape)


@case
def gru() -> Case:
    """The reset gate reaches the state through the candidate's product alone, so its weights carry no trace."""
    model, p, xs = zoo_case("gru", 4)
    n = p["b_z"].size

    def derive() -> Iterator[Step]:
        h = np.zeros(n)
        for x, phase in zip(xs, np.asarray(phases())):
            h_old, xh = h, np.concatenate([x, h])
            z, r = sigmoid(xh @ p["w_z"] + p["b_z"]), sigmoid(xh @ p["w_r"] + p["b_r"])
            xrh = np.concatenate([x, r * h_old])
            c = np.tanh(xrh @ p["w_n"] + p["b_n"])
            h = (1 - z) * h_old + z * c
            by_h = loss_slope(h, phase)
            f_z, f_n = z * (1 - z) * (c - h_old), z * (1 - c**2)
            by_r = (p["w_n"] @ (by_h * f_n))[x.size :] * h_old * r * (1 - r)
            yield Step(
                D={"h": (1 - z)[None, None]},
                L={"h": by_h[None]},
                drives={
                    "w_z": Drive("h", f_z[None], of_matrix(xh, n)),
                    "b_z": Drive("h", f_z[None], of_vector(np.ones(n))),
                    "w_n": Drive("h", f_n[None], of_matrix(xrh, n)),
                    "b_n": Drive("h", f_n[None], of_vector(np.ones(n))),
                },
                same={
                    "w_z": np.outer(xh, by_h * f_z),
                    "b_z": by_h * f_z,
                    "w_n": np.outer(xrh, by_h * f_n),
                    "b_n": by_h * f_n,
                    "w_r": np.outer(xh, by_r),
                    "b_r": by_r,
                },
            )

    return Case(model, xs, derive)


@case
def gru_reset_after() -> Case:
    """The reset gate multiplies the recurrent product, so its weights carry a trace."""
    model, p, xs = zoo_case("gru_reset_after", 5)
    n = p["b_z"].size

    def derive() -> Iterator[Step]:
        h = np.zeros(n)
        for x, phase in zip(xs, np.asarray(phases())):
            h_old, xh = h, np.concatenate([x, h])
            z, r = sigmoid(xh @ p["w_z"] + p["b_z"]), sigmoid(xh @ p["w_r"] + p["b_r"])
            recurrent = h_old @ p["u_n"]
            c = np.tanh(x @ p["w_n"] + p["b_n"] + r * recurrent)
            h = (1 - z) * h_old + z * c
            by_h = loss_slope(h, phase)
            f = {
                "z": z * (1 - z) * (c - h_old),
                "r": z * (1 - c**2) * recurrent * r * (1 - r),
                "n": z * (1 - c**2),
                "u": z * (1 - c**2) * r,
            }
            parts = {"w_z": ("z", xh), "w_r": ("r", xh), "w_n": ("n", x), "u_n": ("u", h_old)}
            drives = {name: Drive("h", f[k][None], of_matrix(pre, n)) for name, (k, pre) in parts.items()}
            drives |= {f"b_{k}": Drive("h", f[k][None], of_vector(np.ones(n))) for k in "zrn"}
            same = {name: np.outer(pre, by_h * f[k]) for name, (k, pre) in parts.items()}
            same |= {f"b_{k}": by_h * f[k] for k in "zrn"}
            yield Step(D={"h": (1 - z)[None, None]}, L={"h": by_h[None]}, drives=drives, same=same)

    return Case(model, xs, derive)


@case
def trainable_neurons() -> Case:
    """Time constants, thresholds and the adaptation's decay are parameters, one for every neuron."""
    n, beta, xs = 5, 0.3, inputs(7, 3)
    p = weights(6, w=(3, 5), tau_log=(5,), theta=(5,), rho=(5,), w_out=(5, 2))
    p |= {"theta": 0.8 + 0.2 * np.abs(p["theta"]), "tau_log": 1.0 + np.abs(p["tau_log"])}

    def step(p: Any, s: Any, x: Any) -> Any:
        z = spike(s["v"] - p["theta"] - beta * s["a"])
        v = jnp.exp(-jnp.exp(-p["tau_log"])) * s["v"] + x @ p["w"] - p["theta"] * z
        a = 1 / (1 + jnp.exp(-p["rho"])) * s["a"] + z
        return {"v": v, "a": a}, spike(v - p["theta"] - beta * a) @ p["w_out"]

    def derive() -> Iterator[Step]:
        v, a = np.zeros(n), np.zeros(n)
        theta, alpha, rho = p["theta"], np.exp(-np.exp(-p["tau_log"])), sigmoid(p["rho"])
        for x, phase in zip(xs, np.asarray(phases())):
            v_old, a_old = v, a
            z_old = heaviside(v - theta - beta * a)
            s_old = surrogate(v - theta - beta * a)
            v = alpha * v + x @ p["w"] - theta * z_old
            a = rho * a + z_old
            z, s = heaviside(v - theta - beta * a), surrogate(v - theta - beta * a)
            by_out = loss_slope(z @ p["w_out"], phase)
            by_z = p["w_out"] @ by_out
            by_v, by_a = s * by_z, -beta * s * by_z
            one, zero = np.ones(n), np.zeros(n)
            of_threshold = np.array([theta * s_old - z_old, -s_old])
            yield Step(
                D={"va": np.array([[alpha - theta * s_old, beta * theta * s_old], [s_old, rho - beta * s_old]])},
                L={"va": np.array([by_v, by_a])},
                drives={
                    "w": Drive("va", np.array([one, zero]), of_matrix(x, n)),
                    "tau_log": Drive("va", np.array([v_old, zero]), of_vector(alpha * np.exp(-p["tau_log"]))),
                    "theta": Drive("va", of_threshold, of_vector(one), past=-s * by_z),
                    "rho": Drive("va", np.array([zero, a_old]), of_vector(rho * (1 - rho))),
                },
                same={
                    "w": np.outer(x, by_v),
                    "tau_log": by_v * v_old * alpha * np.exp(-p["tau_log"]),
                    "theta": by_v * of_threshold[0] + by_a * of_threshold[1] - s * by_z,
                    "rho": by_a * a_old * rho * (1 - rho),
                    "w_out": np.outer(z, by_out),
                },
                spikes=z,
            )

    return Case(model_of(step, p, v=(n,), a=(n,)), xs, derive)


@case
def convolutional_lif() -> Case:
    """Six positions, two channels; every weight of the kernel has a trace at every neuron."""
    p, xs = weights(8, kernel=(3, 1, 2), w_out=(12, 2)), inputs(9, 6, 1)
    p["kernel"] = 0.6 * np.abs(p["kernel"])
    conv = {"window_strides": (1,), "padding": "SAME", "dimension_numbers": ("NWC", "WIO", "NWC")}

    def step(p: Any, s: Any, x: Any) -> Any:
        y = jax.lax.conv_general_dilated(x[None], p["kernel"], **conv)[0]
        v = 0.8 * s["v"] + y - spike(s["v"] - 1.0)
        return {"v": v}, spike(v - 1.0).reshape(-1) @ p["w_out"]

    def derive() -> Iterator[Step]:
        v = np.zeros((6, 2))
        for x, phase in zip(xs, np.asarray(phases())):
            dy = np.zeros((6, 2, 3, 1, 2))
            for position in range(6):
                for k in range(3):
                    if 0 <= position + k - 1 < 6:
                        for channel in range(2):
                            dy[position, channel, k, 0, channel] = x[position + k - 1, 0]
            slope = surrogate(v - 1.0)
            v = 0.8 * v + np.einsum("pckio,kio->pc", dy, p["kernel"]) - heaviside(v - 1.0)
            z = heaviside(v - 1.0)
            by_out = loss_slope(z.reshape(-1) @ p["w_out"], phase)
            by_v = surrogate(v - 1.0).reshape(-1) * (p["w_out"] @ by_out)
            dy = dy.reshape(12, 3, 1, 2)
            yield Step(
                D={"v": (0.8 - slope).reshape(1, 1, 12)},
                L={"v": by_v[None]},
                drives={"kernel": Drive("v", np.ones((1, 12)), dy)},
                same={"kernel": np.einsum("n,nkio->kio", by_v, dy), "w_out": np.outer(z.reshape(-1), by_out)},
                spikes=z,
            )

    return Case(model_of(step, p, v=(6, 2)), xs, derive)


@case
def two_layers() -> Case:
    """The signal of the first layer comes through the second layer's step."""
    n, m, p, xs = 5, 4, weights(20, scale=1.2, w1=(3, 5), u1=(5, 5), w2=(5, 4), w_out=(4, 2)), inputs(11, 3)

    def step(p: Any, s: Any, x: Any) -> Any:
        z1, z2 = spike(s["v1"] - 1.0), spike(s["v2"] - 1.0)
        v1 = 0.8 * s["v1"] + x @ p["w1"] + z1 @ p["u1"] - z1
        v2 = 0.9 * s["v2"] + spike(v1 - 1.0) @ p["w2"] - z2
        return {"v1": v1, "v2": v2}, jnp.tanh(v2) @ p["w_out"]

    def derive() -> Iterator[Step]:
        v1, v2 = np.zeros(n), np.zeros(m)
        for x, phase in zip(xs, np.asarray(phases())):
            z1_old, s1_old, s2_old = heaviside(v1 - 1.0), surrogate(v1 - 1.0), surrogate(v2 - 1.0)
            v1 = 0.8 * v1 + x @ p["w1"] + z1_old @ p["u1"] - z1_old
            z1 = heaviside(v1 - 1.0)
            v2 = 0.9 * v2 + z1 @ p["w2"] - heaviside(v2 - 1.0)
            by_out = loss_slope(np.tanh(v2) @ p["w_out"], phase)
            by_v2 = (1 - np.tanh(v2) ** 2) * (p["w_out"] @ by_out)
            by_v1 = surrogate(v1 - 1.0) * (p["w2"] @ by_v2)
            yield Step(
                D={"v1": (0.8 - s1_old)[None, None], "v2": (0.9 - s2_old)[None, None]},
                L={"v1": by_v1[None], "v2": by_v2[None]},
                drives={
                    "w1": Drive("v1", np.ones((1, n)), of_matrix(x, n)),
                    "u1": Drive("v1", np.ones((1, n)), of_matrix(z1_old, n)),
                    "w2": Drive("v2", np.ones((1, m)), of_matrix(z1, m)),
                },
                same={
                    "w1": np.outer(x, by_v1),
                    "u1": np.outer(z1_old, by_v1),
                    "w2": np.outer(z1, by_v2),
                    "w_out": np.outer(np.tanh(v2), by_out),
                },
                spikes=np.concatenate([z1, heaviside(v2 - 1.0)]),
            )

    return Case(model_of(step, p, v1=(n,), v2=(m,)), xs, derive)


PRE = np.array([0, 0, 1, 2, 2, 3, 4, 4, 1])
POST = np.array([1, 3, 0, 4, 1, 2, 0, 3, 4])


def _sparse_recurrent(recurrent: Callable[[Any, Any], Any]) -> Case:
    """Nine recurrent connections among five neurons."""
    n, p, xs = 5, weights(12, w=(3, 5), u=(9,), w_out=(5, 2)), inputs(13, 3)

    def step(p: Any, s: Any, x: Any) -> Any:
        z = spike(s["v"] - 1.0)
        v = 0.8 * s["v"] + x @ p["w"] + recurrent(p["u"], z) - z
        return {"v": v}, jnp.tanh(v) @ p["w_out"]

    def derive() -> Iterator[Step]:
        v = np.zeros(n)
        for x, phase in zip(xs, np.asarray(phases())):
            z_old, slope = heaviside(v - 1.0), surrogate(v - 1.0)
            current, dy = np.zeros(n), np.zeros((n, PRE.size))
            for k, (i, j) in enumerate(zip(PRE, POST)):
                current[j] += z_old[i] * p["u"][k]
                dy[j, k] = z_old[i]
            v = 0.8 * v + x @ p["w"] + current - z_old
            by_out = loss_slope(np.tanh(v) @ p["w_out"], phase)
            by_v = (1 - np.tanh(v) ** 2) * (p["w_out"] @ by_out)
            yield Step(
                D={"v": (0.8 - slope)[None, None]},
                L={"v": by_v[None]},
                drives={
                    "w": Drive("v", np.ones((1, n)), of_matrix(x, n)),
                    "u": Drive("v", np.ones((1, n)), dy),
                },
                same={"w": np.outer(x, by_v), "u": by_v @ dy, "w_out": np.outer(np.tanh(v), by_out)},
                spikes=heaviside(v - 1.0),
            )

    return Case(model_of(step, p, v=(n,)), xs, derive)


@case
def sparse_by_index() -> Case:
    """Connections as a gather, a product and a scatter."""
    return _sparse_recurrent(lambda u, z: jnp.zeros(5).at[POST].add(z[PRE] * u))


@case
def sparse_by_matrix() -> Case:
    """Connections as a sparse matrix of jax."""
    indices = jnp.asarray(np.stack([POST, PRE], axis=1))
    return _sparse_recurrent(lambda u, z: sparse.BCOO((u, indices), shape=(5, 5)) @ z)


@case
def token_embedding() -> Case:
    """The input is a token, which picks a row of a table."""
    n, p = 5, weights(14, scale=1.0, table=(3, 5), w_out=(5, 2))
    xs = np.random.default_rng(15).integers(0, 3, T).astype(np.int32)

    def step(p: Any, s: Any, token: Any) -> Any:
        v = 0.8 * s["v"] + p["table"][token] - spike(s["v"] - 1.0)
        return {"v": v}, jnp.tanh(v) @ p["w_out"]

    def derive() -> Iterator[Step]:
        v = np.zeros(n)
        for token, phase in zip(xs, np.asarray(phases())):
            slope = surrogate(v - 1.0)
            v = 0.8 * v + p["table"][token] - heaviside(v - 1.0)
            by_out = loss_slope(np.tanh(v) @ p["w_out"], phase)
            by_v = (1 - np.tanh(v) ** 2) * (p["w_out"] @ by_out)
            row = np.eye(3)[token]
            yield Step(
                D={"v": (0.8 - slope)[None, None]},
                L={"v": by_v[None]},
                drives={"table": Drive("v", np.ones((1, n)), of_matrix(row, n))},
                same={"table": np.outer(row, by_v), "w_out": np.outer(np.tanh(v), by_out)},
                spikes=heaviside(v - 1.0),
            )

    return Case(model_of(step, p, v=(n,)), xs, derive)


@case
def spike_before_reset() -> Case:
    """The output is the spike of the potential before its reset, so the old state reaches the loss past the new one."""
    n, p, xs = 5, weights(16, w=(3, 5), w_out=(5, 2)), inputs(17, 3)

    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.8 * s["v"] + x @ p["w"]
        z = spike(v - 1.0)
        return {"v": v - z}, z @ p["w_out"]

    def derive() -> Iterator[Step]:
        v = np.zeros(n)
        for x, phase in zip(xs, np.asarray(phases())):
            v = 0.8 * v + x @ p["w"]
            z, slope = heaviside(v - 1.0), surrogate(v - 1.0)
            v = v - z
            by_out = loss_slope(z @ p["w_out"], phase)
            by_current = slope * (p["w_out"] @ by_out)
            yield Step(
                D={"v": (0.8 * (1 - slope))[None, None]},
                L={"v": np.zeros((1, n))},
                R={"v": (0.8 * by_current)[None]},
                drives={"w": Drive("v", (1 - slope)[None], of_matrix(x, n), past=by_current)},
                same={"w": np.outer(x, by_current), "w_out": np.outer(z, by_out)},
                spikes=z,
            )

    return Case(model_of(step, p, v=(n,)), xs, derive)


@case
def leaky_integrators() -> Case:
    """Potentials without spikes: D is one constant, in one layer."""
    n, p, xs = 5, weights(18, w=(3, 5), w_out=(5, 2)), inputs(19, 3)

    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.8 * s["v"] + x @ p["w"]
        return {"v": v}, jnp.tanh(v) @ p["w_out"]

    def derive() -> Iterator[Step]:
        v = np.zeros(n)
        for x, phase in zip(xs, np.asarray(phases())):
            v = 0.8 * v + x @ p["w"]
            by_out = loss_slope(np.tanh(v) @ p["w_out"], phase)
            by_v = (1 - np.tanh(v) ** 2) * (p["w_out"] @ by_out)
            yield Step(
                D={"v": np.full((1, 1, n), 0.8)},
                L={"v": by_v[None]},
                drives={"w": Drive("v", np.ones((1, n)), of_matrix(x, n))},
                same={"w": np.outer(x, by_v), "w_out": np.outer(np.tanh(v), by_out)},
            )

    return Case(model_of(step, p, v=(n,)), xs, derive)
