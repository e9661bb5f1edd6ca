"""What belongs to the whole process stays as it was.

Packages draw random numbers while they are imported (rich, JAX, brainstate), and add handlers to the root logger while
they are imported or run (orbax); a program that seeds its own numbers, or sets up its own log, must not notice.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def global_state_unchanged() -> Generator[None]:
    """Leaves ``random``'s and numpy's global state and the root logger, on exit, as they were on entry."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    drawn = random.getstate()
    numpy_random = sys.modules.get("numpy.random")  # one that is not loaded yet has no state to keep
    numpy_drawn = None if numpy_random is None else numpy_random.get_state()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        random.setstate(drawn)
        if numpy_random is not None:
            numpy_random.set_state(numpy_drawn)
