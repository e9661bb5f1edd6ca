from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version

import pytest

if version("jaxlib") < "0.11":
    # The older way to make loops of fused operations takes half as long, and most of the time is compilation.
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"

# Tests choose the same forms of products on every machine, and leave nothing in the home directory.
os.environ["RANVIER_COSTS"] = "default"

import jax

from tests.support import examples


def pytest_configure(config: pytest.Config) -> None:
    examples.quick = "not slow" in config.getoption("markexpr")


@pytest.fixture
def float64() -> Iterator[None]:
    """Double precision for one test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def quick_compilation() -> Iterator[None]:
    """No optimization of code that runs once; most of the time would go into it."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
