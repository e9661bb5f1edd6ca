"""Functions and types under the names that users of brainscale and braintrace know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..api.analyse import add_hidden_perturbation_in_module as add_hidden_perturbation_in_module
from ..api.analyse import find_hidden_groups_from_module as find_hidden_groups_from_module
from ..api.analyse import find_hidden_param_op_relations_from_module as find_hidden_param_op_relations_from_module
from ..frontends.extract import extract_module_info as extract_module_info
from ..program.analysis.hidden_groups import HiddenGroup as HiddenGroup
from ..program.analysis.hidden_groups import find_hidden_groups_from_minfo as find_hidden_groups_from_minfo
from ..program.analysis.perturbation import HiddenPerturbation as HiddenPerturbation
from ..program.analysis.perturbation import add_hidden_perturbation_from_minfo as add_hidden_perturbation_from_minfo
from ..program.analysis.relations import HiddenParamOpRelation as HiddenParamOpRelation
from ..program.analysis.relations import (
    find_hidden_param_op_relations_from_minfo as find_hidden_param_op_relations_from_minfo,
)
from ..program.paths import Path
from ..program.program import ModuleInfo as ModuleInfo


@dataclass(frozen=True, eq=False)
class ETraceGraph:
    """All analyses of a model, under brainscale's names.

    Attributes:
        module_info: the program.
        hidden_groups: groups of hidden states.
        hid_path_to_group: the group of every hidden state, by the path of the state.
        hidden_param_op_relations: relations between parameters and groups.
        hidden_perturb: the program with perturbed hidden states; None if it was not requested.
    """

    module_info: ModuleInfo
    hidden_groups: list[HiddenGroup]
    hid_path_to_group: Mapping[Path, HiddenGroup]
    hidden_param_op_relations: list[HiddenParamOpRelation]
    hidden_perturb: HiddenPerturbation | None

    def dict(self) -> dict[str, Any]:
        """The attributes by name."""
        return dict(vars(self))


def compile_etrace_graph(model: Any, *inputs: Any, include_hidden_perturb: bool = True) -> ETraceGraph:
    """All analyses of a model at once, as in brainscale; :func:`ranvier.analyse` offers more.

    Args:
        model: as for :func:`ranvier.extract_module_info`.
        *inputs: example inputs of one step.
        include_hidden_perturb: whether to perturb the hidden states as well.
    """
    info = extract_module_info(model, *inputs)
    groups, by_path = find_hidden_groups_from_minfo(info)
    relations = find_hidden_param_op_relations_from_minfo(info, by_path)
    perturbation = add_hidden_perturbation_from_minfo(info) if include_hidden_perturb else None
    return ETraceGraph(info, groups, by_path, relations, perturbation)
