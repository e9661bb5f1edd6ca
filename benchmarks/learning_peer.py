# pyright: reportAttributeAccessIssue=false, reportFunctionMemberAccess=false, reportCallIssue=false
# pyright: reportArgumentType=false
# The annotations of brainstate's and braintrace's wrappers leave attributes and defaults out.
"""Gradients of a recurrent network by braintrace's online rules, and by brainstate's backpropagation through time."""

from __future__ import annotations

from typing import Any

import brainstate
import braintrace
import jax

from .compiled import Compiled, Program, array_bytes, compile_program
from .peer import with_own_layers
from .recurrent import Size, Variant, make_data, make_network, step_loss


def d_rtrl(variant: Variant, size: Size, window: int | None = None, mapped: bool = False) -> Compiled:
    """D-RTRL: one trace update and one gradient per step, or per window of steps.

    A window needs ``vjp_method="multi-step"``. It backpropagates inside the window and takes the trace at its start,
    so its gradient is another one than per step.

    Args:
        variant: kind of network.
        size: its size.
        window: steps of a window; None for single steps.
        mapped: whether samples are mapped over (``vmap=True``), in place of states with a batch axis.
    """
    return _online(variant, size, braintrace.D_RTRL, window, vmap=mapped)


def es_d_rtrl(variant: Variant, size: Size, decay: float) -> Compiled:
    """ES-D-RTRL (pp_prop) per step."""
    return _online(variant, size, braintrace.ES_D_RTRL, None, decay_or_rank=decay)


def bptt(variant: Variant, size: Size, *, cut: bool = False) -> Compiled:
    """Backpropagation through the loop over the steps; with ``cut`` not through recurrent spikes and the readout."""
    model = make_network(variant, size, cut=cut)

    def make() -> Program:
        brainstate.nn.init_all_states(model, batch_size=size.batch)
        weights = model.states(brainstate.ParamState)

        def gradients(xs: jax.Array, ys: jax.Array) -> Any:
            def loss() -> jax.Array:
                return brainstate.transform.for_loop(lambda x, y: step_loss(model(x), y), xs, ys).sum()

            return brainstate.transform.grad(loss, weights)()

        return _stateless(gradients, *make_data(size))

    return compile_program(make)


def _online(variant: Variant, size: Size, rule: Any, window: int | None, **options: Any) -> Compiled:
    model = with_own_layers(make_network(variant, size))
    method = "single-step" if window is None else "multi-step"

    def make() -> Program:
        xs, ys = make_data(size)
        learner = braintrace.compile(model, rule, xs[0], batch_size=size.batch, vjp_method=method, **options)

        def losses(x: Any, y: Any) -> jax.Array:
            if window is None:
                return step_loss(learner(x), y)
            return jax.vmap(step_loss)(learner(braintrace.MultiStepData(x)), y)

        def gradients(xs: jax.Array, ys: jax.Array) -> Any:
            return learner.etrace_grad(xs, ys, step_fn=losses, chunk_size=window, reduction="sum")

        return _stateless(gradients, xs, ys, trace_bytes=_trace_bytes(learner) if window is None else 0)

    return compile_program(make)


def _trace_bytes(learner: Any) -> int:
    """Bytes of a learner's eligibility traces: full ones, or those of inputs and outputs."""
    found = getattr(learner, "module", learner)
    names = ("etrace_bwg", "etrace_xs", "etrace_dfs")
    return array_bytes([state.value for name in names for state in getattr(found, name, {}).values()])


def _stateless(function: Any, *args: Any, trace_bytes: int = 0) -> Program:
    """brainstate's jitted function as one of its states' values, so that every run starts from the same."""
    jitted = brainstate.transform.jit(function)
    trace = jitted.stateful_fun.get_state_trace(*args, compile_if_miss=True)
    return Program(jitted.jitted_fun, (trace.get_state_values(), *args), trace_bytes)
