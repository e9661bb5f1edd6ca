"""Compiled programs, shared: two functions that lower to the same text are compiled once.

A search that tries a pass at ten strengths runs ten graphs that differ in the values of their weights only. Weights are
arguments of the program, so all ten lower to one text and are compiled once. The text holds everything that the
compiler reads, so unlike a key made of the graph's features it cannot leave out one that matters. It does not hold the
names of arguments and results in dictionaries, which a compiled program checks; so the trees are part of the key too.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

import jax

MOST = 128
"""Programs that are kept, those used last."""
_programs: OrderedDict[tuple[Hashable, ...], Callable[..., Any]] = OrderedDict()
_lock = Lock()


def compiled(function: Callable[..., Any], *operands: Any) -> Callable[..., Any]:
    """A function compiled for operands of these shapes and dtypes.

    Args:
        function: of arrays in pytrees; large arrays that it closes over become part of the text.
        operands: arrays, or ``jax.ShapeDtypeStruct``.
    """
    if getattr(jax.config, "jax_disable_jit"):  # noqa: B009
        return function
    lowered = jax.jit(function).lower(*operands)
    text = hashlib.sha256(lowered.as_text().encode()).hexdigest()
    # What the function does not read is not in the text either, but a program takes only operands of its own shapes.
    avals = tuple(map(str, jax.tree.leaves(lowered.in_avals)))
    key = (text, lowered.in_tree, lowered.out_tree, avals, *_placement(operands))
    with _lock:
        if key in _programs:
            _programs.move_to_end(key)
            return _programs[key]
    # Compiling takes long, so others are not kept waiting for it; two threads may compile one text, which does no harm.
    program = lowered.compile()
    with _lock:
        _programs[key] = program
        while len(_programs) > MOST:
            _programs.popitem(last=False)
    return program


def _placement(operands: Any) -> tuple[str, ...]:
    """What decides on the machine code and is not in the text: devices, and how much is optimized."""
    quick = jax.config.read("jax_disable_most_optimizations")
    settings = (jax.default_backend(), getattr(jax.config, "jax_default_device"), quick)  # noqa: B009
    arrays = [x for x in jax.tree.leaves(operands) if isinstance(x, jax.Array)]
    return (*map(str, settings), *sorted({str(x.sharding) for x in arrays}))
