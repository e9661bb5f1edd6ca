"""Commands, options and exit codes.

Exit codes: 0 done, 1 the job cannot be done (one line on standard error says why), 2 wrong use of the command line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..errors import RanvierError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="An optimizing compiler for spiking neural networks on JAX.",
)

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="package.module:object_or_factory, or path/to/file.py:object_or_factory. The object is a model, or "
        "(model, *example_inputs); a factory is called without arguments and returns either.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"ranvier {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Analyse, optimize and train spiking neural networks."""


@app.command()
def show(
    model: ModelArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="SHAPE", help="Shape of an example input: 3, or 2,3, or 3:int32. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the model into a .svg, .png or .html file.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why each parameter is, or is not, related to each group.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Show how a model is built: hidden states, groups, relations, and memory of each learning rule."""
    from ..driver.show import show_model

    show_model(Console(), model, inputs or [], as_json=as_json, picture=picture, explain=explain)


@app.command()
def demo(debug: Debug = False) -> None:
    """Train a spiking network on handwritten digits online, and say what it took."""
    from ..driver.demo import run_demo

    run_demo(Console())


@app.command()
def tour(debug: Debug = False) -> None:
    """Analyse the bundled ALIF network and say what each analysis means."""
    from ..driver.tour import run_tour

    run_tour(Console())


def run() -> None:
    """Entry point of the command: errors on purpose become one line and exit code 1."""
    try:
        app()
    except RanvierError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"ranvier: {error}", err=True)
        sys.exit(1)
