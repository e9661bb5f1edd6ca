"""Protection of state that belongs to the whole process.

Packages draw random numbers while they are imported (rich, JAX, brainstate), and add handlers to the root logger while
they are imported or run (orbax). A program that seeds its own random numbers, or sets up its own log, must not notice.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def global_state_unchanged() -> Generator[None]:
    """Restores the global states of ``random`` and numpy, and the root logger, at the end of the block."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    python_state = random.getstate()
    numpy_random = sys.modules.get("numpy.random")  # if it is not loaded yet, it has no state to restore
    numpy_state = None if numpy_random is None else numpy_random.get_state()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        random.setstate(python_state)
        if numpy_random is not None:
            numpy_random.set_state(numpy_state)
