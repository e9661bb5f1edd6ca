"""Options for facts that NIR files may not state, shared by all commands that read graphs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..nir.options import NirOptions

NOTHING_GIVEN = NirOptions()

OPTIONS = {
    "dt": Annotated[
        float | None, typer.Option("--dt", help="Time step in seconds, if the NIR file does not state it.")
    ],
    "reset": Annotated[
        str | None,
        typer.Option(
            "--reset", help="zero or subtract: how a spike resets the neuron, if the NIR file does not state it."
        ),
    ],
    "recurrent_delay": Annotated[
        int | None,
        typer.Option(
            "--recurrent-delay", help="Delay in steps of edges that close a cycle, if the NIR file does not state it."
        ),
    ],
    "integration": Annotated[
        str | None,
        typer.Option("--integration", help="euler or exponential, if the NIR file does not state it. Default: euler."),
    ],
}


def takes_nir_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with four options in place of its argument ``nir``.

    Typer turns every parameter into an option, so without this each command would list and pass on all four.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters = [
        parameter
        for argument in signature.parameters.values()
        for parameter in (_on_the_command_line() if argument.name == "nir" else [argument])
    ]

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        nir = NirOptions(**{name: values.pop(name) for name in OPTIONS})
        command(**values, nir=nir)

    with_options.__dict__["__signature__"] = signature.replace(parameters=parameters)
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options


def _on_the_command_line() -> list[inspect.Parameter]:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [inspect.Parameter(name, kind, default=None, annotation=option) for name, option in OPTIONS.items()]
