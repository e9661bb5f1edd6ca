"""Plain text on the console."""

from __future__ import annotations

from rich.console import Console

from ..errors import printable


def heading(console: Console, text: str) -> None:
    console.print(printable(text), style="bold", markup=False, highlight=False, soft_wrap=True)


def print_plain(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
