"""All analyses of a model in one call, and analyses of a model instead of a program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..frontends.extract import extract_module_info
from ..learn.rules.catalog import rule_memory
from ..program.analysis.explanations import opaque_diagnostics
from ..program.analysis.hidden_groups import HiddenGroup, analyse_groups, find_hidden_groups_from_minfo
from ..program.analysis.memory import RuleMemory
from ..program.analysis.perturbation import HiddenPerturbation, add_hidden_perturbation_from_minfo
from ..program.analysis.relations import (
    HiddenParamOpRelation,
    analyse_relations,
    find_hidden_param_op_relations_from_minfo,
)
from ..program.diagnostic import Diagnostic
from ..program.paths import Path
from ..program.program import ModuleInfo
from ..report.explain import explain_program


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that Ranvier knows about a model without running it on data. Each part is computed on first use.

    Attributes:
        info: the program.
    """

    info: ModuleInfo

    @cached_property
    def groups(self) -> list[HiddenGroup]:
        """The hidden groups."""
        return find_hidden_groups_from_minfo(self.info)[0]

    @cached_property
    def relations(self) -> list[HiddenParamOpRelation]:
        """The relations between parameters and groups, including weight-to-weight ones."""
        return find_hidden_param_op_relations_from_minfo(self.info)

    @cached_property
    def perturbation(self) -> HiddenPerturbation:
        """The step with a perturbation on every new hidden state."""
        return add_hidden_perturbation_from_minfo(self.info)

    @cached_property
    def diagnostics(self) -> list[Diagnostic]:
        """All findings: of the frontend, of the groups, of parameters, of opaque equations."""
        return [
            *self.info.notes,
            *analyse_groups(self.info).diagnostics,
            *analyse_relations(self.info).diagnostics,
            *opaque_diagnostics(self.info),
        ]

    @cached_property
    def memory(self) -> list[RuleMemory]:
        """What each learning rule would have to store."""
        return rule_memory(self.info)

    def explain(self) -> str:
        """Why each parameter is or is not related to each group."""
        return explain_program(self.info)


def analyse(model: Any, *inputs: Any) -> Analysis:
    """Runs all analyses on a model.

    Args:
        model: as for :func:`ranvier.extract_module_info`.
        *inputs: example inputs of one step.

    Raises:
        ModelError, InputError: as for :func:`ranvier.extract_module_info`.

    Example:
        >>> analysis = ranvier.analyse(model, x)
        >>> print(analysis.groups[0])
        >>> print(analysis.explain())
    """
    return Analysis(extract_module_info(model, *inputs))


def explain(model: Any, *inputs: Any) -> str:
    """Why each parameter of a model is or is not related to each hidden group, as text."""
    return analyse(model, *inputs).explain()


def find_hidden_groups_from_module(model: Any, *inputs: Any) -> tuple[list[HiddenGroup], dict[Path, HiddenGroup]]:
    """:func:`ranvier.find_hidden_groups_from_minfo` of the model's program."""
    return find_hidden_groups_from_minfo(extract_module_info(model, *inputs))


def find_hidden_param_op_relations_from_module(model: Any, *inputs: Any) -> list[HiddenParamOpRelation]:
    """:func:`ranvier.find_hidden_param_op_relations_from_minfo` of the model's program."""
    return find_hidden_param_op_relations_from_minfo(extract_module_info(model, *inputs))


def add_hidden_perturbation_in_module(model: Any, *inputs: Any) -> HiddenPerturbation:
    """:func:`ranvier.add_hidden_perturbation_from_minfo` of the model's program."""
    return add_hidden_perturbation_from_minfo(extract_module_info(model, *inputs))
