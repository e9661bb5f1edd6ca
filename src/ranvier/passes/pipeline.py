"""Pipelines: passes in order, as text and as objects.

dead-neurons{threshold=0.001},connections,dead-code
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ..errors import PassError
from .base import Pass
from .registry import pass_class

ITEM = re.compile(r"\s*([a-z][a-z0-9_-]*)\s*(?:\{([^{}]*)\})?\s*")
OPTION = re.compile(r"\s*([a-z_]+)\s*=\s*([^,=]+?)\s*")


def parse_pipeline(text: str) -> list[Pass]:
    """Passes from ``name{option=value,...},name,...``; values are JSON, or texts without quotes.

    Raises:
        PassError: the text is no pipeline, a pass or an option is not known, or a value does not fit.
    """
    passes, at = [], 0
    while True:
        match = ITEM.match(text, at)
        if match is None:
            raise PassError(
                f"pipeline: {text[at : at + 30]!r} is not a pass; write name or name{{option=value}}, with commas."
            )
        passes.append(make_pass(match[1], _options(match[1], match[2] or "")))
        at = match.end()
        if at == len(text):
            return passes
        if text[at] != ",":
            raise PassError(f"pipeline: expected a comma before {text[at : at + 30]!r}.")
        at += 1


def make_pass(name: str, options: dict[str, Any]) -> Pass:
    """A pass with options.

    Raises:
        PassError: the pass or an option is not known.
    """
    kind = pass_class(name)
    known = [f.name for f in fields(kind)]
    if unknown := [option for option in options if option not in known]:
        raise PassError(f"{name} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}.")
    return kind(**options)


def pipeline_text(passes: Sequence[Pass]) -> str:
    """The text that :func:`parse_pipeline` reads; options as they are preset are left out."""
    texts = []
    for one in passes:
        preset = {f.name: f.default for f in fields(one)}
        told = [f"{k}={json.dumps(v)}" for k, v in one.options.items() if v != preset[k]]
        texts.append(f"{one.name}{{{','.join(told)}}}" if told else one.name)
    return ",".join(texts)


def _options(name: str, text: str) -> dict[str, Any]:
    options = {}
    for part in text.split(",") if text.strip() else ():
        match = OPTION.fullmatch(part)
        if match is None:
            raise PassError(f"{name}: {part.strip()!r} is not an option; write option=value.")
        if match[1] in options:
            raise PassError(f"{name}: {match[1]} is set twice.")
        options[match[1]] = _value(match[2])
    return options


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
