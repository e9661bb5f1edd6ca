"""The base class of learning rules."""

from __future__ import annotations

import abc

from ..program.analysis.memory import MemorySizes, RuleMemory
from ..program.program import ModuleInfo
from .kernel import Kernel


class Rule(abc.ABC):
    """A learning rule, which makes code for a program."""

    looks_ahead: bool = True
    """Whether it takes derivatives of the step forward in time, for which every derivative must have a forward mode."""

    @property
    def name(self) -> str:
        return type(self).__name__

    def prepare(self, info: ModuleInfo) -> ModuleInfo:
        """The program to learn with, to which a rule may add its own states."""
        return info

    def memory(self, sizes: MemorySizes) -> RuleMemory | None:
        """A formula for the memory that the rule keeps between steps; None if there is no such formula."""
        return None

    @abc.abstractmethod
    def kernel(self, info: ModuleInfo) -> Kernel:
        """The rule's code for a program.

        Raises:
            RuleError: the rule cannot be applied to this program.
        """
