"""A progress bar for commands that take a long time."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import printable


@contextmanager
def steps_shown(console: Console) -> Generator[Callable[[str], None]]:
    """A bar with the current step and the time so far, which disappears at the end.

    Yields:
        A function that shows a text as the current step.
    """
    columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        # How many steps there will be is not known: passes run until nothing changes.
        task = bar.add_task("starting", total=None)
        yield lambda text: bar.update(task, description=printable(text))
