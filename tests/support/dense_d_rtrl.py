"""D-RTRL by its definition, with dense matrices.

D, f and dy/dw are Jacobians of the step with its mixing operations cut; L comes from the perturbed step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ranvier
from ranvier.program._jax import bind
from ranvier.program.interpret import evaluate
from ranvier.types import DiagnosticKind

from .learning import loss, observed, phases, steps_of
from .zoo import Relation, ZooModel, probing

MOVING = {DiagnosticKind.POSITIONS_MOVE, DiagnosticKind.STATE_BROADCAST}


Cut = Callable[[tuple, dict], tuple[jax.Array, Sequence[jax.Array]]]
"""From inputs and states: D ``[h, h]`` and, for every traced parameter, f dy/dw ``[h, elements of w]``."""


@dataclass(frozen=True)
class DenseDRTRL:
    """Traces ``[elements of the hidden state, elements of the parameter]``.

    Attributes:
        info: the program, one array per parameter.
        traced: path of the parameter of every trace.
        cut: the derivatives of the step with its mixing operations cut.
    """

    info: ranvier.ModuleInfo
    traced: Sequence[tuple]
    cut: Cut

    def gradients(self, xs: Any) -> tuple[dict, dict]:
        """The gradient and its same-step part."""
        params = {slot.path: slot.value for slot in self.info.parameters}
        size = sum(int(np.prod(slot.shape)) for slot in self.info.hidden)
        traces = [jnp.zeros((size, params[path].size)) for path in self.traced]
        start = ([s.value for s in self.info.hidden], [s.value for s in self.info.other], traces)
        given = (xs if isinstance(xs, tuple) else (xs,), phases(steps_of(xs)))
        _, (temporal, same) = jax.jit(lambda: jax.lax.scan(self._step, start, given))()
        same = {path: value.sum(0) for path, value in same.items()}
        total = dict(same)
        for path, found in zip(self.traced, temporal):
            total[path] = total[path] + found.sum(0).reshape(total[path].shape)
        return total, same

    @cached_property
    def _perturbation(self) -> ranvier.HiddenPerturbation:
        return ranvier.add_hidden_perturbation_from_minfo(self.info)

    def _step(self, carry: Any, given: Any) -> Any:
        hidden, other, traces = carry
        inputs, phase = given
        hidden_paths, other_paths = ([s.path for s in slots] for slots in (self.info.hidden, self.info.other))
        states = {"hidden": dict(zip(hidden_paths, hidden)), "other": dict(zip(other_paths, other))}

        def step_loss(params: Any) -> Any:
            output, new_hidden, new_other = self.info.step(*inputs, params=params, **states)
            return loss(output, phase), (new_hidden, new_other)

        params = {slot.path: slot.value for slot in self.info.parameters}
        same, (new_hidden, new_other) = jax.grad(step_loss, has_aux=True)(params)
        signals = self._perturbation.learning_signal(lambda output: loss(output, phase), *inputs, **states)
        signal, past = flat(signals[p] for p in hidden_paths), flat(self._past_new_states(inputs, phase, states))
        D, immediate = self.cut(inputs, states)
        temporal = [signal @ (D @ trace) + past @ trace for trace in traces]
        traces = [D @ trace + new for trace, new in zip(traces, immediate)]
        after = ([new_hidden[p] for p in hidden_paths], [new_other[p] for p in other_paths], traces)
        return after, (temporal, same)

    def _past_new_states(self, inputs: Any, phase: Any, states: Any) -> list[jax.Array]:
        """dl/dh of the old states with the new hidden states of their own group held fixed."""
        found = {}
        for group in ranvier.find_hidden_groups_from_minfo(self.info)[0]:
            signals = self._past(set(group.hidden_outvars), inputs, phase, states)
            found |= {path: signals[path] for path in group.hidden_paths}
        return [found[slot.path] for slot in self.info.hidden]

    def _past(self, fixed: set, inputs: Any, phase: Any, states: Any) -> dict:
        def apply(eqn: Any, operands: list[Any]) -> list[Any]:
            results = zip(eqn.outvars, bind(eqn, operands))
            return [jax.lax.stop_gradient(x) if var in fixed else x for var, x in results]

        def held(hidden: Any) -> Any:
            operands = self.info.flat_operands(*inputs, **states | {"hidden": hidden})
            results = evaluate(self.info.closed_jaxpr, operands, apply)
            outputs = results[: len(self.info.output_avals)]
            return loss(jax.tree.unflatten(self.info.output_treedef, outputs), phase)

        return jax.grad(held)(states["hidden"])


def matrix(jacobian: jax.Array, rows: int) -> jax.Array:
    return jacobian.reshape(rows, -1)


def flat(leaves: Iterable[jax.Array]) -> jax.Array:
    return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])


@dataclass(frozen=True)
class MarkedStep:
    """A step of the zoo whose marks cut its mixing operations (see :mod:`tests.support.zoo.model`)."""

    zoo_model: ZooModel
    model: ranvier.types.StepFunction
    info: ranvier.ModuleInfo

    @property
    def relations(self) -> list[Relation]:
        return [r for r in self.zoo_model.expected.relations if r.connected]

    @property
    def names(self) -> list[str]:
        return [name for (name,) in (slot.path for slot in self.info.hidden)]

    def path(self, r: Relation) -> tuple:
        return next(slot.path for slot in self.info.parameters if ".".join(map(str, slot.path)) == r.path)

    def cut(self, inputs: tuple, states: dict) -> tuple[jax.Array, list[jax.Array]]:
        old = {name: value for part in states.values() for (name,), value in part.items()}
        treedef = jax.tree.structure(self.model.params)
        probes = {r.probe: jnp.zeros(r.y) for r in self.relations}

        def step(hidden: Any, probes: Any, params: Any) -> Any:
            results: dict[str, Any] = {}
            with probing(probes, results):
                tree = jax.tree.unflatten(treedef, list(params.values()))
                new, _ = self.model.step(tree, old | hidden, *inputs)
            return {name: new[name] for name in self.names}, {r.probe: results[r.probe] for r in self.relations}

        hidden = {name: old[name] for name in self.names}
        params = {slot.path: slot.value for slot in self.info.parameters}
        new, marked = jax.jacrev(step, argnums=(0, 1, 2))(hidden, probes, params)
        D = jnp.block([[self._entry(a, b, new[a][0][b]) for b in self.names] for a in self.names])
        f = {p: jnp.concatenate([matrix(new[a][1][p], hidden[a].size) for a in self.names]) for p in probes}
        dy = [matrix(marked[r.probe][2][self.path(r)], probes[r.probe].size) for r in self.relations]
        return D, [f[r.probe] @ found for r, found in zip(self.relations, dy)]

    def _entry(self, a: str, b: str, jacobian: jax.Array) -> jax.Array:
        """D of two states; zero between groups, and by position alone where the model moves positions."""
        entry = matrix(jacobian, int(np.prod(self.info.slots[a,].shape)))
        if not any({a, b} <= group.paths for group in self.zoo_model.expected.groups):
            return jnp.zeros_like(entry)
        return jnp.diag(jnp.diag(entry)) if MOVING & set(self.zoo_model.expected.remarks.values()) else entry


def dense_d_rtrl(zoo_model: ZooModel, xs: Any) -> tuple[dict, dict]:
    """Gradient and same-step gradient of an observed zoo model in double precision."""
    model, inputs = zoo_model.build(jnp.float64)
    info = ranvier.extract_module_info(observed(model), *inputs)
    step = MarkedStep(zoo_model, model, info)
    return DenseDRTRL(info, [step.path(r) for r in step.relations], step.cut).gradients(xs)
