"""Training checkpoints, stored by orbax: one run at a time per folder, and a damaged checkpoint is never resumed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path as FilePath
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import InputError, TrainingError, reason_text
from ...program._jax import is_key
from ...program.paths import path_text
from ...program.program import shape_text
from ...util.extras import require
from ...util.global_state import global_state_unchanged
from ...util.limits import MemoryBudget, TooLarge
from ...util.locks import locked
from ..learner import Learner

KEPT = 3
"""How many of the last epochs are kept."""
LOCK = ".training"
"""Name of the file that a training locks."""
History = list[dict[str, float]]


class Checkpoints:
    """The checkpoints of one training run in a directory; writing is atomic, and reading executes no code.

    Use it in a ``with`` block: the directory is locked within it.

    Args:
        directory: where they are; made if missing.
        learner: whose training it is.
        params: what it starts from; leaves are kept in the order of their structure.

    Raises:
        InputError: the directory cannot be used, or another training is using it.
        TrainingError: orbax is not installed.
    """

    @global_state_unchanged()
    def __init__(self, directory: str | os.PathLike[str], learner: Learner, params: Any = None) -> None:
        require("a checkpoint", "train", "orbax.checkpoint", error=TrainingError)
        import orbax.checkpoint as orbax

        self._orbax = orbax
        try:
            self._directory = FilePath(directory).absolute()
        except TypeError as error:
            raise InputError(f"checkpoint={directory!r} is not a path; pass the name of a directory.") from error
        if self._directory.exists() and not self._directory.is_dir():
            raise InputError(f"checkpoint={str(directory)!r} is a file; pass the name of a directory.")
        # Leaves are restored by their order, which differs between the two structures of parameters.
        nested = learner.by_path(params) is not params
        self._about = _fingerprint(learner) + (" in the model's own structure" if nested else "")
        self._open = ExitStack()

    @global_state_unchanged()
    def __enter__(self) -> Self:
        # Not asynchronous: when ``save`` returns, the epoch is on disk, and what went wrong in writing it is raised by
        # that call.
        options = self._orbax.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=False)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if not self._open.enter_context(locked(self._directory / LOCK)):
                raise InputError(
                    f"another training run is using the checkpoints in {self._directory}; wait until it ends, or pass "
                    "another directory."
                )
            self._manager = self._orbax.CheckpointManager(self._directory, options=options)
        except InputError:
            self._open.close()
            raise
        except Exception as error:  # orbax raises errors of many kinds
            self._open.close()
            raise InputError(f"checkpoint={str(self._directory)!r} cannot be used: {reason_text(error)}.") from error
        return self

    @global_state_unchanged()
    def __exit__(self, *_: object) -> None:
        self._manager.close()
        self._open.close()

    @global_state_unchanged()
    def save(self, epoch: int, state: Any, history: History) -> None:
        """Keeps the state after an epoch.

        Raises:
            TrainingError: it cannot be written.
        """
        args, leaves = self._orbax.args, jax.tree.leaves(state)
        # The history belongs to the state: a resumed training counts its epochs by it.
        about = {"about": self._about, "history": history, "sha256": _digest(leaves, history)}
        saved = args.Composite(state=args.StandardSave(leaves), about=args.JsonSave(about))
        try:
            self._manager.save(epoch, args=saved)
        except Exception as error:  # orbax raises errors of many kinds
            raise TrainingError(
                f"the checkpoint of epoch {epoch + 1} cannot be written to {self._directory}: {reason_text(error)}."
            ) from error

    @global_state_unchanged()
    def must_be_empty(self) -> None:
        """Raises :class:`InputError` if there are already checkpoints."""
        if self._manager.latest_step() is not None:
            raise InputError(
                f"{self._directory} already has checkpoints; pass resume=True to continue from them, or another "
                "directory."
            )

    @global_state_unchanged()
    def restore(self, like: Any) -> tuple[Any, History] | None:
        """The last state, in the structure of ``like``, and the history so far; None if there is no checkpoint.

        Raises:
            InputError: the checkpoint is damaged, or of another model, rule or optimizer.
        """
        epoch = self._manager.latest_step()
        if epoch is None:
            return None
        self._check_texts(epoch)
        about, history, digest = self._description(epoch)
        leaves, treedef = jax.tree.flatten(like)
        # Before any array is read: those of another model may have the same shapes and would be taken without a
        # complaint.
        if about != self._about:
            raise InputError(
                f"the checkpoints in {self._directory} belong to {about}, but this training run is of {self._about}; "
                "pass another directory."
            )
        # What comes back is checked against this, and against the hash: a damaged file may be read without an error,
        # too.
        expected = [jax.ShapeDtypeStruct(jnp.shape(x), jnp.asarray(x).dtype) for x in leaves]
        args = self._orbax.args
        try:
            restored = self._manager.restore(epoch, args=args.Composite(state=args.StandardRestore(expected)))["state"]
        except Exception as error:  # orbax raises errors of many kinds
            raise InputError(
                f"the checkpoint in {self._directory} does not fit this optimizer, or is damaged "
                f"({reason_text(error)}); use the optimizer it was written with, or {self._instead(epoch)}."
            ) from error
        if [(x.shape, x.dtype) for x in restored] != [(x.shape, x.dtype) for x in expected]:
            raise self._damaged(epoch, "its arrays have other shapes")
        if _digest(restored, history) != digest:
            raise self._damaged(epoch, "its content is not what was written")
        return jax.tree.unflatten(treedef, restored), history

    def _check_texts(self, epoch: int) -> None:
        """Raises :class:`InputError` if a text of a checkpoint is too long to be read.

        Arrays need no limit of their own: those that do not have the shapes of this training are not read.
        """
        texts = [file for file in (self._directory / str(epoch)).rglob("*") if file.is_file() and not _is_data(file)]
        try:
            for file in texts:
                size = file.stat().st_size
                # By itself, not by the size of the folder: a checkpoint is as large as the arrays in it.
                MemoryBudget(0).check_text(size, repr(str(file.relative_to(self._directory))))
        except TooLarge as error:
            raise InputError(
                f"the checkpoint of epoch {epoch + 1} in {self._directory} is too large: {error}."
            ) from error

    def _description(self, epoch: int) -> tuple[str, History, str]:
        """What a checkpoint says of itself: what it is of, the history, and the hash of its content."""
        args = self._orbax.args
        try:
            entries = self._manager.restore(epoch, args=args.Composite(about=args.JsonRestore()))["about"]
            about, history, digest = entries["about"], entries["history"], entries["sha256"]
        except Exception as error:  # orbax raises errors of many kinds
            raise self._damaged(epoch, reason_text(error)) from error
        if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
            raise self._damaged(epoch, "its history is not a list of epochs")
        return about, history, digest

    def _damaged(self, epoch: int, reason: str) -> InputError:
        return InputError(
            f"the checkpoint of epoch {epoch + 1} in {self._directory} is damaged: {reason}; {self._instead(epoch)}."
        )

    def _instead(self, epoch: int) -> str:
        """What can be done without the last checkpoint."""
        earlier = [step for step in self._manager.all_steps() if step < epoch]
        if not earlier:
            return "pass another directory"
        return f"remove its folder {epoch} to continue from epoch {max(earlier) + 1}, or pass another directory"


def _is_data(file: FilePath) -> bool:
    """Whether a file of a checkpoint holds arrays."""
    return file.parent.name == "d"


def _digest(leaves: Sequence[Any], history: History) -> str:
    """What tells a state and its history from damaged ones."""
    # Of the history as well: a damaged one would have the training start from another epoch with the right weights.
    digest = hashlib.sha256(json.dumps(history).encode())
    for leaf in leaves:
        values = np.asarray(jax.random.key_data(leaf) if is_key(jnp.asarray(leaf).dtype) else leaf)
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _fingerprint(learner: Learner) -> str:
    """The rule and the parameters with their shapes."""
    slots = ", ".join(
        f"{path_text(s.path)} {' '.join(shape_text(x.shape) for x in s.leaves)}" for s in learner.info.parameters
    )
    # A modulator prints with its address in memory, which differs from process to process.
    rule = re.sub(r" at 0x[0-9a-f]+", "", repr(learner.rule))
    return f"{rule} with {slots}"
