"""What a learning rule is."""

from __future__ import annotations

import abc

from ..ir.program import ModuleInfo
from .kernel import Kernel


class Rule(abc.ABC):
    """A learning rule: how to make code for a program."""

    @property
    def name(self) -> str:
        return type(self).__name__

    @abc.abstractmethod
    def kernel(self, info: ModuleInfo) -> Kernel:
        """The rule's code for a program.

        Raises:
            RuleError: the rule cannot be applied to this program.
        """
