"""The job behind ``ranvier passes``."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields

from rich.console import Console

from ..ir.table import table
from ..passes.levels import LEVELS
from ..passes.registry import pass_class, pass_names
from .show import print_plain


def list_passes(console: Console) -> None:
    """Prints all passes with their promise and options, and the levels."""
    rows = []
    for name in pass_names():
        kind = pass_class(name)
        first = (inspect.getdoc(kind) or "").partition(".")[0].replace("\n", " ")
        options = ", ".join(f"{f.name}={json.dumps(f.default)}" for f in fields(kind))
        rows.append((name, str(kind.promise), options, first))
    print_plain(console, "\n".join(table(("pass", "promise", "options", ""), rows, indent="")))
    print_plain(console, "")
    print_plain(console, "\n".join(f"{level}: {text or 'nothing'}" for level, text in LEVELS.items()))


def explain_pass(console: Console, name: str) -> None:
    """Prints what a pass says of itself."""
    print_plain(console, f"{name}: {inspect.getdoc(pass_class(name))}")
