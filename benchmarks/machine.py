"""What a measurement ran on: processor, memory, versions, and what the processor reaches."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from .timing import median_time

PACKAGES = ("jax", "jaxlib", "brainstate", "braintrace")


@dataclass(frozen=True)
class Machine:
    """A machine without its name.

    Attributes:
        cpu: model of the processor.
        cores: cores that this process may use.
        memory_gib: main memory.
        backend: where JAX runs, e.g. ``"cpu"``.
        versions: package to version, Python included; ``"not installed"`` where there is none.
    """

    cpu: str
    cores: int
    memory_gib: float
    backend: str
    versions: dict[str, str]

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' * (self.cores != 1)}"
        return f"{self.cpu}, {cores}, {self.memory_gib:.0f} GiB memory, JAX on {self.backend}"

    @property
    def versions_text(self) -> str:
        return ", ".join(f"{name} {number}" for name, number in self.versions.items())


@lru_cache(maxsize=1)
def describe_machine() -> Machine:
    """The machine this process runs on."""
    versions = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    return Machine(_cpu_model(), _cores(), _memory_gib(), jax.default_backend(), versions)


def copy_bandwidth(mebibytes: int = 256, repeats: int = 5) -> float:
    """Measured bytes per second, read and written together, of copying one large array onto another."""
    source = np.ones(mebibytes * 2**20 // 4, np.float32)
    target = np.empty_like(source)
    seconds = median_time(lambda: np.copyto(target, source), repeats=repeats)
    return 2 * source.nbytes / seconds


def matmul_rate(size: int = 2048, repeats: int = 5) -> float:
    """Measured floating-point operations per second of a square float32 matrix product."""
    matrix = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    seconds = median_time(lambda: product(matrix, matrix).block_until_ready(), repeats=repeats)
    return 2 * size**3 / seconds


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    return _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _field(file: Path, name: str) -> str:
    """The value of the first ``name : value`` line of a file; empty where there is none."""
    if not file.exists():
        return ""
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
