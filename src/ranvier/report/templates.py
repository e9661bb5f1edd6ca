"""HTML pages from the templates in this folder, in which every value is escaped."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import printable
from ..passes.base import Remark
from ..util.counting import counted

NUMBER = re.compile(r"[+-]?[\d.,]*\d([eE][+-]?\d+)?( s|%)?|-")
"""A cell that is aligned to the right."""
NEURONS = 40
"""The largest number of neurons that a remark names."""


def render(template: str, **values: Any) -> str:
    """A page from a template of this folder.

    Names come from files and may hold anything: markup is escaped by the template engine, and characters that print
    nothing or reorder text are shown as their codes.

    Args:
        template: name of its file.
        **values: what the template prints.
    """
    return printable(_environment().get_template(template).render(values))


@cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters.update(counted=counted, neuron_numbers=_neuron_numbers)
    environment.tests["numeric"] = NUMBER.fullmatch
    return environment


def _neuron_numbers(remark: Remark) -> str:
    """The neurons that a remark is about, in parentheses; empty if it is about none."""
    neurons = remark.neurons
    if neurons is None or not np.size(neurons):
        return ""
    numbers = ", ".join(map(str, neurons[:NEURONS]))
    return f" (neurons {numbers}{', ...' if len(neurons) > NEURONS else ''})"
