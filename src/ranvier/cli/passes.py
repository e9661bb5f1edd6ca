"""The command ``ranvier passes``."""

from __future__ import annotations

import inspect
from dataclasses import fields

from rich.console import Console

from ..passes.levels import LEVELS
from ..passes.registry import pass_class, pass_names
from .console import print_plain


def list_passes(console: Console) -> None:
    """Prints all passes with their promises and options, and the levels."""
    for name in pass_names():
        kind = pass_class(name)
        first = (inspect.getdoc(kind) or "").partition(".")[0].replace("\n", " ")
        print_plain(console, f"{name} ({kind.promise}): {first}.")
        if options := ", ".join(f"{f.name}={_text(f.default)}" for f in fields(kind)):
            print_plain(console, f"  options: {options}")
    print_plain(console, "")
    print_plain(console, "\n".join(f"{level}: {text or 'nothing'}" for level, text in LEVELS.items()))


def _text(value: object) -> str:
    return "none" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value).lower()


def explain_pass(console: Console, name: str) -> None:
    """Prints the documentation of a pass."""
    print_plain(console, f"{name}: {inspect.getdoc(pass_class(name))}")
