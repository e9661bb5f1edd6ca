"""What mkdocs does beside its configuration: links that leave the site, formulas, and the roles in docstrings."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert

import ranvier

LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)(#[^)]*)?\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
ROLE = re.compile(r":(?:func|class|meth|mod|attr):`~?([\w.]+)`")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files of the repository that are not in the site become their text."""
    docs = Path(config["docs_dir"]).resolve()
    here = Path(page.file.abs_src_path).resolve().parent

    def told(match: re.Match[str]) -> str:
        target = (here / match[2]).resolve()
        return match[0] if target.is_relative_to(docs) else match[1]

    return LINK.sub(told, markdown)


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """Formulas become MathML, which browsers show without a script."""

    def told(match: re.Match[str]) -> str:
        return convert(html.unescape(match[2]), display="block" if match[1] == "div" else "inline")

    return FORMULA.sub(told, content)


class Roles(griffe.Extension):
    """``:func:`ranvier.compile``` in a docstring becomes a link where the reference has the name, else code."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(lambda match: _linked(match[1]), obj.docstring.value)


def _linked(name: str) -> str:
    short = name.removeprefix("ranvier.")
    return f"[`{name}`][ranvier.{short}]" if short.split(".")[0] in ranvier.__all__ else f"`{name}`"
