"""Ranvier: an optimizing compiler for spiking neural networks on JAX.

Names are loaded when first used, so that ``import ranvier`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "analyses.hidden_groups": ["HiddenGroup", "find_hidden_groups_from_minfo"],
    "analyses.memory": ["RuleMemory"],
    "analyses.operations": ["Operation", "OperationKind"],
    "analyses.perturbation": ["HiddenPerturbation", "SignalComparison", "add_hidden_perturbation_from_minfo"],
    "analyses.relations": ["Connection", "HiddenParamOpRelation", "find_hidden_param_op_relations_from_minfo"],
    "analyses.transition": ["EntryFacts", "Transition"],
    "analyses.levels": ["Level"],
    "driver.export": ["export_artifact", "export_source", "load_artifact"],
    "driver.nir": ["to_nir"],
    "driver.optimize": ["optimize"],
    "driver.sc_neurocore": [
        "SNNOptimizer",
        "dead_neuron_elimination",
        "layer_fusion",
        "redundancy_elimination",
        "redundant_connection_removal",
        "weight_pruning",
    ],
    "driver.analyse": [
        "Analysis",
        "add_hidden_perturbation_in_module",
        "analyse",
        "explain",
        "find_hidden_groups_from_module",
        "find_hidden_param_op_relations_from_module",
    ],
    "errors": [
        "AnalysisError",
        "ExportError",
        "GraphError",
        "InputError",
        "ModelError",
        "PassError",
        "PictureError",
        "RanvierError",
        "RegistrationError",
        "RuleError",
        "TrainingError",
    ],
    "export.artifact": ["Artifact"],
    "frontends.extract": ["extract_module_info"],
    "frontends.nir_file": ["from_nir"],
    "frontends.step_function": ["StepFunction", "step_function"],
    "ir.diagnostic": ["Diagnostic", "DiagnosticKind"],
    "ir.graph.elements": ["Activity", "Input", "Output", "Population", "Projection"],
    "ir.graph.interpreter": ["interpret"],
    "ir.graph.parser": ["from_text"],
    "ir.graph.printer": ["to_text"],
    "ir.graph.recording": ["Simulation"],
    "ir.graph.layers": ["LayerNode"],
    "ir.graph.shared": ["ParameterUse"],
    "ir.graph.snn_graph": ["SNNGraph"],
    "ir.graph.storage": ["load", "save"],
    "ir.graph.verifier": ["Problem", "problems"],
    "ir.limits": ["Limits", "limits"],
    "ir.nested": ["classify"],
    "ir.primitives": ["Kind", "register_family", "register_primitive"],
    "ir.program": ["ModuleInfo", "Program", "Role", "Slot"],
    "learn.by_parameter": ["ByParameter"],
    "learn.compare": ["Agreement", "RuleComparison", "RuleResult"],
    "learn.compare_rules": ["compare_rules"],
    "learn.compile": ["compile"],
    "learn.left_out": ["LeftOut"],
    "learn.fit": ["FitResult", "accuracy", "fit"],
    "learn.learner": ["Learner"],
    "learn.plan": ["Plan"],
    "learn.rule": ["Rule"],
    "learn.rules.bptt": ["BPTT"],
    "learn.rules.d_rtrl": ["D_RTRL"],
    "learn.rules.es_d_rtrl": ["ES_D_RTRL"],
    "learn.rules.ottt": ["OTTT"],
    "learn.rules.eprop": ["EProp"],
    "learn.rules.ostl": ["OSTL"],
    "learn.rules.rtrl": ["RTRL"],
    "learn.rules.snap": ["SnAp"],
    "learn.rules.three_factor": ["ThreeFactor"],
    "learn.rules.uoro": ["UORO"],
    "learn.state": ["Aux", "LearnerState"],
    "passes.base": ["Pass", "Remark", "Rewriting"],
    "passes.manager": ["PassManager"],
    "passes.outcome": ["PassResult"],
    "passes.pipeline": ["parse_pipeline"],
    "raising.raised": ["Raised", "raise_model", "raise_program"],
    "raising.recognise": ["Finding", "recognise"],
    "report.optimization": ["OptimizationReport"],
    "report.picture": ["draw"],
    "simulation.lower": ["lower", "with_weights"],
    "simulation.profile": ["profile"],
    "simulation.simulate": ["Simulator", "simulate"],
    "validation.calibration": ["Calibration"],
    "validation.counterexample": ["Counterexample"],
    "validation.promise": ["Promise"],
    "validation.verify": ["Verification", "replay", "verify"],
}
_MODULES = ("neurons", "operations", "snn_optimizer")

_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted({*_MODULE_OF, *_MODULES})]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return _imported(name)
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ranvier' has no attribute {name!r}")
    value = getattr(_imported(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def _imported(module: str) -> Any:
    from .ir.global_state import global_state_unchanged

    with global_state_unchanged():
        return importlib.import_module(f"ranvier.{module}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, *_MODULES})


if TYPE_CHECKING:
    from .analyses.hidden_groups import HiddenGroup as HiddenGroup
    from .analyses.hidden_groups import find_hidden_groups_from_minfo as find_hidden_groups_from_minfo
    from .analyses.levels import Level as Level
    from .analyses.memory import RuleMemory as RuleMemory
    from .analyses.operations import Operation as Operation
    from .analyses.operations import OperationKind as OperationKind
    from .analyses.perturbation import HiddenPerturbation as HiddenPerturbation
    from .analyses.perturbation import SignalComparison as SignalComparison
    from .analyses.perturbation import add_hidden_perturbation_from_minfo as add_hidden_perturbation_from_minfo
    from .analyses.relations import Connection as Connection
    from .analyses.relations import HiddenParamOpRelation as HiddenParamOpRelation
    from .analyses.relations import (
        find_hidden_param_op_relations_from_minfo as find_hidden_param_op_relations_from_minfo,
    )
    from .analyses.transition import EntryFacts as EntryFacts
    from .analyses.transition import Transition as Transition
    from .driver.analyse import Analysis as Analysis
    from .driver.analyse import add_hidden_perturbation_in_module as add_hidden_perturbation_in_module
    from .driver.analyse import analyse as analyse
    from .driver.analyse import explain as explain
    from .driver.analyse import find_hidden_groups_from_module as find_hidden_groups_from_module
    from .driver.analyse import find_hidden_param_op_relations_from_module as find_hidden_param_op_relations_from_module
    from .driver.export import export_artifact as export_artifact
    from .driver.export import export_source as export_source
    from .driver.export import load_artifact as load_artifact
    from .driver.nir import to_nir as to_nir
    from .driver.optimize import optimize as optimize
    from .driver.sc_neurocore import SNNOptimizer as SNNOptimizer
    from .driver.sc_neurocore import dead_neuron_elimination as dead_neuron_elimination
    from .driver.sc_neurocore import layer_fusion as layer_fusion
    from .driver.sc_neurocore import redundancy_elimination as redundancy_elimination
    from .driver.sc_neurocore import redundant_connection_removal as redundant_connection_removal
    from .driver.sc_neurocore import weight_pruning as weight_pruning
    from .errors import AnalysisError as AnalysisError
    from .errors import ExportError as ExportError
    from .errors import GraphError as GraphError
    from .errors import InputError as InputError
    from .errors import ModelError as ModelError
    from .errors import PassError as PassError
    from .errors import PictureError as PictureError
    from .errors import RanvierError as RanvierError
    from .errors import RegistrationError as RegistrationError
    from .errors import RuleError as RuleError
    from .errors import TrainingError as TrainingError
    from .export.artifact import Artifact as Artifact
    from .frontends.extract import extract_module_info as extract_module_info
    from .frontends.nir_file import from_nir as from_nir
    from .frontends.step_function import StepFunction as StepFunction
    from .frontends.step_function import step_function as step_function
    from .ir.diagnostic import Diagnostic as Diagnostic
    from .ir.diagnostic import DiagnosticKind as DiagnosticKind
    from .ir.graph.elements import Activity as Activity
    from .ir.graph.elements import Input as Input
    from .ir.graph.elements import Output as Output
    from .ir.graph.elements import Population as Population
    from .ir.graph.elements import Projection as Projection
    from .ir.graph.interpreter import interpret as interpret
    from .ir.graph.layers import LayerNode as LayerNode
    from .ir.graph.parser import from_text as from_text
    from .ir.graph.printer import to_text as to_text
    from .ir.graph.recording import Simulation as Simulation
    from .ir.graph.shared import ParameterUse as ParameterUse
    from .ir.graph.snn_graph import SNNGraph as SNNGraph
    from .ir.graph.storage import load as load
    from .ir.graph.storage import save as save
    from .ir.graph.verifier import Problem as Problem
    from .ir.graph.verifier import problems as problems
    from .ir.limits import Limits as Limits
    from .ir.limits import limits as limits
    from .ir.nested import classify as classify
    from .ir.primitives import Kind as Kind
    from .ir.primitives import register_family as register_family
    from .ir.primitives import register_primitive as register_primitive
    from .ir.program import ModuleInfo as ModuleInfo
    from .ir.program import Program as Program
    from .ir.program import Role as Role
    from .ir.program import Slot as Slot
    from .learn.by_parameter import ByParameter as ByParameter
    from .learn.compare import Agreement as Agreement
    from .learn.compare import RuleComparison as RuleComparison
    from .learn.compare import RuleResult as RuleResult
    from .learn.compare_rules import compare_rules as compare_rules
    from .learn.compile import compile as compile
    from .learn.fit import FitResult as FitResult
    from .learn.fit import accuracy as accuracy
    from .learn.fit import fit as fit
    from .learn.learner import Learner as Learner
    from .learn.left_out import LeftOut as LeftOut
    from .learn.plan import Plan as Plan
    from .learn.rule import Rule as Rule
    from .learn.rules.bptt import BPTT as BPTT
    from .learn.rules.d_rtrl import D_RTRL as D_RTRL
    from .learn.rules.eprop import EProp as EProp
    from .learn.rules.es_d_rtrl import ES_D_RTRL as ES_D_RTRL
    from .learn.rules.ostl import OSTL as OSTL
    from .learn.rules.ottt import OTTT as OTTT
    from .learn.rules.rtrl import RTRL as RTRL
    from .learn.rules.snap import SnAp as SnAp
    from .learn.rules.three_factor import ThreeFactor as ThreeFactor
    from .learn.rules.uoro import UORO as UORO
    from .learn.state import Aux as Aux
    from .learn.state import LearnerState as LearnerState
    from .passes.base import Pass as Pass
    from .passes.base import Remark as Remark
    from .passes.base import Rewriting as Rewriting
    from .passes.manager import PassManager as PassManager
    from .passes.outcome import PassResult as PassResult
    from .passes.pipeline import parse_pipeline as parse_pipeline
    from .raising.raised import Raised as Raised
    from .raising.raised import raise_model as raise_model
    from .raising.raised import raise_program as raise_program
    from .raising.recognise import Finding as Finding
    from .raising.recognise import recognise as recognise
    from .report.optimization import OptimizationReport as OptimizationReport
    from .report.picture import draw as draw
    from .simulation.lower import lower as lower
    from .simulation.lower import with_weights as with_weights
    from .simulation.profile import profile as profile
    from .simulation.simulate import Simulator as Simulator
    from .simulation.simulate import simulate as simulate
    from .validation.calibration import Calibration as Calibration
    from .validation.counterexample import Counterexample as Counterexample
    from .validation.promise import Promise as Promise
    from .validation.verify import Verification as Verification
    from .validation.verify import replay as replay
    from .validation.verify import verify as verify
