"""What belongs to the whole process stays as it was: random states, the root logger, matplotlib's backend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STATE = """
import logging, random, sys
import matplotlib, numpy as np

random.seed(1)
np.random.seed(2)
backend = matplotlib.get_backend()

def state():
    root, drawn = logging.getLogger(), np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy": (drawn[1].tolist(), *drawn[2:]),
        "root logger": (root.level, list(root.handlers), list(root.filters), logging.root.manager.disable),
        "backend": matplotlib.get_backend(),
        "settings": dict(matplotlib.rcParams),
        "interrupt": __import__("signal").getsignal(2),
        "hook": sys.excepthook,
        "numpy's errors": np.geterr(),
        "numpy's printing": np.get_printoptions(),
    }

before = state()
"""
MODEL = """
import ranvier

def step(params, state, x):
    v = 0.9 * state["v"] + x @ params["w"]
    return {"v": v}, v

model = ranvier.step_function(step, {"w": np.ones((3, 4), np.float32)}, {"v": np.zeros(4, np.float32)})
graph = ranvier.raise_model(model, np.zeros(3)).graph
"""
LEARN = """
import optax
learner = ranvier.compile(model, ranvier.D_RTRL(), np.zeros(3))
print(ranvier.analyse(model, np.zeros(3)).explain())
batch = np.ones((5, 3), np.float32), np.ones((5, 4), np.float32)
ranvier.fit(learner, [batch], lambda output, target: ((output - target) ** 2).sum(), optax.sgd(0.1), 1, checkpoint="c")
"""
GRAPH = """
ranvier.draw(ranvier.extract_module_info(model, np.zeros(3)), "model.png")
ranvier.draw(graph, "graph.html")
print(ranvier.optimize(graph, level="O1"))
ranvier.simulate(graph, {name: np.ones((5, 2, *node.shape), np.float32) for name, node in graph.inputs.items()})
ranvier.export_artifact(graph, "model.rva")
ranvier.export_source(graph, "model.py")
"""
COMPARE = """
after = state()
changed = [name for name in before if before[name] != after[name]]
assert not changed, changed
"""


@pytest.mark.slow
@pytest.mark.parametrize("paths", [LEARN, GRAPH], ids=["learning", "graphs"])
def test_the_main_paths_leave_global_state_as_it_was(paths: str, tmp_path: Path) -> None:
    code = STATE + MODEL + paths + COMPARE
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
