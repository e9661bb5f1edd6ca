"""What a user writes, for pyright in strict mode and to be run: every name and attribute has to have a known type."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import assert_type

import numpy as np

import ranvier
from ranvier.types import Agreement, Analysis, Learner, OptimizationReport, Plan, Simulation, StepFunction


def network() -> ranvier.SNNGraph:
    """Three inputs, four neurons, one output."""
    weight = np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [2, 0, 0]])
    return ranvier.SNNGraph(
        name="network",
        dt=1e-3,
        inputs=[ranvier.Input("x", (3,), 0.0, 1.0)],
        populations=[ranvier.Population("h", (4,), ranvier.neurons.LIF(tau=5e-3, v_threshold=0.1))],
        projections=[
            ranvier.Projection("w", "x", "h", ranvier.operations.Linear(weight)),
            ranvier.Projection("o", "h", "y", ranvier.operations.Linear(np.ones((1, 4)))),
        ],
        outputs=[ranvier.Output("y", (1,))],
    )


def main() -> None:
    graph = network()
    inputs = np.ones((20, 3), np.float32)
    small, report = ranvier.optimize(graph, level="O1")
    assert_type(small, ranvier.SNNGraph)
    assert_type(report, OptimizationReport)
    simulated = ranvier.simulate(small, inputs)
    assert_type(simulated, Simulation)
    print(simulated.output.sum())

    model = ranvier.lower(small)
    assert_type(model, StepFunction)
    assert_type(ranvier.analyse(model, inputs[0]), Analysis)
    learner = ranvier.compile(model, ranvier.D_RTRL(), inputs[0])
    assert_type(learner, Learner)
    assert_type(learner.plan, Plan)
    agreement = ranvier.verify(graph, small, inputs)
    print(learner.plan, agreement)

    again, _ = ranvier.optimize(model, inputs=inputs[0], dt=1e-3)
    assert_type(again, StepFunction)
    with TemporaryDirectory() as folder:
        ranvier.save(small, Path(folder) / "small.snn")
        assert_type(ranvier.load(Path(folder) / "small.snn"), ranvier.SNNGraph)


def names_of(agreement: Agreement) -> str:
    """Result types can stand in annotations."""
    return str(agreement)


if __name__ == "__main__":
    main()
