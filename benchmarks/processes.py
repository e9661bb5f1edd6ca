"""Measurements in processes of their own, and the memory that a process takes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


def in_own_process(module: str, *options: object) -> dict[str, Any]:
    """What ``python -m module options`` prints as JSON in its last line.

    Raises:
        SystemExit: it fails; with the end of what it said.
    """
    command = [sys.executable, "-W", "ignore", "-m", module, *map(str, options)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[4:])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def resident_memory() -> int:
    """Resident memory of this process now, in bytes; the peak where the system does not tell."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * resource.getpagesize() if file.exists() else peak_memory()
