"""Ranvier: an optimizing compiler for spiking neural networks on JAX.

Names are loaded when first used, so that ``import ranvier`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "program.analysis.hidden_groups": ["HiddenGroup", "find_hidden_groups_from_minfo"],
    "program.analysis.memory": ["RuleMemory"],
    "program.analysis.parameter_uses": ["ParameterUse", "UseKind"],
    "program.analysis.perturbation": ["HiddenPerturbation", "SignalComparison", "add_hidden_perturbation_from_minfo"],
    "program.analysis.relations": ["Connection", "HiddenParamOpRelation", "find_hidden_param_op_relations_from_minfo"],
    "program.analysis.transition": ["EntryFacts", "Transition"],
    "program.analysis.binding_time": ["BindingTime"],
    "api.export": ["export_artifact", "export_source", "load_artifact"],
    "api.to_nir": ["to_nir"],
    "api.optimize": ["optimize"],
    "compat.brainscale": ["ETraceGraph", "compile_etrace_graph"],
    "compat.sc_neurocore": [
        "SNNOptimizer",
        "dead_neuron_elimination",
        "layer_fusion",
        "redundancy_elimination",
        "redundant_connection_removal",
        "weight_pruning",
    ],
    "api.analyse": [
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
    "nir.read": ["from_nir"],
    "frontends.step_function": ["StepFunction", "step_function"],
    "program.diagnostic": ["Diagnostic", "DiagnosticKind"],
    "graph.elements": ["Activity", "Input", "Output", "Population", "Projection"],
    "graph.interpreter": ["interpret"],
    "graph.parser": ["from_text"],
    "graph.printer": ["to_text"],
    "graph.recording": ["Simulation"],
    "graph.layers": ["LayerNode"],
    "graph.shared": ["ParameterBinding"],
    "graph.snn_graph": ["SNNGraph"],
    "graph.storage": ["load", "save"],
    "graph.verifier": ["Problem", "problems"],
    "util.limits": ["Limits", "limits"],
    "program.nested": ["classify"],
    "program.primitives": ["Kind", "register_family", "register_primitive"],
    "program.program": ["ModuleInfo", "Program", "SlotRole", "Slot"],
    "learn.rules.by_parameter": ["ByParameter"],
    "learn.comparison.compare": ["Agreement", "RuleComparison", "RuleResult"],
    "learn.compare_rules": ["compare_rules"],
    "learn.compile": ["compile"],
    "learn.left_out": ["LeftOut"],
    "learn.training.fit": ["FitResult", "accuracy", "fit"],
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
    "passes.recognition.recognise": ["Finding", "recognise"],
    "report.optimization": ["OptimizationReport"],
    "report.picture": ["draw"],
    "simulation.lower": ["lower", "with_weights"],
    "simulation.profile": ["profile"],
    "simulation.simulate": ["Simulator", "simulate"],
    "verification.calibration": ["Calibration"],
    "verification.counterexample": ["Counterexample"],
    "verification.promise": ["Promise"],
    "verification.verify": ["Verification", "replay", "verify"],
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
    from .util.global_state import global_state_unchanged

    with global_state_unchanged():
        return importlib.import_module(f"ranvier.{module}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, *_MODULES})


if TYPE_CHECKING:
    from .api.analyse import Analysis as Analysis
    from .api.analyse import add_hidden_perturbation_in_module as add_hidden_perturbation_in_module
    from .api.analyse import analyse as analyse
    from .api.analyse import explain as explain
    from .api.analyse import find_hidden_groups_from_module as find_hidden_groups_from_module
    from .api.analyse import find_hidden_param_op_relations_from_module as find_hidden_param_op_relations_from_module
    from .api.export import export_artifact as export_artifact
    from .api.export import export_source as export_source
    from .api.export import load_artifact as load_artifact
    from .api.optimize import optimize as optimize
    from .api.to_nir import to_nir as to_nir
    from .compat.brainscale import ETraceGraph as ETraceGraph
    from .compat.brainscale import compile_etrace_graph as compile_etrace_graph
    from .compat.sc_neurocore import SNNOptimizer as SNNOptimizer
    from .compat.sc_neurocore import dead_neuron_elimination as dead_neuron_elimination
    from .compat.sc_neurocore import layer_fusion as layer_fusion
    from .compat.sc_neurocore import redundancy_elimination as redundancy_elimination
    from .compat.sc_neurocore import redundant_connection_removal as redundant_connection_removal
    from .compat.sc_neurocore import weight_pruning as weight_pruning
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
    from .frontends.step_function import StepFunction as StepFunction
    from .frontends.step_function import step_function as step_function
    from .graph.elements import Activity as Activity
    from .graph.elements import Input as Input
    from .graph.elements import Output as Output
    from .graph.elements import Population as Population
    from .graph.elements import Projection as Projection
    from .graph.interpreter import interpret as interpret
    from .graph.layers import LayerNode as LayerNode
    from .graph.parser import from_text as from_text
    from .graph.printer import to_text as to_text
    from .graph.recording import Simulation as Simulation
    from .graph.shared import ParameterBinding as ParameterBinding
    from .graph.snn_graph import SNNGraph as SNNGraph
    from .graph.storage import load as load
    from .graph.storage import save as save
    from .graph.verifier import Problem as Problem
    from .graph.verifier import problems as problems
    from .learn.compare_rules import compare_rules as compare_rules
    from .learn.comparison.compare import Agreement as Agreement
    from .learn.comparison.compare import RuleComparison as RuleComparison
    from .learn.comparison.compare import RuleResult as RuleResult
    from .learn.compile import compile as compile
    from .learn.learner import Learner as Learner
    from .learn.left_out import LeftOut as LeftOut
    from .learn.plan import Plan as Plan
    from .learn.rule import Rule as Rule
    from .learn.rules.bptt import BPTT as BPTT
    from .learn.rules.by_parameter import ByParameter as ByParameter
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
    from .learn.training.fit import FitResult as FitResult
    from .learn.training.fit import accuracy as accuracy
    from .learn.training.fit import fit as fit
    from .nir.read import from_nir as from_nir
    from .passes.base import Pass as Pass
    from .passes.base import Remark as Remark
    from .passes.base import Rewriting as Rewriting
    from .passes.manager import PassManager as PassManager
    from .passes.outcome import PassResult as PassResult
    from .passes.pipeline import parse_pipeline as parse_pipeline
    from .passes.recognition.recognise import Finding as Finding
    from .passes.recognition.recognise import recognise as recognise
    from .program.analysis.binding_time import BindingTime as BindingTime
    from .program.analysis.hidden_groups import HiddenGroup as HiddenGroup
    from .program.analysis.hidden_groups import find_hidden_groups_from_minfo as find_hidden_groups_from_minfo
    from .program.analysis.memory import RuleMemory as RuleMemory
    from .program.analysis.parameter_uses import ParameterUse as ParameterUse
    from .program.analysis.parameter_uses import UseKind as UseKind
    from .program.analysis.perturbation import HiddenPerturbation as HiddenPerturbation
    from .program.analysis.perturbation import SignalComparison as SignalComparison
    from .program.analysis.perturbation import add_hidden_perturbation_from_minfo as add_hidden_perturbation_from_minfo
    from .program.analysis.relations import Connection as Connection
    from .program.analysis.relations import HiddenParamOpRelation as HiddenParamOpRelation
    from .program.analysis.relations import (
        find_hidden_param_op_relations_from_minfo as find_hidden_param_op_relations_from_minfo,
    )
    from .program.analysis.transition import EntryFacts as EntryFacts
    from .program.analysis.transition import Transition as Transition
    from .program.diagnostic import Diagnostic as Diagnostic
    from .program.diagnostic import DiagnosticKind as DiagnosticKind
    from .program.nested import classify as classify
    from .program.primitives import Kind as Kind
    from .program.primitives import register_family as register_family
    from .program.primitives import register_primitive as register_primitive
    from .program.program import ModuleInfo as ModuleInfo
    from .program.program import Program as Program
    from .program.program import Slot as Slot
    from .program.program import SlotRole as SlotRole
    from .raising.raised import Raised as Raised
    from .raising.raised import raise_model as raise_model
    from .raising.raised import raise_program as raise_program
    from .report.optimization import OptimizationReport as OptimizationReport
    from .report.picture import draw as draw
    from .simulation.lower import lower as lower
    from .simulation.lower import with_weights as with_weights
    from .simulation.profile import profile as profile
    from .simulation.simulate import Simulator as Simulator
    from .simulation.simulate import simulate as simulate
    from .util.limits import Limits as Limits
    from .util.limits import limits as limits
    from .verification.calibration import Calibration as Calibration
    from .verification.counterexample import Counterexample as Counterexample
    from .verification.promise import Promise as Promise
    from .verification.verify import Verification as Verification
    from .verification.verify import replay as replay
    from .verification.verify import verify as verify
