"""A step function as a brainstate module."""

# An example: the parameters {"a": {"tau": ...}, "w": {"weight": ...}} and the state {"a": {"v": ...}} become the
# submodules a, with a.tau a ParamState and a.v a HiddenState, and w, with w.weight a ParamState.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import brainstate
import jax
import jax.numpy as jnp

from ..program._jax import is_floating
from .step_function import StepFunction

Module = brainstate.nn.Module


class _Entry(brainstate.nn.Module):
    """The parameters and states of one entry."""


class StepModule(brainstate.nn.Module):
    """A brainstate module that does what a step function does.

    Every entry of the step's parameters and states is a submodule of its name, with a ``ParamState`` for each
    parameter, a ``HiddenState`` for each real state and a ``ShortTermState`` for each other state; an entry that is a
    single parameter is a ``ParamState`` itself. States are initialized at first;
    ``brainstate.nn.init_all_states(module, batch_size=...)`` initializes them again, with a batch size for a batch.

    Attributes:
        run_step: the step function; its params and state are dictionaries of dictionaries, or of single parameters.
    """

    def __init__(self, step: StepFunction) -> None:
        super().__init__()
        self.run_step = step
        parts = {name: entries for name, entries in step.params.items() if isinstance(entries, Mapping)}
        for name in step.params.keys() - parts.keys():
            setattr(self, attribute(name), brainstate.ParamState(jnp.asarray(step.params[name])))
        for name in dict.fromkeys([*parts, *step.state]):
            part = _Entry()
            for key, value in parts.get(name, {}).items():
                setattr(part, attribute(key), brainstate.ParamState(jnp.asarray(value)))
            setattr(self, attribute(name), part)
        self.init_state()

    def init_state(self, batch_size: int | None = None, **_: Any) -> None:
        """Sets all states to their values before the first step."""
        for name, entries in self.run_step.state.items():
            for key, value in entries.items():
                array = jnp.asarray(value)
                array = array if batch_size is None else jnp.broadcast_to(array, (batch_size, *array.shape))
                kind = brainstate.HiddenState if is_floating(array.dtype) else brainstate.ShortTermState
                setattr(self._part(name), _state_name(self.run_step, name, key), kind(array))

    def reset_state(self, batch_size: int | None = None, **_: Any) -> None:
        self.init_state(batch_size)

    def update(self, *inputs: Any) -> Any:
        """Runs one time step, for one sample or, after ``init_all_states`` with a batch size, for a batch."""
        params = {
            n: {k: self._parameter(n, k) for k in e} if isinstance(e, Mapping) else self._part(n).value
            for n, e in self.run_step.params.items()
        }
        states = {n: {k: self._state_of(n, k) for k in e} for n, e in self.run_step.state.items()}
        values = jax.tree.map(lambda s: s.value, states, is_leaf=_is_state)
        run = self.run_step.step
        if self._is_batched(states):
            run = jax.vmap(run, in_axes=(None, 0, *(0 for _ in inputs)))
        new, output = run(params, values, *inputs)
        for name, entries in states.items():
            for key, state in entries.items():
                state.value = new[name][key]
        return output

    def _part(self, name: str) -> Any:
        return getattr(self, attribute(name))

    def _parameter(self, name: str, key: str) -> Any:
        return getattr(self._part(name), attribute(key)).value

    def _state_of(self, name: str, key: str) -> Any:
        return getattr(self._part(name), _state_name(self.run_step, name, key))

    def _is_batched(self, states: Any) -> bool:
        pairs = [
            (states[n][k].value, value) for n, entries in self.run_step.state.items() for k, value in entries.items()
        ]
        return any(jnp.ndim(now) > jnp.ndim(value) for now, value in pairs)


def attribute(name: str) -> str:
    """The name of an attribute, with an underscore if every module already has an attribute of that name."""
    return f"{name}_" if name in _TAKEN else name


def _state_name(step: StepFunction, name: str, key: str) -> str:
    """The name of a state's attribute, which differs from that of a parameter of the same entry."""
    return f"{key}_state" if key in step.params.get(name, {}) else attribute(key)


def _is_state(value: Any) -> bool:
    return isinstance(value, brainstate.State)


_TAKEN = frozenset(["run_step", *dir(brainstate.nn.Module)])
