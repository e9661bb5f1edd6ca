"""Inspection of a NIR file in a separate process, since HDF5 can hang or crash on a damaged file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ..util.limits import MemoryBudget, TooLarge, how_to_allow
from . import hdf5_inspection as inspection

SECONDS = 20.0
BYTES_PER_SECOND = 2e7
"""Reading that is slower than this, after some seconds for the start, counts as hanging."""


def probe(path: Path) -> None:
    """Returns if another process could inspect and read the file, see :mod:`.hdf5_inspection`.

    Raises:
        TooLarge: the values take more memory than a file of this size may.
        ValueError: the file is damaged, or has features that NIR does not use.
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
    # A negative code is the signal that ended the process: HDF5 crashed.
    if done.returncode < 0:
        raise ValueError(f"reading it crashes HDF5 (signal {-done.returncode}); the file is damaged")
    if done.returncode:
        raise ValueError(reason or f"it cannot be inspected: {done.stderr.decode('utf-8', 'replace')[-200:]!r}")
