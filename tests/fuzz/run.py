"""Runs damaged files of a format: each is read, or refused with an error of Ranvier's own, in time and little memory.

python -m tests.fuzz.run [--seconds N] [--seed N] [FORMAT ...]
"""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import ranvier

from .targets import TARGETS, Target, mutated

LONGEST = 60
"""Seconds for one file."""
MOST_GROWTH = 800_000
"""Kilobytes by which one file may make the process larger."""
FAILURES = Path("fuzz-failures")
"""Where ``make fuzz`` keeps files that are neither read nor refused."""


def fuzz(name: str, folder: Path, *, seed: int, files: int | None = None, seconds: float | None = None) -> Counter[str]:
    """Numbers of files that were read and refused.

    Raises:
        AssertionError: a file was neither; it is kept in the folder.
    """
    target, results = TARGETS[name], Counter[str]()
    generator = np.random.default_rng([seed, *name.encode()])
    path = folder / f"{name.replace(' ', '-')}-{seed}{target.ending}"
    start = time.monotonic()
    while results.total() < (files or np.inf) and time.monotonic() - start < (seconds or np.inf):
        path.write_bytes(mutated(target, generator))
        results[_outcome(target, path)] += 1
    path.unlink(missing_ok=True)
    return results


def _outcome(target: Target, path: Path) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with warnings.catch_warnings(), _at_most(LONGEST):
            warnings.simplefilter("ignore")
            target.read(path)
        outcome = "read"
    except ranvier.RanvierError:
        outcome = "refused"
    except Exception as error:
        kept = path.with_stem(f"{path.stem}-{abs(hash(path.read_bytes())) % 10**8}")
        path.rename(kept)
        raise AssertionError(f"{kept} is neither read nor refused:\n{traceback.format_exc()}") from error
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MOST_GROWTH, f"{path} took {grown} kB"
    return outcome


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"reading takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Every format in a process of its own, so that a crash is one failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=120, help="for every format")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--here", action="store_true", help="in this process, one format")
    options = parser.parse_args()
    if options.here:
        FAILURES.mkdir(exist_ok=True)
        results = fuzz(options.formats[0], FAILURES, seed=options.seed, seconds=options.seconds)
        print(f"{options.formats[0]}: {results.total()} files, {dict(results)}", flush=True)
        return 0
    failed = 0
    for name in options.formats or TARGETS:
        command = [sys.executable, "-m", __spec__.name, name, "--here"]
        command += ["--seconds", str(options.seconds), "--seed", str(options.seed)]
        code = subprocess.run(command, check=False).returncode
        if code:
            failed += 1
            print(f"{name}: failed with {code}, seed {options.seed}; see {FAILURES}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
