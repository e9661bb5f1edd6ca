"""The tokens of a graph's text, and a reader of the values that they form."""

# An example: the text [2] low=0.5 "a" has the tokens [ 2 ] low = 0.5 "a". A reader at the first one gives the shape
# (2,), then takes low and =, and gives the number 0.5 and the string a.

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import GraphError

TOKEN = re.compile(
    # Possessive quantifiers: without them the expression would need memory to go back over a long text.
    r'(?P<space>[ \t\r\n]++)|(?P<comment>#[^\n]*+)|(?P<string>"(?:[^"\\\n]++|\\.)*+")'
    r"|(?P<number>[-+]?(?:\d++\.?\d*+(?:[eE][-+]?\d++)?|\.\d++(?:[eE][-+]?\d++)?|inf\b|nan\b))"
    r"|(?P<name>[A-Za-z_]\w*+)|(?P<mark>->|[{}()\[\]:=,@])"
)
DEEPEST = 8
"""The largest number of axes of an array."""
LARGEST_INTEGER = 2**62
"""Larger numbers are read as floats."""
LONGEST_NUMBER = 400
"""Characters; no float64 needs as many."""


@dataclass(frozen=True)
class Token:
    """A part of a text.

    Attributes:
        kind: string, number, name, mark or end.
        text: as it is written.
        line: number of its line, from 1.
    """

    kind: str
    text: str
    line: int


def tokens_of(text: str) -> Iterator[Token]:
    """The tokens of a text, without spaces and comments; the last one is of the kind end.

    Raises:
        GraphError: the text has something that is not part of a graph's text.
    """
    start, line = 0, 1
    while start < len(text):
        match = TOKEN.match(text, start)
        if match is None:
            raise GraphError(f"line {line}: {text[start : start + 20]!r} is not part of a graph's text.")
        kind = str(match.lastgroup)
        if kind not in ("space", "comment"):
            yield Token(kind, match.group(), line)
        line += match.group().count("\n")
        start = match.end()
    yield Token("end", "the end of the text", line)


class TokenReader:
    """Reads tokens one after the other. Whatever is not as expected is a :class:`GraphError` that names the line.

    Attributes:
        peek: the next token.
    """

    def __init__(self, tokens: Iterator[Token]) -> None:
        self.tokens = tokens
        self.peek = next(tokens)

    def next(self) -> Token:
        token = self.peek
        self.peek = next(self.tokens, token)
        return token

    def take(self, text: str) -> bool:
        """Takes the next token if it is this mark or name; otherwise False, or an error at the end of the text."""
        if self.peek.kind in ("mark", "name") and self.peek.text == text:
            self.next()
            return True
        if self.peek.kind == "end":
            self.fail(self.peek, repr(text))
        return False

    def expect(self, text: str) -> None:
        token = self.next()
        if token.kind not in ("mark", "name") or token.text != text:
            self.fail(token, repr(text))

    def fail(self, token: Token, expected: str) -> NoReturn:
        raise GraphError(f"line {token.line}: expected {expected}, not {token.text[:60]!r}.")

    def string(self) -> str:
        token = self.next()
        if token.kind != "string":
            self.fail(token, "a quoted string")
        try:
            return json.loads(token.text)
        except ValueError:
            self.fail(token, "a JSON string")

    def number(self) -> float | int:
        token = self.next()
        if token.kind != "number" or len(token.text) > LONGEST_NUMBER:
            self.fail(token, "a number")
        try:
            whole = int(token.text)
        except ValueError:
            return float(token.text)
        return whole if abs(whole) <= LARGEST_INTEGER else float(token.text)

    def integer(self) -> int:
        token = self.peek
        number = self.number()
        if not isinstance(number, int):
            self.fail(token, "a whole number")
        return number

    def integers(self) -> tuple[int, ...]:
        self.expect("[")
        integers: list[int] = []
        while not self.take("]"):
            integers.append(self.integer())
            if self.peek.text != "]":
                self.expect(",")
        return tuple(integers)

    def shape(self) -> tuple[int, ...]:
        token = self.peek
        shape = self.integers()
        if len(shape) > DEEPEST:
            self.fail(token, f"a shape of up to {DEEPEST} axes")
        return shape

    def value(self, depth: int = 0) -> Any:
        """A string, a number, or nested lists of these as tuples."""
        if self.peek.kind == "string":
            return self.string()
        if self.peek.text != "[":
            return self.number()
        if depth > DEEPEST:
            self.fail(self.peek, "less deeply nested lists")
        self.next()
        values = []
        while not self.take("]"):
            values.append(self.value(depth + 1))
            if self.peek.text != "]":
                self.expect(",")
        return tuple(values)

    def key(self, earlier: Mapping[str, Any]) -> str:
        """The name of an option, which may occur only once."""
        token = self.next()
        if token.text in earlier:
            self.fail(token, f"an option other than {token.text}, which is already set")
        return token.text

    def setting(self, reader: Callable[[], Any]) -> Any:
        """What a reader reads after an equals sign."""
        self.expect("=")
        return reader()

    def options(self, readers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Options ``name=value`` for as long as the next name has a reader."""
        options: dict[str, Any] = {}
        while self.peek.kind == "name" and self.peek.text in readers:
            key = self.key(options)
            options[key] = self.setting(readers[key])
        return options
