"""The learner: gradients of a model over sequences, by a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import InputError
from ..frontends.parameters import with_params
from ..program._jax import is_complex, is_floating
from ..program.inputs import check_names
from ..program.interpret import Environment
from ..program.paths import Path, path_text
from ..program.program import ModuleInfo, Slot, shape_text
from ..program.random import fold_in, is_random
from ..program.remade import Recipe, Remade, check_pickles
from .comparison.compare import RuleComparison, compared
from .kernel import Chunk, ChunkResult, Kernel, Loss, added, no_gradients
from .linearization.same_step import scalar_loss
from .options import check_function
from .plan import Plan
from .rule import Rule
from .state import Aux, Gradients, LearnerState
from .step.blocks import even_part
from .step.stages import stages_of
from .structure import Structure

WRITTEN_OUT = 2
"""Up to this many chunks are written out one by one, so that the first and the last can be simpler."""


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

    def __init__(
        self,
        model: Any,
        program: ModuleInfo,
        info: ModuleInfo,
        rule: Rule,
        kernel: Kernel,
        plan: Plan,
        reduction: str,
        batch_size: int | None,
        make: Callable[[Rule, int | None, ModuleInfo | None], Learner],
        origin: Recipe,
    ) -> None:
        self.model = model
        self.program = program
        self.info = info
        self.rule = rule
        self.reduction = reduction
        self._kernel = kernel
        self.plan = plan
        self.batch_size = batch_size
        self.comparison: RuleComparison | None = None
        self._make = make
        self._origin = origin
        self._structure = Structure(model, info)
        self._jitted = jax.jit(self._gradients, static_argnums=(0, 1, 2))
        self._empty_memory = jax.jit(lambda leaves, other: kernel.init(stages_of(info).static_values(leaves, other)))

    def recipe(self) -> Recipe:
        function, arguments = self._origin
        check_pickles(arguments, f"the learner of {self.info.name}")
        return _with_comparison, (self.comparison, function, *arguments)

    @property
    def params(self) -> dict[Path, Any]:
        """The parameters the model was compiled with, by path, each in the model's own form."""
        return {slot.path: slot.value for slot in self.info.parameters}

    def nested(self, values: Mapping[Path, Any]) -> Any:
        """Values by path in the model's own structure: for optimizers that are set up by trees of labels, say.

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
        """Values of parameters by path: the reverse of :meth:`nested`, and the same where they are by path already."""
        found = self._structure.by_path(params)
        return params if found is None else found

    def completed(self, params: Any) -> Any:
        """Values for all parameters, in the form of those given; the model's own where there are none."""
        found = {**self.params, **(self.by_path(params) or {})}
        return found if self._structure.by_path(params) is None else self.nested(found)

    def with_batch_size(self, batch_size: int | None) -> Learner:
        """The same learner for batches of another size; itself where it has that size."""
        return self if batch_size == self.batch_size else self._make(self.rule, batch_size, None)

    def with_rule(self, rule: Rule, program: ModuleInfo | None = None) -> Learner:
        """The same model with another rule.

        Args:
            rule: the rule.
            program: a program to learn with in place of the model's own, of the same parameters, inputs and states.
        """
        return self._make(rule, self.batch_size, self.program if program is None else program)

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
        """How good the rule is on a sample: each parameter's gradient beside the exact one, memory, time, and which of
        the paths that it leaves out costs most.

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
        hidden, other = (
            [jnp.array(leaf, copy=True) for slot in slots for leaf in slot.initial]
            for slots in (self.info.hidden, self.info.other)
        )
        return LearnerState(hidden, other, self._empty_memory(self._param_leaves(params), other))

    def restart(self, params: Mapping[Path, Any] | None, lasting: Any, seed: Any) -> LearnerState | None:
        """The state before a new sequence of a training; None where that is what :meth:`init` gives.

        Args:
            params: as for :meth:`init`.
            lasting: what outlives sequences, from :meth:`lasting_of`.
            seed: number of the sequence, so that noise differs from one to the next.
        """
        if not self._kernel.outlives and not any(map(is_random, self.info.other)):
            return None
        start = self.init(params)
        other = [leaf for slot, leaves in self._other_leaves(start) for leaf in reseeded(slot, leaves, seed)]
        return LearnerState(start.hidden, other, self._kernel.restarted(start.memory, lasting, seed))

    def lasting(self, params: Mapping[Path, Any] | None = None) -> Any:
        """What outlives sequences, before the first one."""
        return self.lasting_of(self.init(params))

    def lasting_of(self, state: LearnerState) -> Any:
        """What outlives a sequence: feedback weights, say; None for most rules."""
        return self._kernel.lasting(state.memory)

    def _other_leaves(self, state: LearnerState) -> Iterator[tuple[Slot, list[jax.Array]]]:
        start = 0
        for slot in self.info.other:
            end = start + len(slot.leaves)
            yield slot, state.other[start:end]
            start = end

    def evaluate(
        self, loss: Loss, xs: Any, ys: Any = None, *, params: Mapping[Path, Any] | None = None, mask: Any = None
    ) -> tuple[jax.Array, Any]:
        """Loss and outputs of a sequence, without gradients; arguments as in :meth:`grad`.

        Returns:
            The loss, summed or averaged over the steps as ``reduction`` says, and the outputs, time-major.
        """
        check_loss(loss)
        leaves = self._input_leaves(xs)
        weights = self._weights(mask, self._length(leaves, ys, mask))
        targets = _targets(ys, mask)
        state = self.init(params)
        static = stages_of(self.info).static_values(self._param_leaves(params), state.other)
        outputs, _ = self._outputs(static, leaves, state, weights.shape[0])
        losses = jax.vmap(lambda output, target: scalar_loss(loss, output, target))(outputs, targets)
        return (weights * losses).sum(), outputs

    def first_bad_state(
        self, xs: Any, *, params: Mapping[Path, Any] | None = None, state: LearnerState | None = None
    ) -> tuple[Path, int] | None:
        """The first hidden state that is not finite over a sequence, and the step; None if all are finite.

        Args:
            xs: as for :meth:`grad`.
            params: likewise.
            state: what the sequence starts from; None starts anew.
        """
        leaves, state = self._input_leaves(xs), self.init(params) if state is None else self._checked_state(state)
        length = self._length(leaves, None, None)
        static = stages_of(self.info).static_values(self._param_leaves(params), state.other)
        _, fine = self._outputs(static, leaves, state, length)
        bad = [(int(jnp.argmin(ok)), k) for k, ok in enumerate(fine) if not bool(ok.all())]
        if not bad:
            return None
        step, number = min(bad)
        return self.info.hidden[number].path, step

    def _outputs(
        self, static: Environment, inputs: list[jax.Array], state: LearnerState, length: int
    ) -> tuple[Any, list[jax.Array]]:
        """Outputs at all steps, and for every hidden state whether it is finite after each step."""
        stages = stages_of(self.info)

        def step(carry: Any, given: list[jax.Array]) -> Any:
            values = {**static, **dict(zip(self.info.input_invars, given, strict=True))}
            outputs, hidden, other = stages.step(values, *carry)
            return (hidden, other), (outputs, [jnp.isfinite(h).all() for h in hidden])

        _, (outputs, fine) = jax.lax.scan(step, (state.hidden, state.other), inputs, length)
        return jax.tree.unflatten(self.info.output_treedef, outputs), fine

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
        leaves = self._input_leaves(xs)
        length = self._length(leaves, ys, mask)
        weights = self._weights(mask, length)
        fresh = state is None
        start = self.init(params) if state is None else self._checked_state(state)
        targets = _targets(ys, mask)
        given = self._param_leaves(params)
        gradients, aux = self._jitted(loss, fresh, keep_state, leaves, targets, weights, start, given)
        return gradients if self._structure.by_path(params) is None else self.nested(gradients), aux

    def write_back(self, params: Mapping[Path, Any]) -> Any:
        """Puts parameters into the model; the learner keeps those it was compiled with, so pass on ``params=``.

        Args:
            params: values by path, for some or all parameters; or all in the model's own structure.

        Returns:
            The model: the brainstate module itself, whose ``ParamState`` values are replaced, or a new step function.
        """
        return with_params(self.model, self.info, self.by_path(params), self._param_leaves(params))

    def _gradients(
        self,
        loss: Loss,
        fresh: bool,
        keep: bool,
        inputs: list[jax.Array],
        targets: Any,
        weights: jax.Array,
        state: LearnerState,
        params: list[jax.Array],
    ) -> tuple[Gradients, Aux]:
        stages, variables = stages_of(self.info), self._kernel.variables

        def entering(leaves: list[jax.Array]) -> list[jax.Array]:
            static = stages.static_values(leaves, state.other)
            return [static[var] for var in variables]

        static = stages.static_values(params, state.other)
        _, pull = jax.vjp(entering, params)
        found = self._run_chunks(loss, static, state, Chunk(inputs, targets, weights), fresh, keep)
        (gradients,) = pull([found.gradients[var].astype(static[var].dtype) for var in variables])
        outputs = jax.tree.unflatten(self.info.output_treedef, found.outputs)
        aux = Aux(found.losses.sum(), found.losses, outputs, found.state if keep else None)
        return by_path(self.info.parameters, gradients), aux

    def _run_chunks(
        self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, fresh: bool, keep: bool
    ) -> ChunkResult:
        """Runs all chunks: in a loop, or one by one where few are not all alike, and what is left over at the end."""
        size = min(self.chunk_for(chunk.length), chunk.length)
        count = chunk.length // size
        alike = self._kernel.in_cache or (keep and not fresh)
        looped = count if count > (1 if alike else WRITTEN_OUT) else 0
        parts, start = [], looped * size
        if looped:
            parts.append(self._loop(loss, static, state, chunk.part(0, start), looped))
            fresh = False
        while start < chunk.length:
            end = min(start + size, chunk.length)
            going_on = keep or end < chunk.length
            state = parts[-1].state if parts else state
            part = chunk.part(start, end)
            parts.append(self._kernel.run(loss, static, state, part, fresh=fresh, keep=going_on))
            fresh, start = False, end
        return joined(parts)

    def _loop(self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, count: int) -> ChunkResult:
        variables = self._kernel.variables

        def step(carry: Any, given: Any) -> Any:
            state, total = carry
            found = self._kernel.run(loss, static, state, Chunk(*given), fresh=False, keep=True)
            return (found.state, added(total, found.gradients, variables)), (found.losses, found.outputs)

        start = (state, no_gradients(variables))
        (state, total), stacked = jax.lax.scan(step, start, chunk.split(count))
        losses, outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), stacked)
        return ChunkResult(dict(zip(variables, total, strict=True)), losses, outputs, state)

    def chunk_for(self, length: int) -> int:
        """Steps per chunk for a sequence of this length: as the plan says, and evenly split."""
        most = self.plan.chunk or length
        return even_part(length, most) if self.plan.is_chosen else most

    def _input_leaves(self, xs: Any) -> list[jax.Array]:
        """Input leaves ``[T, ...]`` from the inputs as the user passes them."""
        info = self.info
        arguments = jax.tree.unflatten(info.input_treedef, [0] * len(info.input_avals))
        if len(arguments) > 1 and not isinstance(xs, (tuple, list)):
            raise InputError(
                f"{info.name} takes {len(arguments)} inputs, so xs must be a tuple of {len(arguments)}, each with the "
                f"steps along its first axis, but got a {type(xs).__name__}."
            )
        given = (xs,) if len(arguments) == 1 else tuple(xs) if arguments else ()
        if isinstance(xs, (tuple, list)) and len(arguments) == len(xs) == 1:
            given = tuple(xs) if jax.tree.structure(tuple(xs)) == info.input_treedef else given
        leaves, treedef = jax.tree.flatten(given)
        expected = ", ".join(f"[T,{shape_text(aval.shape)[1:]}" for aval in info.input_avals) or "none"
        found = ", ".join(shape_text(jnp.shape(leaf)) for leaf in leaves) or "none"
        fits = treedef == info.input_treedef and all(
            jnp.shape(leaf)[1:] == aval.shape and jnp.ndim(leaf) == len(aval.shape) + 1
            for leaf, aval in zip(leaves, info.input_avals, strict=True)
        )
        if not fits:
            check_names(given, arguments, info.name)
            raise InputError(
                f"{info.name} takes inputs of shape {expected} for T steps, time first, but got {found}; "
                f"{self._remedy(xs, [jnp.shape(leaf)[1:] for leaf in leaves])}."
            )
        return [_as_input(leaf, aval.dtype) for leaf, aval in zip(leaves, info.input_avals, strict=True)]

    def _remedy(self, xs: Any, steps: list[tuple[int, ...]]) -> str:
        """What to do about inputs of these shapes in a step, which do not fit."""
        if isinstance(xs, list):
            return "stack a list of steps with jnp.stack(xs)"
        wanted = [aval.shape for aval in self.info.input_avals]
        samples = {shape[:1] for shape in steps}
        if self.batch_size is not None and steps == [shape[1:] for shape in wanted]:
            return f"add the batch axis, of {self.batch_size}, behind the time axis"
        if len(samples) == 1 and [shape[1:] for shape in steps] == [shape[1:] for shape in wanted] and samples != {()}:
            ((number,),) = samples
            if self.batch_size is not None:
                return f"for {number} samples take learner.with_batch_size({number})"
            return (
                "if that axis is one of samples, compile a model of one sample with batch_size=, whose learner takes "
                "batches of other sizes by with_batch_size"
            )
        return "pass xs with the steps along the first axis, or compile again with other example inputs"

    @cached_property
    def _state_form(self) -> Any:
        return jax.eval_shape(self.init)

    def _checked_state(self, state: Any) -> LearnerState:
        """The state, which must have the form that :meth:`init` gives."""
        wanted, found = self._state_form, jax.tree.map(jnp.asarray, state) if isinstance(state, LearnerState) else None
        same = found is not None and jax.tree.structure(found) == jax.tree.structure(wanted)
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True) if same else ()
        if not same or any((a.shape, a.dtype) != (b.shape, b.dtype) for a, b in pairs):
            batch = "no batch" if self.batch_size is None else f"batch_size={self.batch_size}"
            raise InputError(
                f"state is not one of this learner ({self.rule.name}, {batch}), but "
                f"{f'a {type(state).__name__}' if found is None else 'one of another model, rule or batch size'}; pass "
                "learner.init() or the aux.state of a call of the same learner."
            )
        return state

    def _length(self, inputs: list[jax.Array], targets: Any, mask: Any) -> int:
        named = [("xs", inputs), ("ys", targets), ("mask", mask)]
        lengths = {name: {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)} for name, tree in named}
        found = {length for lengths_of in lengths.values() for length in lengths_of}
        if len(found) != 1 or found <= {(), (0,)}:
            told = "; ".join(f"{k} {sorted(n[0] if n else 'no time axis' for n in v)}" for k, v in lengths.items() if v)
            raise InputError(
                f"xs, ys and mask need one and the same number of steps along their first axis, at least one, but have "
                f"{told or 'none'}; repeat a target that is the same at every step with jnp.broadcast_to."
            )
        return found.pop()[0]

    def _weights(self, mask: Any, length: int) -> jax.Array:
        dtype = jnp.result_type(jnp.float32, *(jnp.finfo(slot.dtype).dtype for slot in self.info.hidden))
        weights = jnp.ones(length, dtype) if mask is None else jnp.asarray(mask).astype(dtype)
        if weights.ndim != 1:
            raise InputError(
                f"mask has shape {shape_text(weights.shape)}, but it weighs steps and has shape [T]; weigh samples "
                "or outputs inside the loss."
            )
        return weights if self.reduction == "sum" else weights / jnp.maximum(weights.sum(), 1e-12)

    def _param_leaves(self, params: Mapping[Path, Any] | None) -> list[jax.Array]:
        """Leaves of all parameters, with those given in place of the model's own."""
        params = self.by_path(params)
        if params is not None and not isinstance(params, Mapping):
            raise InputError(
                f"params is a {type(params).__name__}, but it must be a dictionary of values by path, as "
                "learner.params is, or have the structure of the model's own; change that: {**learner.params, path: "
                "value}."
            )
        given = dict(params or {})
        leaves = []
        for slot in self.info.parameters:
            leaves += checked_leaves(slot, given.pop(slot.path)) if slot.path in given else slot.initial
        if given:
            known = ", ".join(path_text(slot.path) for slot in self.info.parameters) or "none"
            unknown = ", ".join(path_text(path) if isinstance(path, tuple) else repr(path) for path in given)
            remedy = next((f"; a path is a tuple, {(path,)!r}" for path in given if isinstance(path, str)), "")
            raise InputError(f"params has {unknown}, but the parameters of {self.info.name} are {known}{remedy}.")
        return [jnp.asarray(leaf) for leaf in leaves]


def check_loss(loss: Any) -> None:
    """Raises :class:`InputError` unless this can be a loss."""
    check_function("loss", loss, ("output", "target"), "lambda y, target: ((y - target) ** 2).sum()", InputError)


def _targets(ys: Any, mask: Any) -> Any:
    """The targets as arrays; those of steps that the mask leaves out may be NaN and count as zero then."""
    targets = jax.tree.map(jnp.asarray, ys)
    if mask is None:
        return targets

    def filled(target: jax.Array) -> jax.Array:
        if not is_floating(target.dtype):
            return target
        left_out = jnp.asarray(mask).reshape(-1, *[1] * (target.ndim - 1)) == 0
        return jnp.where(left_out & ~jnp.isfinite(target), jnp.zeros_like(target), target)

    return jax.tree.map(filled, targets)


def _as_input(leaf: Any, dtype: Any) -> jax.Array:
    """An input in the model's dtype; numbers that would lose their kind are refused."""
    array = jnp.asarray(leaf)
    if array.dtype == dtype:
        return array
    if jnp.promote_types(_kind(array.dtype), _kind(dtype)) != _kind(dtype):
        raise InputError(
            f"xs holds {array.dtype}, but the model was compiled for {dtype}, which would lose a part of it; convert "
            "it, or compile again with example inputs of this dtype."
        )
    return array.astype(dtype)


def _kind(dtype: Any) -> Any:
    """The smallest dtype of a kind: Boolean, integer, floating or complex."""
    kinds = ((jnp.complexfloating, jnp.complex64), (jnp.floating, jnp.bfloat16), (jnp.integer, jnp.int8))
    return next((smallest for kind, smallest in kinds if jnp.issubdtype(dtype, kind)), jnp.bool_)


def checked_leaves(slot: Slot, value: Any) -> list[jax.Array]:
    """The leaves of a value for a slot, in the slot's dtypes."""
    leaves, treedef = jax.tree.flatten(value)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    if treedef != slot.treedef:
        raise InputError(
            f"the value given for {path_text(slot.path)} is {_form_text(treedef)}, but the parameter is "
            f"{_form_text(slot.treedef)} (* is an array); give a value of the form and unit that learner.params has."
        )
    if shapes != [leaf.shape for leaf in slot.leaves]:
        raise InputError(
            f"the value given for {path_text(slot.path)} has leaves {' '.join(map(shape_text, shapes)) or 'none'}, but "
            f"the parameter has {slot.shapes_text}; give a value of the shape that learner.params has."
        )
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    for array, aval in zip(arrays, slot.leaves, strict=True):
        same_kind = is_floating(array.dtype) == is_floating(aval.dtype)
        if not same_kind or (is_complex(array.dtype) and not is_complex(aval.dtype)):
            raise InputError(
                f"the value given for {path_text(slot.path)} is {array.dtype}, but the parameter is {aval.dtype}; "
                "convert it first."
            )
    return [array.astype(aval.dtype) for array, aval in zip(arrays, slot.leaves, strict=True)]


def _form_text(treedef: Any) -> str:
    return str(treedef).removeprefix("PyTreeDef(").removesuffix(")")


def reseeded(slot: Slot, leaves: Sequence[jax.Array], seed: Any) -> list[jax.Array]:
    """The leaves of a state, with the seed folded into random keys."""
    if not is_random(slot):
        return list(leaves)
    return [fold_in(leaf, seed) for leaf in leaves]


def by_path(slots: Sequence[Slot], leaves: Sequence[Any]) -> dict[Path, Any]:
    """Values by path from the leaves of all slots."""
    found, start = {}, 0
    for slot in slots:
        end = start + len(slot.leaves)
        found[slot.path] = jax.tree.unflatten(slot.treedef, list(leaves[start:end]))
        start = end
    return found


def joined(parts: Sequence[ChunkResult]) -> ChunkResult:
    """Chunks one after the other as one."""
    if len(parts) == 1:
        return parts[0]
    gradients = {var: sum((p.gradients[var] for p in parts[1:]), parts[0].gradients[var]) for var in parts[0].gradients}
    losses = jnp.concatenate([p.losses for p in parts])
    outputs = [jnp.concatenate(leaves) for leaves in zip(*(p.outputs for p in parts), strict=True)]
    return ChunkResult(gradients, losses, outputs, parts[-1].state)


def _with_comparison(comparison: RuleComparison | None, function: Callable[..., Learner], *arguments: Any) -> Learner:
    learner = function(*arguments)
    learner.comparison = comparison
    return learner
