"""Different rules for different parameters: one kernel per rule, which computes the gradients of its parameters.

Every rule runs on the program that it prepares, with memory of its own, and keeps only what its parameters need. So the
gradient of a parameter is exactly that of its rule.

For example, ``{("w_in",): EProp(), ...: D_RTRL()}`` with parameters ``w_in``, ``w_rec`` and ``w_out`` makes two parts:
EProp with the parameters {0}, and D_RTRL with {1, 2}. Every chunk is run by both; the first gives dL/dw_in, the second
the other two gradients, and outputs and new states, which are the same in both, are taken from the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import jax

from ...errors import RuleError
from ...program._jax import Var, dtype_of, is_floating
from ...program.interpret import Environment
from ...program.paths import Path, full_text, path_text
from ...program.program import ModuleInfo
from ..kernel import Chunk, ChunkResult, Kernel, Loss
from ..rule import Rule
from ..state import LearnerState
from ..step.stages import stages_of

RulesByPath = Mapping[Path | str | EllipsisType, Rule]
"""Parameter path (or its text, or ``...`` for all others) to its rule."""


@dataclass(frozen=True)
class ByParameter(Rule):
    """A rule for each parameter: ``ranvier.compile(model, {path: rule, ...: default}, x)`` makes one.

    Attributes:
        rules: pairs of a parameter's path and its rule; ``...`` stands for all parameters that are not named.
    """

    rules: tuple[tuple[Path | str | EllipsisType, Rule], ...]

    @classmethod
    def of(cls, rules: RulesByPath) -> ByParameter:
        """The rule that a dictionary describes.

        Raises:
            RuleError: a value is no rule.
        """
        wrong = [f"{path!r}: {rule!r}" for path, rule in rules.items() if not isinstance(rule, Rule)]
        if wrong or not rules:
            raise RuleError(
                "compile(model, rules, ...) takes a dictionary from parameter paths to rules, but got "
                f"{', '.join(wrong) or 'an empty one'}; write, for example, {{('w',): ranvier.EProp(), ...: "
                "ranvier.D_RTRL()}."
            )
        return cls(tuple(rules.items()))

    @property
    def name(self) -> str:
        parts = [f"{rule.name} for {'the rest' if path is ... else _text(path)}" for path, rule in self.rules]
        return ", ".join(parts)

    def of_parameters(self, info: ModuleInfo) -> dict[Rule, frozenset[int]]:
        """Every rule with the indices of its parameters.

        Raises:
            RuleError: a path is no parameter, or a parameter has no rule.
        """
        paths = [slot.path for slot in info.parameters]
        named: dict[int, Rule] = {}
        unknown = []
        for path, rule in self.rules:
            numbers = [] if path is ... else _numbers(path, paths)
            named.update(dict.fromkeys(numbers, rule))
            unknown += [] if numbers or path is ... else [_text(path)]
        default = next((rule for path, rule in self.rules if path is ...), None)
        lacking = [_text(path) for k, path in enumerate(paths) if k not in named] if default is None else []
        if unknown or lacking:
            known = ", ".join(map(_text, paths)) or "none"
            faults = [f"no parameter is called {', '.join(unknown)}"] * bool(unknown)
            faults += [f"{', '.join(lacking)} ha{'s' if len(lacking) == 1 else 've'} no rule"] * bool(lacking)
            raise RuleError(
                f"{'; '.join(faults)}; the parameters of {info.name} are {known}, and the key ... stands for all the "
                "others."
            )
        # Parameters of equal rules share one kernel: with a kernel for each parameter, the forward pass would run once
        # per parameter.
        parameters: dict[Rule, set[int]] = {}
        for number in range(len(paths)):
            rule = named.get(number, default)
            assert rule is not None
            parameters.setdefault(rule, set()).add(number)
        return {rule: frozenset(numbers) for rule, numbers in parameters.items()}

    def kernel(self, info: ModuleInfo) -> PartedKernel:
        parts = []
        for rule, parameters in self.of_parameters(info).items():
            prepared = rule.prepare(info)
            # Without ``only`` every kernel would keep traces of all parameters, and the memory would be that of all
            # rules together.
            parts.append(RulePart(rule.name, parameters, rule.kernel(prepared).only(parameters)))
        return PartedKernel(info, tuple(parts))


def _text(path: Path | str) -> str:
    return path if isinstance(path, str) else path_text(path)


def _numbers(path: Path | str, paths: Sequence[Path]) -> list[int]:
    """The parameters that a path names: as it is, else by its text, in full or as it is printed."""
    if path in paths:
        return [paths.index(path)]
    text = path if isinstance(path, str) else full_text(path)
    for write in (full_text, path_text):
        if numbers := [number for number, one in enumerate(paths) if write(one) == text]:
            return numbers
    return []


@dataclass(frozen=True, eq=False)
class RulePart:
    """One rule with its share of the parameters.

    Attributes:
        rule: its name.
        parameters: indices of the parameters whose gradients are taken from it.
        kernel: its code; the program it was made for may have more hidden states than the model, after the model's own.
    """

    rule: str
    parameters: frozenset[int]
    kernel: Kernel

    @property
    def info(self) -> ModuleInfo:
        return self.kernel.info

    def static_values(self, leaves: Sequence[Any], other: Sequence[Any]) -> Environment:
        return stages_of(self.info).static_values(leaves, other)

    def run(
        self, loss: Loss, leaves: Sequence[Any], state: LearnerState, chunk: Chunk, *, fresh: bool, keep: bool
    ) -> tuple[ChunkResult, list[Any]]:
        """The result of a chunk, and the gradients with respect to all parameter leaves."""
        variables = self.kernel.variables

        def entering(leaves: Sequence[Any]) -> list[Any]:
            static = self.static_values(leaves, state.other)
            return [static[var] for var in variables]

        # Prepared programs differ in their static variables: one may read w where another reads softplus(w). So
        # gradients are pulled back to the leaves of the parameters, which all parts share, before they are put
        # together.
        values, pull = jax.vjp(entering, list(leaves))
        static = self.static_values(leaves, state.other)
        result = self.kernel.run(loss, static, state, chunk, fresh=fresh, keep=keep)
        cotangents = [result.gradients[var].astype(x.dtype) for var, x in zip(variables, values, strict=True)]
        (gradients,) = pull(cotangents)
        return result, gradients


@dataclass(frozen=True, eq=False)
class PartedKernel(Kernel):
    """The kernels of several rules, side by side.

    Attributes:
        info: the model's own program.
        parts: one for every rule.
    """

    info: ModuleInfo
    parts: tuple[RulePart, ...]

    @property
    def chunked(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        # Stepwise rules may be given any number of steps at a time, so they join the chunks of the others. Only BPTT
        # needs the whole call as one chunk.
        return not self.truncates

    @property
    def truncates(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(part.kernel.truncates for part in self.parts)

    @property
    def in_cache(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(part.kernel.in_cache for part in self.parts)

    @property
    def outlives(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(part.kernel.outlives for part in self.parts)

    @property
    def variables(self) -> tuple[Var, ...]:
        """The parameters themselves, since the parts compute different values from them."""
        return tuple(var for var in self.info.weight_invars if is_floating(dtype_of(var)))

    def init(self, static: Environment) -> list[Any]:
        leaves, other = self._leaves(static), self._unchanged(static)
        memories = []
        for part in self.parts:
            # States that a rule adds, such as e-prop's filters, are no states of the model: they go into the memory.
            added = [leaf for slot in part.info.hidden[len(self.info.hidden) :] for leaf in slot.initial]
            memories.append((added, part.kernel.init(part.static_values(leaves, other))))
        return memories

    def run(
        self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, *, fresh: bool, keep: bool
    ) -> ChunkResult:
        leaves, count = self._leaves(static), len(self.info.hidden)
        gradients: dict[Var, Any] = {}
        results, memories = [], []
        for part, (added, memory) in zip(self.parts, state.memory, strict=True):
            # Each part runs the step from the same old states: D, f and L have to be those of its own program.
            before = LearnerState([*state.hidden, *added], state.other, memory)
            result, by_leaf = part.run(loss, leaves, before, chunk, fresh=fresh, keep=keep)
            results.append(result)
            memories.append((result.state.hidden[count:], result.state.memory))
            # The kernel also gives gradients of the other rules' parameters, which need not be right after ``only``.
            wanted = {var for k in part.parameters for var in self._leaves_of(k)}
            gradients |= {v: g for v, g in zip(self.info.weight_invars, by_leaf, strict=True) if v in wanted}
        # What rules add to a program never changes the model's own numbers, so any part's outputs will do.
        first = results[0]
        after = LearnerState(first.state.hidden[:count], first.state.other, memories)
        by_variable = {var: gradients[var] for var in self.variables}
        return ChunkResult(by_variable, first.losses, first.outputs, after)

    def lasting(self, memory: list[Any]) -> list[Any]:
        return [part.kernel.lasting(part_memory) for part, (_, part_memory) in zip(self.parts, memory, strict=True)]

    def restarted(self, memory: list[Any], lasting: list[Any], seed: Any) -> list[Any]:
        parts = zip(self.parts, memory, lasting, strict=True)
        return [(added, part.kernel.restarted(part_memory, lasts, seed)) for part, (added, part_memory), lasts in parts]

    def kept(self) -> list[tuple[tuple[int, ...], str]]:
        rows = []
        for part in self.parts:
            for slots, text in part.kernel.kept():
                of_part = tuple(k for k in slots if k in part.parameters)
                rows += [(of_part, f"{part.rule}: {text}")] if of_part else []
        return rows

    def approximations(self) -> list[str]:
        return [
            f"{line} ({', '.join(path_text(self.info.parameters[k].path) for k in sorted(part.parameters))})"
            for part in self.parts
            for line in part.kernel.approximations()
        ]

    def step_bytes(self) -> int:
        return sum(part.kernel.step_bytes() for part in self.parts)

    def _leaves(self, static: Environment) -> list[Any]:
        return [static[var] for var in self.info.weight_invars]

    def _unchanged(self, static: Environment) -> list[Any]:
        """The leaves of other states; those that change are not read by what is static."""
        unchanged = stages_of(self.info).unchanged
        return [static[var] if var in unchanged else None for var in self.info.other_invars]

    def _leaves_of(self, parameter: int) -> list[Var]:
        return self.info.weight_path_to_invars[self.info.parameters[parameter].path]
