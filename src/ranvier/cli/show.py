"""The command ``ranvier show``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..frontends.extract import extract_module_info
from ..graph.printer import to_text
from ..graph.size import GraphSize
from ..graph.snn_graph import SNNGraph
from ..learn.rules.catalog import rule_memory
from ..program.program import ModuleInfo
from ..report.as_json import program_as_dict
from ..report.drawing import check_target
from ..report.explain import explain_program
from ..report.picture import draw
from ..report.summary import summary
from ..util.counting import counted
from .console import heading, print_plain
from .locate import locate_model


def show_model(
    console: Console, spec: str, input_specs: list[str], *, as_json: bool, picture: Path | None, explain: bool
) -> None:
    """Analyses the model that ``spec`` names, and prints the results."""
    if picture is not None:
        check_target(picture)
    model, inputs = locate_model(spec, input_specs)
    info = extract_module_info(model, *inputs)
    if as_json:
        print(json.dumps(program_as_dict(info, rule_memory(info)), indent=2))
    elif explain:
        print_plain(console, explain_program(info))
    else:
        print_summary(console, info)
    if picture is not None:
        written = draw(info, picture)
        if not as_json:
            print_plain(console, f"\npicture written to {written}")


def show_graph(
    console: Console, graph: SNNGraph, unsaid: Sequence[str] = (), *, as_json: bool, picture: Path | None
) -> None:
    """Prints the parts of a graph, and what its file does not state."""
    if picture is not None:
        check_target(picture)
    size = GraphSize.of(graph)
    if as_json:
        text, _ = to_text(graph)
        facts = {"name": graph.name, "dt": graph.dt, "size": size.as_dict(), "text": text, "unsaid": list(unsaid)}
        print(json.dumps(facts, indent=2))
    else:
        counts = ", ".join(f"{value:,} {name}" for name, value in size.as_dict().items())
        heading(console, f"{graph.name}: {counts}")
        print_plain(console, f"\n{to_text(graph)[0]}")
        if unsaid:
            heading(console, "\nThe values above are placeholders for what the file does not store:")
            print_plain(console, "\n".join(f"  {question}" for question in unsaid))
    if picture is not None:
        written = draw(graph, picture)
        if not as_json:
            print_plain(console, f"\npicture written to {written}")


def print_summary(console: Console, info: ModuleInfo) -> None:
    count = len(info.equations)
    heading(console, f"{info.name}: {counted(count, 'equation')} per time step")
    for title, lines in summary(info, rule_memory(info)):
        heading(console, f"\n{title}")
        print_plain(console, "\n".join(lines))
