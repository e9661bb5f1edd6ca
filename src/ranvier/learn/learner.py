"""The learner, which computes gradients of a model over sequences by a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax

from ..errors import InputError
from ..frontends.parameters import with_params
from ..program.interpret import Environment
from ..program.paths import Path
from ..program.program import ModuleInfo
from ..program.random import is_random
from ..program.remade import Recipe, Remade, check_pickles
from .assemble import AppliedRule, apply_rule
from .comparison.compare import RuleComparison, compared
from .kernel import Loss
from .linearization.same_step import scalar_loss
from .options import check_function
from .rule import Rule
from .sequences.data import SequenceForm
from .sequences.forward import first_not_finite, outputs_of
from .sequences.gradients import GradientFunction
from .sequences.parameters import parameter_leaves
from .sequences.states import check_state, initial_leaves, reseeded_leaves
from .state import Aux, Gradients, LearnerState
from .step.stages import stages_of
from .structure import Structure


class Learner(Remade):
    """A model compiled for learning; made by :func:`ranvier.compile`.

    Its methods are pure functions of pytrees and work inside ``jax.jit``, ``jax.vmap`` and ``jax.lax.scan``.

    Attributes:
        program: the model's program of one step, with the batch axis if there is one.
        info: the same as the rule rewrote it, with further hidden states, say.
        rule: the learning rule.
        plan: chunk, memory, and what is used and left out; print it.
        reduction: ``"sum"`` or ``"mean"`` over the steps' losses.
        batch_size: samples at once; None for the model as it is.
        comparison: what was measured to choose the rules, with ``rule="auto"``; else None.
    """

    def __init__(self, applied: AppliedRule, comparison: RuleComparison | None = None) -> None:
        self.model = applied.learnable.model
        self.program = applied.program
        self.info = applied.info
        self.rule = applied.rule
        self.plan = applied.plan
        self.reduction = applied.learnable.options.reduction
        self.batch_size = applied.batch_size
        self.comparison = comparison
        self._applied = applied
        self._kernel = applied.kernel
        self._structure = Structure(self.model, self.info)
        self._form = SequenceForm(self.info, self.batch_size, self.reduction)
        # The method rather than the object, of which jax.jit would write out all fields, every equation among them.
        # Static are the loss, whether the memory is empty, and whether it is wanted after the call: each makes a
        # program of its own, without the products that nobody needs.
        self._jitted = jax.jit(GradientFunction(applied.kernel, applied.plan).__call__, static_argnums=(0, 1, 2))
        # Compiled, or every call would run the static equations and make the traces one by one.
        self._empty_memory = jax.jit(lambda params, other: self._kernel.init(self._static(params, other)))

    def recipe(self) -> Recipe:
        function, arguments = self._applied.recipe
        check_pickles(arguments, f"the learner of {self.info.name}")
        return _learner_again, (self.comparison, function, *arguments)

    @property
    def params(self) -> dict[Path, Any]:
        """The parameters the model was compiled with, by path, each in the model's own form."""
        return {slot.path: slot.value for slot in self.info.parameters}

    def nested(self, values: Mapping[Path, Any]) -> Any:
        """Values by path, rearranged in the model's own structure, for example for optimizers that take trees of
        labels.

        ``params=`` takes both forms, and gradients come back in that of ``params``.

        Args:
            values: one for every path of :attr:`params`, such as these, gradients, or labels.

        Returns:
            A pytree like the ``params`` of the step function, with None in place of leaves that are not trained; of a
            module, dictionaries within each other by the parts of the paths.

        Raises:
            InputError: a parameter has no value, or a value no parameter.
        """
        return self._structure.nested(values)

    def by_path(self, params: Any) -> Any:
        """Values of parameters by path: the inverse of :meth:`nested`; values that are already by path stay as they
        are."""
        values = self._structure.by_path(params)
        return params if values is None else values

    def completed(self, params: Any) -> Any:
        """Values for all parameters, in the form of ``params``, with the model's own for those that it lacks."""
        values = {**self.params, **(self.by_path(params) or {})}
        return values if self._structure.by_path(params) is None else self.nested(values)

    def with_batch_size(self, batch_size: int | None) -> Learner:
        """The same learner for another batch size; the learner itself if it already has that size."""
        if batch_size == self.batch_size:
            return self
        return Learner(apply_rule(self._applied.learnable, self.rule, batch_size))

    def with_rule(self, rule: Rule, program: ModuleInfo | None = None) -> Learner:
        """A learner of the same model with another rule.

        Args:
            rule: the rule.
            program: a program to learn with in place of the model's own, of the same parameters, inputs and states.
        """
        # The same object, not one that is equal: analyses are cached by program.
        program = self.program if program is None else program
        return Learner(apply_rule(self._applied.learnable, rule, self.batch_size, program))

    def compare(
        self,
        loss: Loss,
        xs: Any,
        ys: Any = None,
        *,
        rules: Sequence[Rule] = (),
        reference: Rule | None = None,
        params: Mapping[Path, Any] | None = None,
        mask: Any = None,
    ) -> RuleComparison:
        """Measures the rule on a sample: each parameter's gradient against the exact one, memory, time, and the
        costliest of the paths that it leaves out.

        Args:
            loss: as for :meth:`grad`.
            xs: likewise; the sample should be short enough for ``reference``.
            ys: likewise.
            rules: further rules to try on the same sample.
            reference: the rule whose gradients count as exact: ``BPTT()``, which keeps the activations of all steps, or
                ``RTRL()`` for small networks.
            params: as for :meth:`grad`.
            mask: likewise.
        """
        return compared(self, (self.rule, *rules), loss, xs, ys, reference, params=self.by_path(params), mask=mask)

    def init(self, params: Mapping[Path, Any] | None = None) -> LearnerState:
        """The state before the first step: the model's initial states and an empty memory of the rule.

        Its arrays are the caller's own, so that they can be donated to a jitted function.
        """
        hidden, other = initial_leaves(self.info.hidden), initial_leaves(self.info.other)
        return LearnerState(hidden, other, self._empty_memory(self._param_leaves(params), other))

    def restart(self, params: Mapping[Path, Any] | None, lasting: Any, seed: Any) -> LearnerState | None:
        """The state before the next sequence of a training run; None if that is the state from :meth:`init`.

        Args:
            params: as for :meth:`init`.
            lasting: what outlives sequences, from :meth:`lasting_of`.
            seed: number of the sequence, so that noise differs from one to the next.
        """
        # None lets a caller pass ``state=None``, from which the compiled program knows that the memory is empty.
        if not self._kernel.outlives and not any(map(is_random, self.info.other)):
            return None
        start = self.init(params)
        other = reseeded_leaves(self.info, start, seed)
        return LearnerState(start.hidden, other, self._kernel.restarted(start.memory, lasting, seed))

    def lasting(self, params: Mapping[Path, Any] | None = None) -> Any:
        """What outlives a sequence, as it is before the first one."""
        return self.lasting_of(self.init(params))

    def lasting_of(self, state: LearnerState) -> Any:
        """What outlives a sequence, such as feedback weights; None for most rules."""
        return self._kernel.lasting(state.memory)

    def evaluate(
        self, loss: Loss, xs: Any, ys: Any = None, *, params: Mapping[Path, Any] | None = None, mask: Any = None
    ) -> tuple[jax.Array, Any]:
        """Loss and outputs of a sequence, without gradients; arguments as in :meth:`grad`.

        Returns:
            The loss, summed or averaged over the steps as ``reduction`` says, and the outputs, time-major.
        """
        check_loss(loss)
        sequence = self._form.sequence(xs, ys, mask)
        state = self.init(params)
        static = self._static(self._param_leaves(params), state.other)
        outputs, _ = outputs_of(self.info, static, sequence.inputs, state, sequence.length)
        # Losses of all steps at once: nothing leads from a loss back to the states.
        losses = jax.vmap(lambda output, target: scalar_loss(loss, output, target))(outputs, sequence.targets)
        return (sequence.weights * losses).sum(), outputs

    def first_bad_state(
        self, xs: Any, *, params: Mapping[Path, Any] | None = None, state: LearnerState | None = None
    ) -> tuple[Path, int] | None:
        """The first hidden state to become non-finite in a sequence, and the step at which it does; None if all stay
        finite.

        Args:
            xs: as for :meth:`grad`.
            params: likewise.
            state: what the sequence starts from; None starts anew.
        """
        sequence = self._form.sequence(xs, None, None)
        state = self.init(params) if state is None else self._checked_state(state)
        static = self._static(self._param_leaves(params), state.other)
        _, is_finite = outputs_of(self.info, static, sequence.inputs, state, sequence.length)
        return first_not_finite(self.info, is_finite)

    def grad(
        self,
        loss: Loss,
        xs: Any,
        ys: Any = None,
        *,
        state: LearnerState | None = None,
        params: Mapping[Path, Any] | None = None,
        mask: Any = None,
        keep_state: bool = True,
    ) -> tuple[Gradients, Aux]:
        """Gradient of the loss over a sequence, or over the next part of one.

        Args:
            loss: ``loss(output, target) -> scalar``; with a batch it gets the outputs of the whole batch. It is
                compiled once: what it reads from outside is what was there at its first call.
            xs: the model's input at every step, ``[T, ...]`` (a tuple where the model takes several).
            ys: targets, a pytree of ``[T, ...]``; None if the loss needs none.
            state: what to start from: :meth:`init`, or ``aux.state`` of the call before to go on. None starts anew,
                with the same random numbers every time where the model or the rule has any.
            params: values for some or all parameters, by path; the model's own for the rest. Or all of them in the
                model's own structure: see :meth:`nested`.
            mask: ``[T]``, weight of the loss at every step, zero where there is none; targets there may be NaN, but the
                loss itself has to be finite for the outputs there.
            keep_state: whether ``aux.state`` is wanted; without it the last traces need not be computed.

        Returns:
            The gradients by parameter path, each in the form of the parameter, or in the model's own structure where
            ``params`` has it; and :class:`Aux`.

        Raises:
            InputError: inputs, targets, mask, parameters or state do not fit the model.
        """
        check_loss(loss)
        sequence = self._form.sequence(xs, ys, mask)
        start = self.init(params) if state is None else self._checked_state(state)
        leaves = self._param_leaves(params)
        gradients, aux = self._jitted(loss, state is None, keep_state, sequence, start, leaves)
        return gradients if self._structure.by_path(params) is None else self.nested(gradients), aux

    def write_back(self, params: Mapping[Path, Any]) -> Any:
        """Writes parameters into the model; the learner keeps those it was compiled with, so keep passing ``params=``.

        Args:
            params: values by path, for some or all parameters; or all in the model's own structure.

        Returns:
            The model: the brainstate module itself, whose ``ParamState`` values are replaced, or a new step function.
        """
        return with_params(self.model, self.info, self.by_path(params), self._param_leaves(params))

    def chunk_for(self, length: int) -> int:
        """Steps per chunk for a sequence of this length: as many as the plan says, in chunks of equal length if
        possible."""
        return self.plan.chunk_for(length)

    @cached_property
    def _state_form(self) -> Any:
        # Shapes only: making a state to compare with would take the memory of all traces.
        return jax.eval_shape(self.init)

    def _checked_state(self, state: Any) -> LearnerState:
        batch = "no batch" if self.batch_size is None else f"batch_size={self.batch_size}"
        check_state(state, self._state_form, f"{self.rule.name}, {batch}")
        return state

    def _param_leaves(self, params: Any) -> list[jax.Array]:
        return parameter_leaves(self.info, self.by_path(params))

    def _static(self, params: list[jax.Array], other: list[jax.Array]) -> Environment:
        return stages_of(self.info).static_values(params, other)


def check_loss(loss: Any) -> None:
    """Raises :class:`InputError` unless an object can serve as a loss."""
    check_function("loss", loss, ("output", "target"), "lambda y, target: ((y - target) ** 2).sum()", InputError)


def _learner_again(comparison: RuleComparison | None, function: Callable[..., AppliedRule], *arguments: Any) -> Learner:
    return Learner(function(*arguments), comparison)
