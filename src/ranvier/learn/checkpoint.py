"""Checkpoints of training, by orbax."""

from __future__ import annotations

import os
import re
from pathlib import Path as FilePath
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import InputError, TrainingError, reason_text
from ..ir.extras import require
from ..ir.paths import path_text
from ..ir.program import shape_text
from .learner import Learner

KEPT = 3
"""How many of the last epochs are kept."""


class Checkpoints:
    """The checkpoints of one training in a directory; writing is atomic, reading evaluates nothing.

    Args:
        directory: where they are; made if missing.
        learner: whose training it is.
    """

    def __init__(self, directory: str | os.PathLike[str], learner: Learner) -> None:
        require("a checkpoint", "train", "orbax.checkpoint", error=TrainingError)
        import orbax.checkpoint as orbax

        self._orbax = orbax
        try:
            self._directory = FilePath(directory).absolute()
        except TypeError as error:
            raise InputError(f"checkpoint={directory!r} is no path; give the name of a directory.") from error
        if self._directory.exists() and not self._directory.is_dir():
            raise InputError(f"checkpoint={str(directory)!r} is a file; give the name of a directory.")
        options = orbax.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=False)
        try:
            self._manager = orbax.CheckpointManager(self._directory, options=options)
        except OSError as error:
            raise InputError(f"checkpoint={str(directory)!r} cannot be used: {reason_text(error)}.") from error
        self._about = _fingerprint(learner)

    def save(self, epoch: int, state: Any, history: list[dict[str, float]]) -> None:
        """Keeps the state after an epoch."""
        args = self._orbax.args
        about = {"about": self._about, "history": history}
        saved = args.Composite(state=args.StandardSave(jax.tree.leaves(state)), about=args.JsonSave(about))
        self._manager.save(epoch, args=saved)

    def must_be_empty(self) -> None:
        """Raises :class:`InputError` where there already are checkpoints."""
        if self._manager.latest_step() is not None:
            raise InputError(
                f"{self._directory} already has checkpoints; pass resume=True to go on from them, or another directory."
            )

    def restore(self, like: Any) -> tuple[Any, list[dict[str, float]]] | None:
        """The last state, of the structure of ``like``, and the history so far; None where there is none.

        Raises:
            InputError: the checkpoint is of another model, rule or optimizer.
        """
        epoch = self._manager.latest_step()
        if epoch is None:
            return None
        args = self._orbax.args
        about = self._manager.restore(epoch, args=args.Composite(about=args.JsonRestore()))["about"]
        leaves, treedef = jax.tree.flatten(like)
        if about["about"] != self._about:
            raise InputError(
                f"the checkpoints in {self._directory} are of {about['about']}, but this training is of {self._about}; "
                "give another directory."
            )
        expected = [jax.ShapeDtypeStruct(jnp.shape(x), jnp.asarray(x).dtype) for x in leaves]
        try:
            found = self._manager.restore(epoch, args=args.Composite(state=args.StandardRestore(expected)))["state"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the checkpoint in {self._directory} does not fit this optimizer ({type(error).__name__}); use the "
                "optimizer it was written with, or another directory."
            ) from error
        return jax.tree.unflatten(treedef, found), about["history"]


def _fingerprint(learner: Learner) -> str:
    """The rule and the parameters with their shapes."""
    slots = ", ".join(
        f"{path_text(s.path)} {' '.join(shape_text(x.shape) for x in s.leaves)}" for s in learner.info.parameters
    )
    rule = re.sub(r" at 0x[0-9a-f]+", "", repr(learner.rule))
    return f"{rule} with {slots}"
