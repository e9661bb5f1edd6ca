"""Commands, options and exit codes.

Exit codes: 0 for success, 1 if the command fails (a line on standard error says why), 2 for wrong arguments, 130 if it
was interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..errors import GraphError, RanvierError
from ..nir.options import NirOptions
from .interrupt import INTERRUPTED, ending_imports_at_once
from .nir_options import NOTHING_GIVEN, takes_nir_options

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
ExampleInputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="SHAPE", help="Shape of an example input: 3, or 2,3, or 3:int32. Repeatable."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
GraphArgument = Annotated[Path, typer.Argument(metavar="GRAPH", help="A .nir or .snn file.")]
InputsFile = Annotated[
    Path, typer.Option("--inputs", metavar="FILE", help="A .npz file with an array [T, samples, ...] for every input.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"ranvier {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Analyse, optimize and train spiking neural networks."""


@app.command()
@takes_nir_options
def show(
    model: ModelArgument,
    inputs: ExampleInputs = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw a picture of the model: .svg, .png or .html.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why each parameter is, or is not, related to each group.")
    ] = False,
    nir: NirOptions = NOTHING_GIVEN,
    debug: Debug = False,
) -> None:
    """Show how a model is built: hidden states, groups, relations, and the memory that each learning rule needs.

    For a .nir or .snn file, show populations, projections and sizes.
    """
    from .graph_file import is_graph_file, read_structure
    from .show import show_graph, show_model

    if is_graph_file(model):
        if inputs or explain:
            raise GraphError(
                "--input and --explain are for models; a graph file declares its own inputs and has no relations."
            )
        graph, unsaid = read_structure(model, nir)
        show_graph(Console(), graph, unsaid, as_json=as_json, picture=picture)
    else:
        show_model(Console(), model, inputs or [], as_json=as_json, picture=picture, explain=explain)


@app.command()
@takes_nir_options
def opt(
    graph: GraphArgument,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Where to write the optimized network (.nir or .snn)."),
    ] = None,
    level: Annotated[
        str,
        typer.Option(
            "-O",
            "--level",
            help="1: bitwise and algebraic passes; 2: profiled passes too; 3: approximate passes too. 0: none.",
        ),
    ] = "2",
    goal: Annotated[
        str | None,
        typer.Option(
            help="What -O3 makes smaller: time (whole neurons), size (weights; the default), synops (spikes)."
        ),
    ] = None,
    passes: Annotated[
        str | None,
        typer.Option(
            "--passes",
            metavar="PIPELINE",
            help="The passes to run, instead of a level: 'dead-neurons,prune{sparsity=0.8}'.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A .npz file with an array for every input and, optionally, labels and a mask."
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Such a file to measure losses on. Default: half of the samples of the calibration data.",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="For -O3: the accuracy to give up or, without labels, the change of the outputs. Default: 0.01."
        ),
    ] = None,
    confidence: Annotated[float, typer.Option(help="With which a loss on unseen data is within the budget.")] = 0.95,
    input_range: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Smallest and largest value of the inputs, for proving neurons silent."),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the full report as an .html page.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
    verify_each: Annotated[bool, typer.Option(help="Run the network before and after every pass.")] = True,
    counterexample: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to write the inputs on which a pass breaks its promise.")
    ] = Path("counterexample.npz"),
    bisect_limit: Annotated[int | None, typer.Option(help="Run only the first N passes.")] = None,
    print_after_all: Annotated[
        bool, typer.Option("--print-after-all", help="Print the graph after each pass.")
    ] = False,
    time_passes: Annotated[bool, typer.Option("--time-passes", help="Print the time of every pass.")] = False,
    remarks: Annotated[
        bool, typer.Option("--remarks", help="Print what each pass did, and what it did not do and why.")
    ] = False,
    neurons: Annotated[
        bool, typer.Option("--neurons", help="Like --remarks, with the numbers of the neurons.")
    ] = False,
    nir: NirOptions = NOTHING_GIVEN,
    debug: Debug = False,
) -> None:
    """Make a network smaller, and check that it behaves the same."""
    from ..passes.options import OptimizeOptions
    from .graph_file import read_graph
    from .opt import Request, Results, run_opt

    options = OptimizeOptions(
        budget=budget,
        confidence=confidence,
        verify_each=verify_each,
        counterexample=counterexample,
        print_after_all=print_after_all,
        bisect_limit=bisect_limit,
    )
    original = read_graph(graph, nir)
    run_opt(
        Console(),
        original,
        Request(passes, level, goal, calibration, validation, input_range, options),
        Results(output, report, as_json, time_passes, remarks, neurons),
    )


@app.command()
@takes_nir_options
def verify(
    original: Annotated[
        Path, typer.Argument(metavar="ORIGINAL", help="A .nir or .snn file; or only the .npz of a counterexample.")
    ],
    optimized: Annotated[Path | None, typer.Argument(metavar="OPTIMIZED", help="A .nir or .snn file.")] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .npz file with an array for every input. Default: random inputs."),
    ] = None,
    promise: Annotated[
        str | None,
        typer.Option(
            help="bitwise, algebraic, profiled or approximate. Default: algebraic, or what a counterexample broke."
        ),
    ] = None,
    input_range: Annotated[
        tuple[float, float] | None, typer.Option(help="Smallest and largest value of random inputs.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random inputs.")] = 0,
    counterexample: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write the inputs on which the networks differ.")
    ] = None,
    nir: NirOptions = NOTHING_GIVEN,
    debug: Debug = False,
) -> None:
    """Run two networks side by side; exit with code 1 if they behave differently."""
    from .graph_file import read_graph
    from .verify import run_replay, run_verify

    if optimized is None:
        if original.suffix != ".npz":
            raise GraphError("verify needs two graphs, or the .npz of a counterexample.")
        promise_holds = run_replay(Console(), original, promise)
    else:
        # The options are for .nir files. A .snn file contains these facts, and read_graph refuses options for it.
        graphs = [
            read_graph(path, nir if path.suffix.lower() == ".nir" else NOTHING_GIVEN) for path in (original, optimized)
        ]
        promise_holds = run_verify(
            Console(),
            graphs[0],
            graphs[1],
            inputs=inputs,
            promise=promise,
            seed=seed,
            counterexample=counterexample,
            input_range=input_range,
        )
    if not promise_holds:
        raise typer.Exit(1)


@app.command()
@takes_nir_options
def simulate(
    graph: GraphArgument,
    inputs: InputsFile,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="A .npz file for the outputs and recordings.")
    ] = None,
    record: Annotated[
        list[str] | None, typer.Option(help="What to record: a population, or population.state. Repeatable.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    nir: NirOptions = NOTHING_GIVEN,
    debug: Debug = False,
) -> None:
    """Simulate a network."""
    from .graph_file import read_graph
    from .simulate import run_simulation

    run_simulation(Console(), read_graph(graph, nir), inputs, output, record or [], dtype)


@app.command()
@takes_nir_options
def export(
    model: ModelArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write: .rva, .py or .nir.")
    ],
    inputs: ExampleInputs = None,
    batched: Annotated[
        bool,
        typer.Option(
            "--batched", help="The model has its own axis of samples. Other models run with any number of samples."
        ),
    ] = False,
    nir: NirOptions = NOTHING_GIVEN,
    debug: Debug = False,
) -> None:
    """Write a model, or a .nir or .snn file, as an artifact, as Python source that needs only JAX, or as NIR."""
    from .export import run_export
    from .graph_file import is_graph_file, read_graph
    from .locate import locate_model

    if is_graph_file(model):
        run_export(Console(), read_graph(model, nir), (), output, batched=batched)
    else:
        run_export(Console(), *locate_model(model, inputs or []), output, batched=batched)


@app.command("run")
def run_command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A .rva file.")],
    inputs: InputsFile,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="A .npz file for the outputs.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random states.")] = 0,
    debug: Debug = False,
) -> None:
    """Run an artifact over a sequence."""
    from .export import run_artifact

    run_artifact(Console(), artifact, inputs, output, seed)


@app.command()
def passes(
    name: Annotated[str | None, typer.Argument(help="A pass to explain. Default: list all passes.")] = None,
    debug: Debug = False,
) -> None:
    """List the passes with their promises and options."""
    from .passes import explain_pass, list_passes

    if name is None:
        list_passes(Console())
    else:
        explain_pass(Console(), name)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder for the NIR file and the report.")] = Path(
        "ranvier-demo"
    ),
    debug: Debug = False,
) -> None:
    """Train a network on handwritten digits, make it smaller, check it, keep training, and export it to NIR."""
    from .demo import run_demo

    run_demo(Console(), folder)


@app.command()
def tour(debug: Debug = False) -> None:
    """Analyse the bundled ALIF network and explain each analysis."""
    from .tour import run_tour

    run_tour(Console())


def run() -> None:
    """Entry point of the command: Ranvier's own errors become a line on standard error and exit code 1."""
    try:
        with ending_imports_at_once():
            app()
    except RanvierError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"ranvier: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
