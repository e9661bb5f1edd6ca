"""The same-step part of a gradient, and the learning signals, for all steps of a chunk at once.

The hidden states before each step are held fixed. One reverse pass gives the exact same-step gradient of every
parameter, the learning signal L = dl/dh of every new hidden state (partial, see
:mod:`ranvier.program.analysis.perturbed_step`), and
the cotangent dl/dy of every traced projection, whose product with the data is left to the caller.

Where an output is computed from an old state without passing a new one (a spike taken before the reset, say), the old
state has a signal of its own, R = dl_t/dh_{t-1} with the new states of its own group held fixed: the temporal part of a
step is then ``L_t . (D_t e_{t-1}) + R_t . e_{t-1}``.

For example, ``v' = 0.5 v + y; y = w x`` with the loss v'^2, at w = 1, x = 2 and an old v of 4: v' is 4, L = dl/dv' = 8,
dl/dy = 8, and the same-step gradient of w is 8 * 2 = 16. What w did to the old v is the temporal part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import InputError, reason_text
from ...program._jax import Equation, Literal, Var, dtype_of, is_floating, shape_of
from ...program.analysis.cache import cached_by_program
from ...program.analysis.hidden_groups import analyse_groups
from ...program.analysis.perturbed_step import PerturbedStep
from ...program.analysis.reachability import reach_by_gradient
from ...program.derivatives import as_function
from ...program.interpret import Apply, Environment
from ...program.program import ModuleInfo
from ...program.while_loops import bind_both_ways
from ..step.schedule import is_costly
from ..step.stages import Stages, over_steps, stages_of
from ..uses.traced_uses import TracedUse, entering_variables

Loss = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class SameStep:
    """The results of one reverse pass over a chunk of K steps.

    Attributes:
        losses: ``[K]``, times the weights of the steps.
        outputs: the model's outputs, ``[K, ...]``.
        targets: the targets, ``[K, ...]``.
        weights: the weights of the steps, ``[K]``.
        errors: gives the cotangents of the floating-point output leaves, ``[K, ...]``.
        entering: static variable to its gradient; without the part that the traced uses' own equations contribute.
        signals: new hidden state (variable) to its learning signal ``[K, *state]``.
        bypasses: old hidden state to its signal past the new states, where it can have one.
        results: y of a traced use to its cotangent ``[K, *y]``.
    """

    losses: jax.Array
    outputs: Any
    targets: Any
    weights: jax.Array
    errors: Callable[[], list[jax.Array]]
    entering: dict[Var, jax.Array]
    signals: dict[Var, jax.Array]
    bypasses: dict[Var, jax.Array]
    results: dict[Var, jax.Array]


@dataclass(frozen=True, eq=False)
class SameStepPass:
    """A reverse pass that computes the same-step part of a program's gradient.

    Attributes:
        info: the program.
        uses: the traced uses, whose own weight gradient the caller takes.
    """

    info: ModuleInfo
    uses: tuple[TracedUse, ...]

    @cached_property
    def _stages(self) -> Stages:
        return stages_of(self.info)

    @cached_property
    def _step(self) -> PerturbedStep:
        return PerturbedStep(self.info, self.bypassing)

    @cached_property
    def bypassing(self) -> tuple[Var, ...]:
        return bypassing_states(self.info)

    @cached_property
    def _fixed_operands(self) -> dict[int, set[Var]]:
        """Static operands without a derivative, by ``id`` of the equation.

        The caller multiplies dl/dy by X for these, together with the temporal part: one product in place of two.
        """
        by_equation: dict[int, set[Var]] = {}
        for use in self.uses:
            for eqn in use.equations:
                by_equation.setdefault(id(eqn), set()).add(use.operand)
        return by_equation

    @cached_property
    def entering(self) -> tuple[Var, ...]:
        return entering_variables(self.info)

    @cached_property
    def results(self) -> tuple[Var, ...]:
        return tuple(dict.fromkeys(use.y for use in self.uses))

    @cached_property
    def _schedule(self) -> list[tuple[Equation, tuple[int, ...]]]:
        """The equations that derivatives can pass through, in the versions in which they do; all other values are
        known."""
        # What a derivative starts from: parameters, perturbed new states, perturbed results of projections.
        moving: set[Var] = {*self.entering, *self.info.hidden_outvars, *self.results}
        from_old: set[Var] = set(self.bypassing)
        changing = {id(e) for e in self._stages.changing}
        scheduled = []
        for eqn, runs in self._step.schedule:
            if id(eqn) not in changing:
                continue
            read = {a for a in eqn.invars if not isinstance(a, Literal)}
            # Everything else keeps its replayed value. Run once more under the derivative, the whole step would cost
            # twice.
            if read & moving or moving & set(eqn.outvars):
                moving.update(eqn.outvars)
                scheduled.append((eqn, runs))
            # What only an old state moves is run in the versions that see its perturbation: the group's own new states
            # do not, because D_t is for that, and R would count it again.
            elif read & from_old and (seeing := self._seeing(read & from_old, runs)):
                from_old.update(eqn.outvars)
                scheduled.append((eqn, seeing))
        return scheduled

    def _seeing(self, read: set[Var], runs: Sequence[int]) -> tuple[int, ...]:
        """The versions that see a perturbation of an old state."""
        mask = 0
        for var in read:
            mask |= self._step.upstream.get(var, 0) & self._step.old_mask
        return tuple(version for version in runs if mask & ~version)

    def __call__(
        self,
        loss: Loss,
        static: Environment,
        at_steps: Mapping[Var, Any],
        targets: Any,
        weights: jax.Array,
        apply: Apply = bind_both_ways,
    ) -> SameStep:
        """Runs the pass.

        Args:
            loss: ``loss(output, target) -> scalar``.
            static: values of static variables.
            at_steps: values of all changing variables, ``[K, ...]``, from :meth:`Stages.replay`.
            targets: pytree of targets ``[K, ...]``.
            weights: weight of each step's loss, ``[K]``.
            apply: how to apply equations, for rules with feedback weights of their own.
        """
        entering = {var: static[var] for var in self.entering}
        # The result of a projection can be a new state itself, whose signal is partial while that of y is not.
        # Zeros that are added to states and results: the gradients by them are L, R and dl/dy, all from one reverse
        # pass.
        states = (*self.info.hidden_outvars, *self.bypassing)
        zeros = [jnp.zeros((weights.shape[0], *shape_of(var)), dtype_of(var)) for var in (*states, *self.results)]

        def total(entering: list[Any], added: list[Any]) -> tuple[jax.Array, Any]:
            fixed = {**static, **dict(zip(self.entering, entering, strict=True))}

            def one(known: Any, plus: list[Any], target: Any, weight: Any) -> Any:
                by_state, by_result = plus[: len(states)], plus[len(states) :]
                perturbed = dict(zip(states, by_state, strict=True)), dict(zip(self.results, by_result, strict=True))
                output = self._output({**known, **fixed}, known, *perturbed, apply)
                return weight * scalar_loss(loss, output, target), output

            # The steps do not feel one another here, since old states are fixed: they run side by side, and a product
            # of the reverse pass takes all of them at once.
            losses, outputs = over_steps(one, at_steps, added, targets, weights)
            return losses.sum(), (losses, outputs)

        _, pull, (losses, outputs) = jax.vjp(total, list(entering.values()), zeros, has_aux=True)
        by_entering, by_added = pull(jnp.ones_like(losses.sum()))
        by_state = dict(zip(states, by_added[: len(states)], strict=True))
        return SameStep(
            losses=losses,
            outputs=outputs,
            targets=targets,
            weights=weights,
            errors=lambda: output_errors(loss, outputs, targets, weights),
            entering=dict(zip(entering, by_entering, strict=True)),
            signals={var: by_state[var] for var in self.info.hidden_outvars},
            bypasses={var: by_state[var] for var in self.bypassing},
            results=dict(zip(self.results, by_added[len(states) :], strict=True)),
        )

    def _output(
        self,
        values: Environment,
        known: Environment,
        by_state: Mapping[Var, Any],
        by_result: Mapping[Var, Any],
        apply: Apply,
    ) -> Any:
        def applied(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
            if fixed := self._fixed_operands.get(id(eqn)):
                operands = [
                    jax.lax.stop_gradient(x) if not isinstance(atom, Literal) and atom in fixed else x
                    for atom, x in zip(eqn.invars, operands, strict=True)
                ]
            # The forward pass recorded this product, so only its transpose is left to do.
            if is_costly(eqn) and all(var in known for var in eqn.outvars):
                return with_values([known[var] for var in eqn.outvars], eqn, operands, apply)
            return apply(eqn, operands)

        results = self._step.run(values, by_state, self._schedule, applied, by_result)
        leaves = [jnp.asarray(x) for x in results[: len(self.info.output_avals)]]
        return jax.tree.unflatten(self.info.output_treedef, leaves)


@cached_by_program
def bypassing_states(info: ModuleInfo) -> tuple[Var, ...]:
    """Old hidden states that act on outputs, or on new states of other groups, but not through their own new values."""
    reach = reach_by_gradient(info)
    group_of = {j: group for group in analyse_groups(info).groups for j in group.state_indices}
    return tuple(
        var
        for j, var in enumerate(info.hidden_invars)
        if reach.outputs(var) or any(group_of[k] is not group_of[j] for k in reach.hidden(var))
    )


def with_values(known: list[Any], eqn: Equation, operands: list[Any], apply: Apply = bind_both_ways) -> list[Any]:
    """The known results of an equation, with the equation's derivative; the equation itself is not run.

    The derivative is taken in reverse before steps are mapped: JAX cannot transpose a ``cond`` that is mapped over its
    predicate.
    """
    # Cotangents of integers are of no use, and a function that takes them cannot be transposed.
    moving = [k for k, x in enumerate(operands) if is_floating(jax.typeof(x).dtype)]

    def backward(operands: list[Any], cotangents: list[Any]) -> tuple[None, list[Any]]:
        function = as_function(eqn, operands, moving, apply)
        _, pull = jax.vjp(function, *(operands[k] for k in moving))
        by_operand = dict(zip(moving, pull(tuple(cotangents)), strict=True))
        return None, [by_operand.get(k) for k in range(len(operands))]

    function = jax.custom_vjp(lambda known, operands: known)
    function.defvjp(lambda known, operands: (known, operands), backward)
    return function(known, operands)


def output_errors(loss: Loss, outputs: Any, targets: Any, weights: jax.Array) -> list[jax.Array]:
    """Cotangents of the floating-point output leaves at all steps."""
    leaves, treedef = jax.tree.flatten(outputs)
    moving = [k for k, leaf in enumerate(leaves) if is_floating(leaf.dtype)]

    def one(values: list[Any], all_leaves: list[Any], target: Any, weight: Any) -> Any:
        output = list(all_leaves)
        for k, value in zip(moving, values, strict=True):
            output[k] = value
        return weight * scalar_loss(loss, jax.tree.unflatten(treedef, output), target)

    return jax.vmap(jax.grad(one))([leaves[k] for k in moving], leaves, targets, weights)


def scalar_loss(loss: Loss, output: Any, target: Any) -> jax.Array:
    """The loss of one step, checked to be one real number."""
    try:
        value = loss(output, target)
    except TypeError as error:
        if target is not None:
            raise
        raise InputError(
            f"the loss fails without targets ({reason_text(error)}); pass ys of shape [T, ...], or use another loss."
        ) from error
    leaves = jax.tree.leaves(value)
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    if len(arrays) != 1 or arrays[0].shape != () or not jnp.issubdtype(arrays[0].dtype, jnp.floating):
        results = ", ".join(f"{x.dtype}{list(x.shape)}" for x in arrays) or "nothing"
        raise InputError(
            f"loss(output, target) returned {results}, but must return one real number per step; reduce it over the "
            "batch and the outputs, as in `lambda y, target: ((y - target) ** 2).sum()`."
        )
    return leaves[0]
