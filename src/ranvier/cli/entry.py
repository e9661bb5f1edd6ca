"""Entry point of the command, which imports almost nothing before Ctrl-C is handled."""

from __future__ import annotations

from .interrupt import ending_imports_at_once


def run() -> None:
    with ending_imports_at_once():
        from .main import run as run_command

        run_command()
