"""Ctrl-C ends the command with exit code 130, whatever it is doing.

Extension modules do not expect an exception while they are initialized: a KeyboardInterrupt there becomes an
ImportError, or aborts the process. While a package is imported, the process therefore ends at once; no file is being
written then.
"""

from __future__ import annotations

import os
import signal
import sysconfig
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code of a command that SIGINT (2) ended: 128 + 2."""
IMPORTING = "<frozen importlib._bootstrap>"


@contextmanager
def ending_imports_at_once() -> Generator[None]:
    """Within the block, Ctrl-C ends the process while packages are imported, and raises KeyboardInterrupt otherwise."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    # Another handler is the caller's, and only the main thread may set one.
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _imports_package(frame):
        os._exit(INTERRUPTED)
    signal.default_int_handler(number, frame)


def _imports_package(frame: FrameType | None) -> bool:
    """Whether the innermost running import is of an installed module, and not of a user's file with a model.

    A user's file may be doing work that has to be cleaned up.
    """
    module = None
    while frame is not None and frame.f_code.co_filename != IMPORTING:
        module, frame = frame, frame.f_back
    if frame is None:
        return False
    # Nothing runs inside an extension module, and the frames of importlib itself are frozen.
    path = "<extension>" if module is None else module.f_code.co_filename
    return path.startswith(("<", *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))))
