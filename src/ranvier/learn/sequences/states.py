"""The state of a learner: before the first sequence, before a later one, and as a caller passes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import InputError
from ...program.program import ModuleInfo, Slot
from ...program.random import fold_in, is_random
from ..state import LearnerState


def initial_leaves(slots: Sequence[Slot]) -> list[jax.Array]:
    """Leaves of states before the first step, as arrays of their own, so that they can be donated."""
    return [jnp.array(leaf, copy=True) for slot in slots for leaf in slot.initial]


def reseeded_leaves(info: ModuleInfo, state: LearnerState, seed: Any) -> list[jax.Array]:
    """Leaves of the other states, with the seed folded into random keys."""
    leaves, start = [], 0
    for slot in info.other:
        end = start + len(slot.leaves)
        of_slot = state.other[start:end]
        # Only keys: with the same ones, every sequence of a training would see the same noise.
        leaves += [fold_in(leaf, seed) for leaf in of_slot] if is_random(slot) else of_slot
        start = end
    return leaves


def check_state(state: Any, form: Any, learner_text: str) -> None:
    """Raises :class:`InputError` unless a state belongs to this learner.

    Args:
        state: what a caller passes.
        form: shapes and dtypes of the state that :meth:`Learner.init` gives.
        learner_text: what the learner is, in words.
    """
    arrays = jax.tree.map(jnp.asarray, state) if isinstance(state, LearnerState) else None
    is_alike = arrays is not None and jax.tree.structure(arrays) == jax.tree.structure(form)
    pairs = zip(jax.tree.leaves(arrays), jax.tree.leaves(form), strict=True) if is_alike else ()
    if not is_alike or any((a.shape, a.dtype) != (b.shape, b.dtype) for a, b in pairs):
        actual = f"a {type(state).__name__}" if arrays is None else "one of another model, rule or batch size"
        raise InputError(
            f"state is {actual}, not a state of this learner ({learner_text}); pass learner.init(), or the aux.state "
            "that a call of this learner returned."
        )
