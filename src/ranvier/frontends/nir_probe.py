"""A first reading of a NIR file in a process of its own: HDF5 can hang or crash on a damaged file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SECONDS = 20.0
BYTES_PER_SECOND = 2e7
"""A file that takes longer than this, after some seconds to start, hangs."""
CODE = "import sys, nir; nir.read(sys.argv[1], type_check=False)"


def probe(path: Path) -> None:
    """Passes if another process has read the file, or if none can be started.

    Raises:
        ValueError: that process crashed, or did not come to an end. An error that it told is not raised here: the
            reading after this one raises it again.
    """
    seconds = SECONDS + path.stat().st_size / BYTES_PER_SECOND
    try:
        found = subprocess.run(
            [sys.executable, "-I", "-c", CODE, str(path.absolute())], capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"reading it takes longer than {seconds:.0f} s; the file is damaged") from error
    except OSError:
        return
    if found.returncode < 0:
        raise ValueError(f"reading it crashes HDF5 (signal {-found.returncode}); the file is damaged")
