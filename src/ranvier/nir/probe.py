"""A first look at a NIR file in a process of its own: HDF5 can hang or crash on a damaged file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ..util.limits import MemoryBudget, TooLarge, how_to_allow
from . import hdf5_inspection as inspection

SECONDS = 20.0
BYTES_PER_SECOND = 2e7
"""A file that takes longer than this, after some seconds to start, hangs."""


def probe(path: Path) -> None:
    """Passes if another process has inspected and read the file, see :mod:`.hdf5_inspection`.

    Raises:
        TooLarge: its values take more memory than those of a file of its size may.
        ValueError: it is damaged, or does what no NIR file needs.
    """
    size = path.stat().st_size
    budget = MemoryBudget(size)
    seconds = SECONDS + size / BYTES_PER_SECOND
    command = [sys.executable, "-I", inspection.__file__, str(path.absolute()), str(budget.most)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"reading it takes longer than {seconds:.0f} s; the file is damaged") from error
    except OSError:  # no process can be started here
        inspection.inspect(str(path), budget.most, size)
        return
    reason = done.stdout.decode("utf-8", "replace")
    if done.returncode == inspection.TOO_MUCH:
        raise TooLarge(
            f"{reason}, but a file of {size:,} bytes may take {budget.most:,.0f}; "
            f"{how_to_allow('file_bytes', 4 * budget.most)}"
        )
    if done.returncode < 0:
        raise ValueError(f"reading it crashes HDF5 (signal {-done.returncode}); the file is damaged")
    if done.returncode:
        raise ValueError(reason or f"it cannot be inspected: {done.stderr.decode('utf-8', 'replace')[-200:]!r}")
