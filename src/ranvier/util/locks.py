"""Locks of files by processes. A lock ends with its process, even if that crashes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def locked(path: Path) -> Generator[bool]:
    """Locks a file until the end of the ``with`` block, and creates it if it is missing.

    Yields:
        Whether it could be locked; False if another process has locked it.
    """
    with path.open("a+b") as file:
        yield _take(file)


def _take(file: IO[bytes]) -> bool:
    """Locks an open file until it is closed; False if another process has locked it."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except OSError:
        return False
    return True
