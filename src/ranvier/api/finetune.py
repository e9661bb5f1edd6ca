"""Fine-tuning as a part of compression: what a user asks for. The training that comes of it is in
``staged_training.py``."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

from ..errors import InputError, PassError

if TYPE_CHECKING:
    from ..learn.kernel import Loss
    from ..learn.rule import Rule
    from ..learn.training.batches import Data

SCHEDULES = ("cubic", "one shot")
STAGES = 8


@dataclass(frozen=True, eq=False)
class Finetune:
    """How a network is trained between the stages of pruning, in ``ranvier.optimize(..., finetune=)``.

    Pruned synapses are absent: no stage and no training brings them back.

    Attributes:
        data: batches as for :func:`ranvier.fit`, with inputs as the model takes them. Validation samples of
            ``optimize`` should not be among them: they judge the result.
        loss: ``loss(output, target) -> scalar`` of one step.
        optimizer: an optax gradient transformation; its state is carried from stage to stage.
        epochs: passes over the data after each stage.
        rule: the learning rule; D_RTRL by default.
        schedule: ``"cubic"``: more weights at first and fewer at the end (Zhu and Gupta 2017, arXiv 1710.01878); or
            ``"one shot"``: all at once.
        stages: how many there are on the cubic schedule.
        reduction: of the losses of the steps, ``"mean"`` or ``"sum"``.

    Raises:
        InputError: a value does not fit.
    """

    data: Data
    loss: Loss
    optimizer: Any
    epochs: int = 1
    rule: Rule | None = None
    schedule: str = SCHEDULES[0]
    stages: int = STAGES
    reduction: str = "mean"

    def __post_init__(self) -> None:
        # Here and not above, so that optimization without training does not wait for learning to be imported.
        from ..learn.rule import Rule
        from ..learn.training.batches import check_data

        for name, value in (("epochs", self.epochs), ("stages", self.stages)):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise InputError(f"Finetune: {name}={value!r} must be a whole number of at least 1.")
        if self.schedule not in SCHEDULES:
            raise InputError(f"Finetune: schedule={self.schedule!r} is unknown; use one of {', '.join(SCHEDULES)}.")
        if not (hasattr(self.optimizer, "init") and hasattr(self.optimizer, "update")):
            raise InputError(
                f"Finetune: optimizer={self.optimizer!r}; pass an optax gradient transformation, e.g. optax.adam(1e-3)."
            )
        if self.rule is not None and not isinstance(self.rule, Rule):
            raise InputError(f"Finetune: rule={self.rule!r}; pass a learning rule, e.g. ranvier.D_RTRL().")
        check_data("Finetune: data", self.data, 2)


def check_finetune(finetune: Any, gradual: bool) -> None:
    """Raises PassError unless this is a fine-tuning, and there is something to prune."""
    if not isinstance(finetune, Finetune):
        raise PassError(f"finetune={finetune!r}: pass ranvier.Finetune(data=..., loss=..., optimizer=...).")
    if not gradual:
        raise PassError(
            "finetune= trains between the stages of prune with a sparsity, and these passes have none; add "
            "'prune{sparsity=0.9}', or use level='O3'."
        )
