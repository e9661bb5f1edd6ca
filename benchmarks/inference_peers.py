"""The networks of the benchmark of inference in brainstate, snnTorch, Norse and SpikingJelly.

Neurons are leaky integrators with a reset to zero, ``v + 0.05 (I - v)``, as each library writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .inference_networks import DT, GAIN, TAU, Case

Run = Callable[[], np.ndarray]
"""A sequence run once: the outputs ``[T, samples, ...]``."""


def brainstate_loop(case: Case, inputs: np.ndarray) -> Run:
    """A brainstate module in ``brainstate.transform.for_loop``, jitted."""
    import brainstate
    import jax
    import jax.numpy as jnp

    samples = inputs.shape[1]

    class Lif(brainstate.nn.Module):
        def __init__(self, *shape: int, spiking: bool = True) -> None:
            super().__init__()
            self.shape, self.spiking = shape, spiking
            self.v = brainstate.HiddenState(jnp.zeros((samples, *shape)))

        def update(self, current: Any) -> Any:
            v = self.v.value + GAIN * (current - self.v.value)
            if not self.spiking:
                self.v.value = v
                return v
            z = (v > 1.0).astype(v.dtype)
            self.v.value = jnp.where(z == 1, 0.0, v)
            return z

    def conv(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID")

    def pool(x: Any) -> Any:
        return x.reshape(*x.shape[:2], x.shape[2] // 2, 2, -1, 2).sum((3, 5))

    def pooled(x: Any) -> Any:
        return pool(x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2])

    w = {name: brainstate.ParamState(jnp.asarray(value)) for name, value in case.weights.items()}

    class Network(brainstate.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = w
            if case.kind == "conv":
                self.a, self.b, self.o = Lif(12, 30, 30), Lif(32, 11, 11), Lif(10, spiking=False)
            elif case.kind == "sparse":
                self.h = Lif(8192)
            else:
                out, size = w["w2"].value.shape
                self.h, self.o = Lif(size), Lif(out, spiking=False)
            if "u" in w:
                self.z = brainstate.HiddenState(jnp.zeros((samples, w["u"].value.shape[0])))

        def update(self, x: Any) -> Any:
            if case.kind == "conv":
                z = pooled(self.a(conv(x, w["k1"].value)))
                z = pooled(self.b(conv(z, w["k2"].value)))
                return self.o(z.reshape(samples, -1) @ w["w"].value.T)
            current = x if case.kind == "sparse" else x @ w["w1"].value.T
            if "u" in w:
                current = current + self.z.value @ w["u"].value.T
            z = self.h(current)
            if "u" in w:
                self.z.value = z
            return z if case.kind == "sparse" else self.o(z @ w["w2"].value.T)

    network = Network()
    xs = jnp.asarray(inputs)

    @brainstate.transform.jit
    def run(xs: Any) -> Any:
        for state in network.states(brainstate.HiddenState).values():
            state.value = jnp.zeros_like(state.value)
        return brainstate.transform.for_loop(network.update, xs)

    return lambda: np.asarray(run(xs))


def snntorch_loop(case: Case, inputs: np.ndarray) -> Run:
    """snnTorch's ``Leaky`` in the loop over time of its tutorials; its input is not scaled, so weights are."""
    import snntorch
    import torch
    from torch.nn import functional

    xs = torch.tensor(inputs)
    w = {name: torch.tensor(value) for name, value in case.weights.items()}

    def leaky(spiking: bool = True) -> Any:
        threshold = 1.0 if spiking else 1e9
        return snntorch.Leaky(beta=1 - GAIN, threshold=threshold, reset_mechanism="zero", reset_delay=False)

    def run() -> np.ndarray:
        layers = [leaky(), leaky(), leaky(spiking=False)]
        mem = [layer.init_leaky() for layer in layers]
        previous, found = None, []
        with torch.no_grad():
            for x in xs:
                if case.kind == "conv":
                    z, mem[0] = layers[0](GAIN * functional.conv2d(x, w["k1"]), mem[0])
                    z, mem[1] = layers[1](GAIN * functional.conv2d(4 * functional.avg_pool2d(z, 2), w["k2"]), mem[1])
                    _, mem[2] = layers[2](GAIN * (4 * functional.avg_pool2d(z, 2)).flatten(1) @ w["w"].T, mem[2])
                    found.append(mem[2])
                    continue
                current = x if case.kind == "sparse" else x @ w["w1"].T
                if "u" in w and previous is not None:
                    current = current + previous @ w["u"].T
                previous, mem[0] = layers[0](GAIN * current, mem[0])
                if case.kind == "sparse":
                    found.append(previous)
                    continue
                _, mem[2] = layers[2](GAIN * previous @ w["w2"].T, mem[2])
                found.append(mem[2])
        return torch.stack(found).numpy()

    return run


def norse_loop(case: Case, inputs: np.ndarray) -> Run:
    """Norse's ``LIFBoxCell`` and ``LIBoxCell``."""
    import norse.torch as norse
    import torch
    from norse.torch.functional.leaky_integrator_box import LIBoxParameters
    from norse.torch.functional.lif_box import LIFBoxParameters
    from norse.torch.module.leaky_integrator_box import LIBoxCell
    from torch.nn import functional

    assert norse
    xs = torch.tensor(inputs)
    w = {name: torch.tensor(value) for name, value in case.weights.items()}
    spiking = LIFBoxParameters(tau_mem_inv=torch.tensor(1 / TAU))
    leaking = LIBoxParameters(tau_mem_inv=torch.tensor(1 / TAU))

    def run() -> np.ndarray:
        cells = [norse.LIFBoxCell(spiking, dt=DT), norse.LIFBoxCell(spiking, dt=DT), LIBoxCell(leaking, dt=DT)]
        state: list[Any] = [None, None, None]
        previous, found = None, []
        with torch.no_grad():
            for x in xs:
                if case.kind == "conv":
                    z, state[0] = cells[0](functional.conv2d(x, w["k1"]), state[0])
                    z, state[1] = cells[1](functional.conv2d(4 * functional.avg_pool2d(z, 2), w["k2"]), state[1])
                    y, state[2] = cells[2]((4 * functional.avg_pool2d(z, 2)).flatten(1) @ w["w"].T, state[2])
                    found.append(y)
                    continue
                current = x if case.kind == "sparse" else x @ w["w1"].T
                if "u" in w and previous is not None:
                    current = current + previous @ w["u"].T
                previous, state[0] = cells[0](current, state[0])
                if case.kind == "sparse":
                    found.append(previous)
                    continue
                y, state[2] = cells[2](previous @ w["w2"].T, state[2])
                found.append(y)
        return torch.stack(found).numpy()

    return run


def spikingjelly_steps(case: Case, inputs: np.ndarray) -> Run:
    """SpikingJelly layer by layer over all steps (``step_mode="m"``) where nothing feeds back, else step by step."""
    import torch
    from spikingjelly.activation_based import functional as whole
    from spikingjelly.activation_based import neuron
    from torch.nn import functional

    xs = torch.tensor(inputs)
    w = {name: torch.tensor(value) for name, value in case.weights.items()}
    loops = "u" in w

    def lif(spiking: bool = True) -> Any:
        mode, threshold = "s" if loops else "m", 1.0 if spiking else 1e9
        made = neuron.LIFNode(tau=1 / GAIN, v_threshold=threshold, v_reset=0.0, step_mode=mode)
        made.store_v_seq = not spiking and not loops
        return made.eval()

    layers = [lif(), lif(), lif(spiking=False)]

    def over_steps(function: Callable[[Any], Any], x: Any) -> Any:
        return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def forward() -> Any:
        if case.kind == "forward":
            layers[2](layers[0](xs @ w["w1"].T) @ w["w2"].T)
            return layers[2].v_seq
        z = layers[0](over_steps(lambda x: functional.conv2d(x, w["k1"]), xs))
        z = over_steps(lambda x: functional.conv2d(4 * functional.avg_pool2d(x, 2), w["k2"]), z)
        z = over_steps(lambda x: (4 * functional.avg_pool2d(x, 2)).flatten(1) @ w["w"].T, layers[1](z))
        layers[2](z)
        return layers[2].v_seq

    def looped() -> Any:
        previous, found = None, []
        for x in xs:
            current = x if case.kind == "sparse" else x @ w["w1"].T
            if previous is not None:
                current = current + previous @ w["u"].T
            previous = layers[0](current)
            if case.kind == "sparse":
                found.append(previous)
                continue
            layers[2](previous @ w["w2"].T)
            found.append(layers[2].v)
        return torch.stack(found)

    def run() -> np.ndarray:
        for layer in layers:
            whole.reset_net(layer)
        with torch.no_grad():
            return (looped() if loops else forward()).numpy()

    return run


PEERS = {
    "brainstate": brainstate_loop,
    "snnTorch": snntorch_loop,
    "Norse": norse_loop,
    "SpikingJelly": spikingjelly_steps,
}
