"""One library running one network, for :mod:`.inference_time`."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import typer

from .inference_networks import Case, cases, graph_of
from .processes import peak_memory
from .timing import run_time

OURS, WHOLE = "Ranvier", "all weights"
REPEATS = 7


@dataclass(frozen=True)
class Measured:
    """Median seconds of a sequence, peak memory in bytes, and the mean output."""

    seconds: float
    peak: int
    mean: float


def _runner(library: str, case: Case, inputs: np.ndarray) -> Any:
    if library in (OURS, WHOLE):
        import ranvier
        from ranvier.simulation import products

        if library == WHOLE:
            products.SMALLEST = 2**62
        simulator, xs = ranvier.Simulator(graph_of(case)), jnp.asarray(inputs)
        return lambda: simulator(xs).output
    from .inference_peers import PEERS

    return PEERS[library](case, inputs)


def main(library: str, number: int, samples: int) -> None:
    """Prints what a library takes for the network of a number, as JSON."""
    case = cases()[number]
    run = _runner(library, case, case.inputs(samples))
    mean = float(np.mean(run()))
    seconds = statistics.median(run_time(run) for _ in range(REPEATS))
    print(json.dumps(asdict(Measured(seconds, peak_memory(), mean))))


if __name__ == "__main__":
    typer.run(main)
