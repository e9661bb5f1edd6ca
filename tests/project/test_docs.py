"""The pages of the documentation: their Python runs as it stands and prints what they say, and none is missing."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

import ranvier

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FOLDERS = ("tutorials", "rules", "passes", "coming_from")
PAGES = [DOCS / "quickstart.md", *(page for folder in FOLDERS for page in sorted((DOCS / folder).glob("*.md")))]
PEERS = {"braintrace", "brainscale", "sc_neurocore", "torch", "snntorch", "norse", "nirtorch"}
"""What pages for those who come from other tools run beside Ranvier, where it is installed."""
VARY = "<!-- numbers vary -->"
BLOCK = re.compile(rf"```python\n(.*?)```(?:\n\n({VARY}\n\n)?```(?:text|console)\n(.*?)```)?", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_a_page_runs_and_prints_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text()
    for name in PEERS.intersection(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)):
        pytest.importorskip(name)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where dataclasses look for their module
    monkeypatch.chdir(tmp_path)
    shown = 0
    with jax.enable_x64(False), np.printoptions():
        for block in BLOCK.finditer(text):
            line = text[: block.start()].count("\n") + 1
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * line + block[1], page.name, "exec", dont_inherit=True), vars(module))
            if block[3] is not None:
                shown += 1
                told, tolerance = block[3], 0.5 if block[2] else 0.01
                assert says(told, printed.getvalue(), tolerance), f"line {line}:\n{told}\nprinted\n{printed.getvalue()}"
    assert shown
    assert text.count("```text") == shown, "a ```text block does not follow its ```python block"


def says(told: str, printed: str, tolerance: float) -> bool:
    """Whether a page tells what was printed.

    ``...`` stands for anything, white space for other white space, and numbers are compared one by one: whole ones are
    the same, others within the tolerance or a unit of their last digit. Where numbers vary, whole ones do so as well.
    """
    pattern, numbers = "", []
    for part in re.split(r"(\.\.\.|\s+|(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?)", told.strip()):
        if part == "...":
            pattern += ".*?"
        elif part.isspace():
            pattern += r"\s+"
        elif NUMBER.fullmatch(part):
            numbers.append(part)
            pattern += f"({NUMBER.pattern})"
        else:
            pattern += re.escape(part)
    found = re.fullmatch(pattern, printed.strip(), re.DOTALL)
    return found is not None and all(map(lambda a, b: _close(a, b, tolerance), numbers, found.groups()))


def _close(told: str, printed: str, tolerance: float) -> bool:
    if told == printed:
        return True
    is_whole, varies = re.fullmatch(r"-?[\d,]+", told), tolerance > 0.1
    if is_whole and not varies:
        return False
    a, b = (float(text.replace(",", "")) for text in (told, printed))
    mantissa, _, exponent = told.replace(",", "").partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(a - b) <= max(tolerance * max(abs(a), abs(b)), 1.01 * unit)


@pytest.mark.parametrize(
    ("told", "printed", "tolerance", "same"),
    [
        ("loss 0.904", "loss 0.905", 0.01, True),
        ("loss 0.904", "loss 0.95", 0.01, False),
        ("22 neurons", "23 neurons", 0.01, False),
        ("22 neurons", "20 neurons", 0.5, True),
        ("22 neurons", "10 neurons", 0.5, False),
        ("at page.py:3:5 (f)", "at page.py:3:5 (f)", 0.01, True),
        ("[while at ...]", "[while at page.py:3:5]", 0.01, True),
        ("a  b\n", "a b", 0.01, True),
        ("a b", "a b c", 0.01, False),
        ("w1 0.5", "w2 0.5", 0.5, False),
    ],
)
def test_what_counts_as_the_same(told: str, printed: str, tolerance: float, same: bool) -> None:
    assert says(told, printed, tolerance) is same


def _nav(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in _nav(part)]


def test_the_nav_lists_every_page_once() -> None:
    yaml = pytest.importorskip("yaml")
    listed = _nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_the_reference_has_every_public_name_once() -> None:
    pages = [path.read_text() for path in sorted((DOCS / "reference").glob("*.md"))]
    found = re.findall(r"^::: ranvier\.(\S+)$", "\n".join(pages), re.MULTILINE)
    names = [name for name in found if name not in ("graph.neurons", "graph.operations")]
    modules = {"__version__", "neurons", "operations", "types"}
    own = {f"types.{name}" for name in ranvier.types.__all__ if name not in ranvier.PEERS}
    assert sorted(names) == sorted((set(ranvier.__all__) - modules) | ranvier.PEERS | own)
    assert len(found) == len(names) + 2
