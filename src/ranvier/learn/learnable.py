"""A model that can learn: its program, checked once for all rules and batch sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from ..errors import RuleError
from ..program._jax import Equation, dtype_of, is_key, open_jaxpr, source_line
from ..program.analysis.delay_lines import with_delay_lines
from ..program.analysis.explanations import backward_only, opaque_diagnostics
from ..program.batching import batched
from ..program.bodies import bodies
from ..program.kernels import check_kernels
from ..program.program import ModuleInfo
from .rule import Rule


@dataclass(frozen=True)
class CompileOptions:
    """The keyword arguments of :func:`ranvier.compile` that all learners of a model share."""

    chunk: int | None = None
    reduction: str = "sum"
    memory_limit: int | None = None

    def checked(self) -> CompileOptions:
        """The options themselves, if they are valid.

        Raises:
            RuleError: an option makes no sense.
        """
        if self.reduction not in ("sum", "mean"):
            raise RuleError(f"reduction={self.reduction!r} is unknown; use 'sum' or 'mean'.")
        check_count("chunk", self.chunk)
        check_count("memory_limit", self.memory_limit)
        return self


def check_count(name: str, value: Any) -> None:
    """Raises :class:`RuleError` unless an option is a whole number of at least 1, or None."""
    if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < 1):
        raise RuleError(f"{name}={value!r} must be a whole number of at least 1, or None.")


@dataclass(frozen=True, eq=False)
class Learnable:
    """A model with its checked program.

    Attributes:
        model: as the user passed it.
        extracted: its program of one step, which can be pickled.
        program: the same with delay lines in the place of the states that hold past values.
        options: of all its learners.
    """

    model: Any
    extracted: ModuleInfo
    program: ModuleInfo
    options: CompileOptions
    _by_batch_size: dict[int, ModuleInfo] = field(default_factory=dict)

    def for_batches_of(self, size: int | None) -> ModuleInfo:
        """The program for ``size`` samples at once; always the same object for the same size.

        Analyses are cached by program: two programs of one size would be analyzed and compiled twice.
        """
        if size is None:
            return self.program
        if size not in self._by_batch_size:
            self._by_batch_size[size] = batched(self.program, size)
        return self._by_batch_size[size]


def learnable_of(model: Any, extracted: ModuleInfo, options: CompileOptions) -> Learnable:
    """The model with the program that was extracted from it.

    Raises:
        RuleError: it cannot learn by any rule.
        ModelError: a package that it runs on is missing.
    """
    # First: a ring buffer is read at another place in every step, and D would have no fixed entries for it. As a delay
    # line it has constant ones.
    program = with_delay_lines(extracted)
    check_differentiable(program)
    check_keys(program)
    check_kernels(program)
    return Learnable(model, extracted, program, options)


def check_differentiable(info: ModuleInfo) -> None:
    """Raises :class:`RuleError` if no derivative passes through an equation that learning depends on."""
    if obstacles := opaque_diagnostics(info):
        raise RuleError(f"{info.name} cannot learn: {'; '.join(map(str, obstacles))}")


def check_keys(info: ModuleInfo) -> None:
    """Raises :class:`RuleError` for random keys that give different numbers when several steps draw at once."""
    variables = [*info.jaxpr.invars, *info.jaxpr.constvars, *(v for eqn in info.equations for v in eqn.outvars)]
    for var in variables:
        # Products of all steps at once draw for all steps at once. Only threefry gives each step the numbers that it
        # gets when it draws by itself.
        if is_key(dtype_of(var)) and "fry" not in str(dtype_of(var)):
            raise RuleError(
                f"{info.name} draws random numbers with keys of type {dtype_of(var)}, which give different numbers "
                "when several steps or samples draw at once; use jax.random.key(seed), with JAX's own threefry2x32."
            )


def check_forward(info: ModuleInfo, rule: Rule) -> None:
    """Raises :class:`RuleError` if a declared derivative on the path to a state has no forward mode."""
    if obstacles := backward_only(info):
        raise RuleError(
            f"{rule.name} carries derivatives forward in time, but these declared derivatives only work backward: "
            f"{'; '.join(obstacles)}. Write a backward rule that is linear in its cotangent and uses only operations "
            "that JAX can transpose, or use BPTT."
        )


def check_callbacks(info: ModuleInfo) -> None:
    """Raises :class:`RuleError` for host callbacks, inside branches, loops or functions with a declared derivative,
    that do not say how to run several steps or samples at once."""
    for eqn in info.equations:
        for inner in _inside(eqn):
            if inner.params.get("vmap_method", "") is None:
                raise RuleError(
                    f"{info.name} calls {inner.primitive.name} at {source_line(inner)}, inside {eqn.primitive.name}, "
                    "for several steps or samples at once, but the call does not say how to batch; write "
                    "jax.pure_callback(..., vmap_method='sequential')."
                )


def _inside(eqn: Equation) -> Iterator[Equation]:
    for body in bodies(eqn):
        for inner in open_jaxpr(body)[0].eqns:
            yield inner
            yield from _inside(inner)
