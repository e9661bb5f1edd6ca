"""A few damaged files of every format; ``RANVIER_FUZZ_SECONDS`` for each format runs as many as there is time for."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.examples import few

from .run import fuzz
from .targets import TARGETS

SECONDS = float(os.environ.get("RANVIER_FUZZ_SECONDS", 0)) or None


@few("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    files = None if SECONDS else TARGETS[name].count
    results = fuzz(name, tmp_path, seed=0, files=files, seconds=SECONDS)
    assert results["refused"] > results.total() / 10
    assert not list(tmp_path.iterdir())


@few("name", TARGETS)
def test_good_files_are_read(name: str, tmp_path: Path) -> None:
    """Otherwise the refusals of damaged ones would say nothing."""
    target = TARGETS[name]
    for number, content in enumerate(target.seeds()):
        path = tmp_path / f"{number}{target.ending}"
        path.write_bytes(content)
        if not content.startswith(b"\x93NUMPY"):
            target.read(path)
