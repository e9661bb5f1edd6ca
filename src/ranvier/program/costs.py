"""What products of matrices cost on this machine, so that each is computed in the form that is fastest here.

Two forms are compared: a dense product reads every element, a sparse one only the synapses, but takes longer for each.
With 0.1 ns for an element and 1.5 ns for a synapse, a matrix with fewer than a fifteenth of its elements is faster as
synapses. Both numbers differ between machines and between one sample and many, so they are measured once, in about a
second, and kept in a file.

``RANVIER_COSTS`` overrides this: the path of another file, or ``default`` for the numbers below, with which runs on
different machines choose alike.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..util.files import write_atomically
from .gather_scatter import MANY, total_of_synapses

VARIABLE = "RANVIER_COSTS"
DEFAULT = "default"
SIZE, DENSITY, BATCH, STEPS, FEW_STEPS, REPEATS = 512, 0.1, 32, 20, 2, 5
AT_ONCE = 1024
"""Samples from which on, or steps of samples, products run at full speed."""
SURELY = 2.0
"""How many times as fast synapses must seem: they are read in no order, so that larger networks than the measured one,
which do not fit in the cache, take longer for each."""
NARROW = 16
"""Sources or targets below which dense products do not run at full speed."""


@dataclass(frozen=True)
class Costs:
    """Nanoseconds, on one machine.

    Attributes:
        dense: for an element of a dense matrix and one sample.
        dense_in_batch: for an element and each sample of a batch.
        dense_at_once: the same for all steps of a batch at once, where a product runs at full speed.
        sparse: for a synapse and one sample.
        sparse_in_batch: for a synapse and each sample of a batch.
        sparse_at_once: the same for all steps of a batch at once.
    """

    dense: float = 0.07
    dense_in_batch: float = 0.025
    dense_at_once: float = 0.012
    sparse: float = 2.0
    sparse_in_batch: float = 0.6
    sparse_at_once: float = 0.8

    def is_sparse_faster(self, synapses: int, shape: tuple[int, int], samples: int) -> bool:
        """Whether a product with the synapses of a matrix is faster than one with the matrix."""
        if samples < MANY:
            sparse, dense = self.sparse, self.dense
        elif samples < AT_ONCE:
            sparse, dense = self.sparse_in_batch, self.dense_in_batch
        else:
            sparse, dense = self.sparse_at_once, self.dense_at_once
        elements = max(shape[0], NARROW) * max(shape[1], NARROW)
        return SURELY * synapses * sparse < elements * dense


def costs() -> Costs:
    """Those of this machine, measured at the first call if nobody has measured them before."""
    return _costs(os.environ.get(VARIABLE, ""))


@cache
def _costs(place: str) -> Costs:
    if place == DEFAULT:
        return Costs()
    path = Path(place) if place else _usual_place()
    known = _read(path)
    if known is not None:
        return known
    measured = measure()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(measured)).encode())
    except OSError:
        pass  # Nowhere to write: the next process measures again.
    return measured


def _usual_place() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # A home directory may be shared by machines, and an environment by versions of JAX.
    machine = f"{platform.node()}-{platform.machine()}-{os.cpu_count()}-{jax.default_backend()}-{jax.__version__}"
    return root / "ranvier" / f"costs-{''.join(c if c.isalnum() or c in '-.' else '_' for c in machine)}.json"


def _read(path: Path) -> Costs | None:
    """The costs in a file; None if it does not hold any."""
    try:
        values = json.loads(path.read_bytes()[:4096])
        numbers = {f.name: float(values[f.name]) for f in fields(Costs)}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return Costs(**numbers) if all(0 < x < math.inf for x in numbers.values()) else None


def measure() -> Costs:
    """Measures products as simulations run them: in a loop over steps, with the result of one as the next one's
    source."""
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((SIZE, SIZE)) < DENSITY, rng.normal(size=(SIZE, SIZE)), 0).astype(np.float32)
    targets, sources = np.nonzero(weight)
    values, elements = weight[targets, sources], weight.size
    cases = ((1, STEPS), (BATCH, STEPS), (AT_ONCE, FEW_STEPS))
    forms = ((_dense, weight, elements), (_sparse(targets, sources), values, values.size))
    dense, sparse = (
        [1e9 * _seconds(product, numbers, *case) / (count * case[0] * case[1]) for case in cases]
        for product, numbers, count in forms
    )
    return Costs(*dense, *sparse)


def _dense(weight: Any, x: Any) -> Any:
    return x @ weight


def _sparse(targets: np.ndarray, sources: np.ndarray) -> Callable[[Any, Any], Any]:
    ends = sources.astype(np.int32), targets.astype(np.int32)
    return lambda values, x: total_of_synapses(values, *ends, SIZE, x)


def _seconds(product: Callable[[Any, Any], Any], weight: np.ndarray, samples: int, steps: int) -> float:
    def run(weight: Any, x: Any) -> Any:
        return jax.lax.scan(lambda x, _: (0.1 + 0.5 * jnp.tanh(product(weight, x)), None), x, None, length=steps)[0]

    compiled, x = jax.jit(run), jnp.ones((samples, SIZE), jnp.float32)
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(weight, x))
        times.append(time.perf_counter() - start)
    return min(times[1:])
