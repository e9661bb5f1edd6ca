"""The progress of a training run, shown while it runs."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class TrainingProgress(Protocol):
    """Receives the progress of a training run."""

    def start_epoch(self, epoch: int) -> None: ...

    def show(self, numbers: Mapping[str, float], done: int | None = None, total: int | None = None) -> None:
        """Shows loss and metrics, after ``done`` of ``total`` batches; None where these are not known or as before."""


class NoProgress:
    """Shows nothing."""

    def start_epoch(self, epoch: int) -> None: ...

    def show(self, numbers: Mapping[str, float], done: int | None = None, total: int | None = None) -> None: ...


class ProgressBars:
    """A bar for every epoch."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._epoch: TaskID | None = None

    def start_epoch(self, epoch: int) -> None:
        self._epoch = self._bars.add_task(f"epoch {epoch + 1}", numbers="")

    def show(self, numbers: Mapping[str, float], done: int | None = None, total: int | None = None) -> None:
        if self._epoch is not None:
            text = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
            self._bars.update(self._epoch, completed=done, total=total, numbers=text)


@contextmanager
def progress_shown(wanted: bool) -> Generator[TrainingProgress]:
    """Shows progress bars in the terminal during a training run, or nothing if they are not wanted."""
    if not wanted:
        yield NoProgress()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[numbers]}")) as bars:
        yield ProgressBars(bars)
