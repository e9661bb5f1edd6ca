"""Limits on the memory that files and simulations may take, checked before any of it is allocated.

The memory that a file may take grows with its size, so that a few bytes cannot declare gigabytes.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from functools import lru_cache

from ..errors import GraphError, InputError

MIB = 2**20


def _physical_memory() -> int:
    """Bytes of memory of this machine; 16 GiB if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**34


@dataclass(frozen=True)
class Limits:
    """Limits on memory, each with an environment variable (``RANVIER_FILE_BYTES`` and so on).

    Attributes:
        file_bytes: the contents of any file in memory, including the shapes that it declares.
        file_ratio: the contents of a larger file, as a multiple of its size.
        text_bytes: a text or JSON inside a file; in a larger file, texts may be as long as the file.
        state_bytes: what a simulation carries from step to step: states, and values in transit through delays.
        result_bytes: outputs and recordings of a simulation, over all steps and samples, or the matrix of an operation;
            by default half of the machine's memory.
    """

    file_bytes: int = 256 * MIB
    file_ratio: float = 100
    text_bytes: int = 16 * MIB
    state_bytes: int = 1024 * MIB
    result_bytes: int = _physical_memory() // 2

    def __post_init__(self) -> None:
        wrong = [f.name for f in fields(self) if not _is_amount(getattr(self, f.name))]
        if wrong:
            values = ", ".join(f"{name}={getattr(self, name)!r}" for name in wrong)
            raise InputError(f"limits({values}): limits are numbers that are not negative.")


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


class TooLarge(ValueError):
    """Something needs more memory than its limit; the message says how much, and how to raise the limit."""


_changed: ContextVar[Limits | None] = ContextVar("limits", default=None)


def current_limits() -> Limits:
    """The limits in effect: those of the innermost ``with limits(...)``, else of the environment."""
    return _changed.get() or _limits_of_environment(tuple(os.environ.get(_variable(f.name)) for f in fields(Limits)))


# Keyed by the texts, so that a change of the environment takes effect although nothing is parsed twice.
@lru_cache(maxsize=1)
def _limits_of_environment(texts: tuple[str | None, ...]) -> Limits:
    amounts = {}
    for f, text in zip(fields(Limits), texts, strict=True):
        try:
            amounts |= {} if text is None else {f.name: float(text)}
        except ValueError as error:
            raise InputError(
                f"the environment variable {_variable(f.name)} is {text!r}, which is not a number."
            ) from error
    return Limits(**amounts)


def _variable(name: str) -> str:
    return f"RANVIER_{name.upper()}"


@contextmanager
def limits(**changes: float) -> Generator[Limits]:
    """Changes memory limits within a ``with`` block, as in ``with ranvier.limits(file_bytes=8e9): ...``.

    Args:
        **changes: attributes of :class:`Limits`; the others stay as they are.

    Yields:
        The limits in effect within the block.

    Raises:
        InputError: there is no such limit, or a value is not a number of at least zero.
    """
    known = [f.name for f in fields(Limits)]
    if unknown := sorted(set(changes) - set(known)):
        raise InputError(f"there is no limit {unknown[0]!r}; the limits are {', '.join(known)}.")
    changed = replace(current_limits(), **changes)  # pyright: ignore[reportArgumentType]
    token = _changed.set(changed)
    try:
        yield changed
    finally:
        _changed.reset(token)


def how_to_allow(name: str, needed: float) -> str:
    """The part of a message that says how to raise a limit."""
    return f"allow it with ranvier.limits({name}={needed:.0f}) or {_variable(name)}={needed:.0f}"


@dataclass
class MemoryBudget:
    """The memory that the contents of one file may take.

    Attributes:
        size: size of the file in bytes.
        spent: bytes of memory taken so far.
    """

    size: int
    spent: int = 0

    @property
    def most(self) -> float:
        """Bytes that the contents may take in all."""
        now = current_limits()
        return max(now.file_bytes, now.file_ratio * self.size)

    def spend(self, amount: int, what: str) -> None:
        """Adds to the bytes taken so far; raises :class:`TooLarge` if the sum exceeds the budget."""
        self.spent += amount
        if self.spent > self.most:
            raise TooLarge(
                f"{what} takes {amount:,} bytes of memory, {self.spent:,} in total, but a file of {self.size:,} "
                f"bytes may take {self.most:,.0f}; {how_to_allow('file_bytes', self.spent)}"
            )

    def check_text(self, amount: int, what: str) -> None:
        """Raises :class:`TooLarge` if a text is too long."""
        most = max(current_limits().text_bytes, self.size)
        if amount > most:
            raise TooLarge(
                f"{what} is a text of {amount:,} bytes, but in a file of {self.size:,} bytes, texts may "
                f"have {most:,.0f}; {how_to_allow('text_bytes', amount)}"
            )


@dataclass(frozen=True)
class MemoryUse:
    """A purpose for which a run or an operation takes memory.

    Attributes:
        limit: the attribute of :class:`Limits` that holds for it.
        error: the class of the error raised above the limit.
        statement: the beginning of the message, with the fields ``what`` and ``amount``.
        remedy: what to do other than raising the limit, up to "or"; empty if there is nothing.
    """

    limit: str
    error: type[Exception]
    statement: str
    remedy: str = ""

    def check(self, amount: int, what: str) -> None:
        """Raises :attr:`error` if ``amount`` bytes for ``what`` exceed the limit."""
        most = getattr(current_limits(), self.limit)
        if amount > most:
            statement = self.statement.format(what=what, amount=f"{amount:,} bytes")
            allow = how_to_allow(self.limit, amount)
            raise self.error(f"{statement}, but the limit is {most:,.0f}; {self.remedy}{allow}.")


RESULTS = MemoryUse(
    "result_bytes",
    InputError,
    "the results of {what} take {amount} of memory",
    "run fewer steps or samples at once, or ",
)
MATRIX = MemoryUse("result_bytes", GraphError, "the matrix of {what} takes {amount} of memory")
CARRIED = MemoryUse(
    "state_bytes",
    GraphError,
    "{what} carries {amount} from step to step, in states and delays",
    "run fewer samples at once, or ",
)
