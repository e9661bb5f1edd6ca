"""A gradient of a whole sequence as one XLA program, with what it took to compile and what it holds in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import brainunit as u
import jax
import numpy as np

from .timing import collected

Gradients = Mapping[tuple[Any, ...], Any]
"""Path of a parameter to its gradient, a pytree in the parameter's own form."""


@dataclass(frozen=True)
class Program:
    """A jitted function that returns (new states, gradients), and its arguments.

    Attributes:
        function: what to lower and compile.
        args: what to call it with.
        trace_bytes: eligibility traces, where it reads and writes them at every step; 0 elsewhere.
    """

    function: Any
    args: tuple[Any, ...]
    trace_bytes: int = 0


@dataclass(frozen=True)
class Compiled:
    """A compiled program with its arguments.

    Attributes:
        executable: gives new states and gradients.
        args: its arguments, the first states and traces among them.
        seconds: time to analyze, trace and compile it.
        bytes: memory by XLA's analysis: arguments, results and temporaries, what shares memory counted once.
        trace_bytes: see :class:`Program`.
    """

    executable: Callable[..., Any]
    args: tuple[Any, ...]
    seconds: float
    bytes: int
    trace_bytes: int

    def run(self) -> Any:
        """One sequence from the first states; waits for the results."""
        return jax.block_until_ready(self.executable(*self.args))

    def gradients(self) -> Gradients:
        return self.run()[1]


def compile_program(make: Callable[[], Program]) -> Compiled:
    """Compiles from nothing: JAX forgets all traced functions first, and ``make`` counts."""
    jax.clear_caches()
    with collected():
        start = time.perf_counter()
        program = make()
        executable = program.function.lower(*program.args).compile()
        seconds = time.perf_counter() - start
    return Compiled(executable, program.args, seconds, _memory(executable), program.trace_bytes)


def array_bytes(tree: Any) -> int:
    """Bytes of all arrays of a pytree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _memory(executable: Any) -> int:
    found = executable.memory_analysis()
    used = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return used - found.alias_size_in_bytes


def relative_difference(found: Any, reference: Any) -> float:
    """Norm of the difference of two arrays, units taken off, by the norm of the second."""
    first, second = (np.asarray(u.get_mantissa(value), np.float64) for value in (found, reference))
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))
