"""How much memory a file or a simulation may take; what needs more is refused before it takes any.

What a file may become in memory grows with its size, so that a few bytes cannot ask for gigabytes.
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
    """Bytes of memory of this machine; 16 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**34


@dataclass(frozen=True)
class Limits:
    """Memory that files and simulations may take. Each has an environment variable, ``RANVIER_FILE_BYTES`` and so on.

    Attributes:
        file_bytes: what any file may become in memory, its declared shapes included.
        file_ratio: a larger file may become this many times its own size.
        text_bytes: texts and JSON inside any file; those of a larger file may be as long as the file.
        state_bytes: what a simulation carries from step to step: states, and what delays have still to bring.
        result_bytes: outputs and recordings of a simulation, over all steps and samples, and the matrix of a
            convolution; half of the machine's memory.
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
            raise InputError(f"limits({values}): numbers of bytes, or a ratio, that are not negative are expected.")


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


class TooLarge(ValueError):
    """Something needs more memory than it may take; the message says how much, and how to allow it."""


_changed: ContextVar[Limits | None] = ContextVar("limits", default=None)


def current_limits() -> Limits:
    """The limits that hold now."""
    return _changed.get() or _limits_of_environment(tuple(os.environ.get(_variable(f.name)) for f in fields(Limits)))


@lru_cache(maxsize=1)
def _limits_of_environment(texts: tuple[str | None, ...]) -> Limits:
    amounts = {}
    for f, text in zip(fields(Limits), texts, strict=True):
        try:
            amounts |= {} if text is None else {f.name: float(text)}
        except ValueError as error:
            raise InputError(f"the environment variable {_variable(f.name)} is {text!r}, no number.") from error
    return Limits(**amounts)


def _variable(name: str) -> str:
    return f"RANVIER_{name.upper()}"


@contextmanager
def limits(**changes: float) -> Generator[Limits]:
    """Other limits of memory within a ``with`` block, as in ``with ranvier.limits(file_bytes=8e9): ...``.

    Args:
        **changes: attributes of :class:`Limits`; what is left out stays.

    Raises:
        InputError: there is no such limit, or a value is no amount.
    """
    known = [f.name for f in fields(Limits)]
    if unknown := sorted(set(changes) - set(known)):
        raise InputError(f"there is no limit {unknown[0]!r}; there are {', '.join(known)}.")
    changed = replace(current_limits(), **changes)  # pyright: ignore[reportArgumentType]
    token = _changed.set(changed)
    try:
        yield changed
    finally:
        _changed.reset(token)


def how_to_allow(name: str, needed: float) -> str:
    """What to write where a limit is too low."""
    return f"if that is meant, allow it with ranvier.limits({name}={needed:.0f}) or {_variable(name)}={needed:.0f}"


@dataclass
class MemoryBudget:
    """Bytes that what is read from one file may take in memory.

    Attributes:
        size: of the file, in bytes.
        spent: bytes so far.
    """

    size: int
    spent: int = 0

    @property
    def most(self) -> float:
        now = current_limits()
        return max(now.file_bytes, now.file_ratio * self.size)

    def spend(self, amount: int, what: str) -> None:
        """Raises :class:`TooLarge` where an amount does not fit any more."""
        self.spent += amount
        if self.spent > self.most:
            raise TooLarge(
                f"{what} takes {amount:,} bytes of memory, which makes {self.spent:,}, but a file of {self.size:,} "
                f"bytes may take {self.most:,.0f}; {how_to_allow('file_bytes', self.spent)}"
            )

    def check_text(self, amount: int, what: str) -> None:
        """Raises :class:`TooLarge` where a text is too long."""
        most = max(current_limits().text_bytes, self.size)
        if amount > most:
            raise TooLarge(
                f"{what} is a text of {amount:,} bytes, but in a file of {self.size:,} bytes texts may have "
                f"{most:,.0f}; {how_to_allow('text_bytes', amount)}"
            )


def check_results(amount: int, what: str) -> None:
    """Raises InputError where the results of a run take more memory than they may."""
    most = current_limits().result_bytes
    if amount > most:
        raise InputError(
            f"the results of {what} take {amount:,} bytes of memory, but they may take {most:,.0f}; run fewer steps or "
            f"samples at once, or {how_to_allow('result_bytes', amount)}."
        )


def check_matrix(amount: int, what: str) -> None:
    """Raises GraphError where the matrix of an operation takes more memory than it may."""
    most = current_limits().result_bytes
    if amount > most:
        raise GraphError(
            f"the matrix of {what} takes {amount:,} bytes of memory, but {most:,.0f} are allowed; "
            f"{how_to_allow('result_bytes', amount)}."
        )


def check_states(amount: int, what: str) -> None:
    """Raises GraphError where what a run carries from step to step takes more memory than it may."""
    most = current_limits().state_bytes
    if amount > most:
        raise GraphError(
            f"{what} carries {amount:,} bytes from step to step, but {most:,.0f} are allowed: states, and what delays "
            f"have still to bring. Run fewer samples at once, or {how_to_allow('state_bytes', amount)}."
        )
