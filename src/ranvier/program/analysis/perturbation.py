"""Hidden perturbations: the learning signal dL/dh, by automatic differentiation and by finite differences.

Every new hidden state gets a perturbation p added to it, and dL/dp at p = 0 is the learning signal. The
signal is partial (design, section 3): the states of one group are independent leaves, so a path
``g -> V -> loss`` inside the group belongs to V only. A perturbation is therefore seen by everything in
the step except the computation of its own group's other states.

With ``g' = 0.8 g + x @ w; V' = 0.9 V + g'`` and the loss sum(V'), the signal of every element of V' is 1 and that of
g' is 0: what g' does to the loss, it does through V'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import AnalysisError
from ...util.counting import counted
from ...util.table import table
from .._jax import Equation, Var, bind, is_floating, open_jaxpr, trace
from ..bodies import called_body, has_own_derivative
from ..declared import declared_operands, pushed
from ..interpret import evaluate
from ..nested import tangents_of
from ..paths import Path, path_text
from ..program import ModuleInfo, Slot
from ..remade import Recipe, Remade
from .cache import cached_by_program
from .hidden_groups import HiddenGroup
from .perturbed_step import PerturbedStep

Loss = Callable[[Any], Any]

DIFFERENCES_AT_ONCE = 64
"""Elements whose finite differences are taken in one call."""


@dataclass(frozen=True, eq=False)
class HiddenPerturbation(Remade):
    """The step with a perturbation added to every new hidden state.

    Attributes:
        perturb_jaxpr: closed jaxpr; operands are those of ``info.closed_jaxpr``, then one perturbation per
            hidden state; results are those of ``info.closed_jaxpr``.
        perturb_hidden_paths: names of the hidden states, in the order of the perturbations.
        perturb_hidden_states: their slots.
        info: the program that was rewritten.
    """

    perturb_jaxpr: Any
    perturb_hidden_paths: tuple[Path, ...]
    perturb_hidden_states: tuple[Slot, ...]
    info: ModuleInfo

    def recipe(self) -> Recipe:
        return add_hidden_perturbation_from_minfo, (self.info,)

    @cached_property
    def perturb_vars(self) -> tuple[Var, ...]:
        """Operands of ``perturb_jaxpr`` that are perturbations."""
        return tuple(open_jaxpr(self.perturb_jaxpr)[0].invars[-len(self.perturb_hidden_paths) :])

    def zeros(self) -> list[jax.Array]:
        """No perturbation: one array of zeros per hidden state."""
        return [jnp.zeros(slot.shape, slot.dtype) for slot in self.perturb_hidden_states]

    def init_perturb_data(self) -> list[jax.Array]:
        """:meth:`zeros`, by the name that brainscale has for it."""
        return self.zeros()

    def eval_jaxpr(self, inputs: Sequence[Any], perturb_data: Sequence[Any]) -> list[Any]:
        """The step's results for operands of ``info.closed_jaxpr`` and these perturbations."""
        return evaluate(self.perturb_jaxpr, [*inputs, *perturb_data])

    def perturb_data_to_hidden_group_data(
        self, perturb_data: Sequence[Any], hidden_groups: Sequence[HiddenGroup]
    ) -> list[jax.Array]:
        """One array ``[*varshape, num_state]`` for every group, from one for every hidden state."""
        by_path = dict(zip(self.perturb_hidden_paths, perturb_data, strict=True))
        return [group.concat_hidden([by_path[path] for path in group.hidden_paths]) for group in hidden_groups]

    def learning_signal(self, loss: Loss, *inputs: Any, **states: Any) -> dict[Path, jax.Array]:
        """dL/dh for every new hidden state, by reverse-mode differentiation.

        Args:
            loss: takes the step's output in the model's own form and returns a scalar.
            *inputs: the step's arguments.
            **states: ``params``, ``hidden``, ``other`` to replace initial values, as in :meth:`ModuleInfo.step`.

        Returns:
            Hidden path to array of the state's shape; states of one group are independent leaves.
        """
        value = self._loss_function(loss, self.info.flat_operands(*inputs, **states))
        return dict(zip(self.perturb_hidden_paths, jax.grad(value)(self.zeros()), strict=True))

    def finite_differences(
        self, loss: Loss, *inputs: Any, step: float | None = None, **states: Any
    ) -> dict[Path, jax.Array]:
        """dL/dh for every new hidden state, by central finite differences.

        A function with a declared derivative, such as a spike with a surrogate gradient, counts as its first-order
        expansion around the unperturbed step, so that the result estimates the same number as
        :meth:`learning_signal`; everything else is evaluated as it is.

        Args:
            loss: as in :meth:`learning_signal`.
            *inputs: as in :meth:`learning_signal`.
            step: half the distance of the two points, relative to ``max(1, |h|)``; the cube root of the
                machine epsilon by default.
            **states: as in :meth:`learning_signal`.
        """
        operands = self.info.flat_operands(*inputs, **states)
        # First the unperturbed step, for the points around which declared derivatives are expanded.
        recorded: list[list[Any]] = []
        evaluate(self.perturb_jaxpr, [*operands, *self.zeros()], _recorder(recorded))
        value = self._loss_function(loss, operands, recorded)
        hidden = evaluate(self.info.closed_jaxpr, operands)[len(self.info.output_avals) :]
        signals = {}
        for k, path in enumerate(self.perturb_hidden_paths):
            # The cube root balances the two errors: rounding falls with the distance as 1/d, the third order as d².
            scale = step or float(jnp.finfo(self.perturb_hidden_states[k].dtype).eps) ** (1 / 3)
            signals[path] = self._differences(value, k, np.asarray(hidden[k]), scale)
        return signals

    def _differences(self, value: Callable[..., Any], k: int, state: np.ndarray, scale: float) -> jax.Array:
        def at(shift: jax.Array) -> Any:
            shifts = self.zeros()
            shifts[k] = shift
            return value(shifts)

        many = jax.jit(jax.vmap(at))
        widths = (scale * np.maximum(1.0, np.abs(state))).reshape(-1)
        result = np.zeros(state.size, state.dtype)
        for direction in (1.0, 1j) if np.iscomplexobj(state) else (1.0,):
            for start in range(0, state.size, DIFFERENCES_AT_ONCE):
                chosen = np.arange(start, min(start + DIFFERENCES_AT_ONCE, state.size))
                shifts = np.zeros((chosen.size, state.size), state.dtype)
                shifts[np.arange(chosen.size), chosen] = direction * widths[chosen]
                shifts = shifts.reshape(chosen.size, *state.shape)
                ends = [np.asarray(many(jnp.asarray(sign * shifts)), np.float64) for sign in (1, -1)]
                # JAX's convention for a real function of complex values: dL/d(re) - i dL/d(im)
                result[chosen] += np.conj(direction) * (ends[0] - ends[1]) / (2 * widths[chosen])
        return jnp.asarray(result.reshape(state.shape))

    def compare(self, loss: Loss, *inputs: Any, step: float | None = None, **states: Any) -> SignalComparison:
        """Both learning signals side by side; arguments as in :meth:`finite_differences`."""
        return SignalComparison(
            self.learning_signal(loss, *inputs, **states),
            self.finite_differences(loss, *inputs, step=step, **states),
        )

    def _loss_function(
        self, loss: Loss, operands: Sequence[Any], recorded: Sequence[Sequence[Any]] | None = None
    ) -> Callable[[list[Any]], Any]:
        count = len(self.info.output_avals)

        def value(perturbations: list[Any]) -> Any:
            apply = bind if recorded is None else _expander(recorded)
            results = evaluate(self.perturb_jaxpr, [*operands, *perturbations], apply)
            scalar = loss(jax.tree.unflatten(self.info.output_treedef, results[:count]))
            leaves = jax.tree.leaves(scalar)
            if len(leaves) != 1 or jnp.shape(leaves[0]) != ():
                shapes = [jnp.shape(leaf) for leaf in leaves]
                raise AnalysisError(
                    f"the loss returned {len(leaves)} arrays of shapes {shapes}, but a learning signal needs one "
                    "scalar; end the loss with .sum() or .mean()."
                )
            return leaves[0]

        return value

    def __str__(self) -> str:
        rows = [
            (path_text(slot.path), f"{slot.dtype}{slot.shapes_text}", slot.unit) for slot in self.perturb_hidden_states
        ]
        count = len(rows)
        head = f"HiddenPerturbation: {counted(count, 'perturbation')}, one added to each new hidden state"
        return "\n".join([head, *table(("hidden state", "perturbation", "unit"), rows)])

    __repr__ = __str__


@dataclass(frozen=True)
class SignalComparison:
    """Learning signals by two methods.

    Attributes:
        automatic: hidden path to dL/dh by automatic differentiation.
        differences: hidden path to dL/dh by central finite differences.
    """

    automatic: dict[Path, jax.Array]
    differences: dict[Path, jax.Array]

    @property
    def errors(self) -> dict[Path, float]:
        """Largest absolute difference by state, relative to the largest signal of all states."""
        largest = max(float(jnp.abs(signal).max(initial=0.0)) for signal in self.automatic.values())
        scale = largest or 1.0
        return {
            path: float(jnp.abs(signal - self.differences[path]).max(initial=0.0)) / scale
            for path, signal in self.automatic.items()
        }

    def agree(self, tolerance: float = 1e-2) -> bool:
        """Whether every relative error is within the tolerance; float32 differences reach about 1e-2."""
        return all(error <= tolerance for error in self.errors.values())

    def __str__(self) -> str:
        rows = [
            (path_text(p), f"{float(jnp.abs(self.automatic[p]).max(initial=0.0)):.4g}", f"{error:.1e}")
            for p, error in self.errors.items()
        ]
        return "\n".join(["Learning signals dL/dh", *table(("hidden state", "largest", "relative error"), rows)])


@cached_by_program
def add_hidden_perturbation_from_minfo(info: ModuleInfo) -> HiddenPerturbation:
    """Adds a perturbation to every new hidden state of a program.

    Args:
        info: from :func:`ranvier.extract_module_info`.
    """
    step = PerturbedStep(info)
    count = len(info.jaxpr.invars)

    def run(*operands: Any) -> list[Any]:
        values = dict(zip(info.jaxpr.invars, operands, strict=False))
        values.update(zip(info.jaxpr.constvars, info.consts, strict=True))
        return step.run(values, dict(zip(info.hidden_outvars, operands[count:], strict=True)))

    closed = trace(run, [var.aval for var in (*info.jaxpr.invars, *info.hidden_outvars)])
    return HiddenPerturbation(closed, tuple(slot.path for slot in info.hidden), info.hidden, info)


def _recorder(recorded: list[list[Any]]) -> Callable[[Equation, list[Any]], Sequence[Any]]:
    def apply(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        if _is_declared(eqn):
            recorded.append(operands)
        return bind(eqn, operands)

    return apply


def _expander(recorded: Sequence[Sequence[Any]]) -> Callable[[Equation, list[Any]], Sequence[Any]]:
    """Replaces functions with declared derivatives by their expansion around the recorded operands."""
    # Every run applies the same equations in the same order, so the recorded operands are taken one by one.
    order = iter(recorded)

    def apply(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        if not _is_declared(eqn):
            return bind(eqn, operands)
        base = next(order)
        moving = declared_operands(eqn)
        moved = [operands[k] - base[k] for k in moving]
        results, changes = pushed(eqn, base, moving, moved)
        return [y + dy if is_floating(y.dtype) else y for y, dy in zip(results, changes, strict=True)]

    return apply


def _is_declared(eqn: Equation) -> bool:
    """Whether a function has a declared derivative that takes changes of its operands to changes of its results."""
    return has_own_derivative(eqn) and (called_body(eqn) is None or not tangents_of(eqn).missing)
