"""The types of what Ranvier's functions return, for annotations and checks; nobody has to construct them."""

from .api.analyse import Analysis as Analysis
from .export.artifact import Artifact as Artifact
from .frontends.step_function import StepFunction as StepFunction
from .graph.analysis.operation_counts import OperationCounts as OperationCounts
from .graph.analysis.operation_counts import ProjectionCounts as ProjectionCounts
from .graph.elements import Activity as Activity
from .graph.recording import Simulation as Simulation
from .graph.shared import ParameterBinding as ParameterBinding
from .graph.verifier import Problem as Problem
from .learn.comparison.compare import Agreement as Agreement
from .learn.comparison.compare import RuleComparison as RuleComparison
from .learn.comparison.compare import RuleResult as RuleResult
from .learn.learner import Learner as Learner
from .learn.left_out import LeftOut as LeftOut
from .learn.plan import Plan as Plan
from .learn.rules.by_parameter import ByParameter as ByParameter
from .learn.state import Aux as Aux
from .learn.state import LearnerState as LearnerState
from .learn.training.compression import Compression as Compression
from .learn.training.compression import HeldMasks as HeldMasks
from .learn.training.fit import FitResult as FitResult
from .passes.base import Remark as Remark
from .passes.outcome import PassResult as PassResult
from .passes.recognition.recognise import Finding as Finding
from .program.analysis.binding_time import BindingTime as BindingTime
from .program.analysis.hidden_groups import HiddenGroup as HiddenGroup
from .program.analysis.memory import RuleMemory as RuleMemory
from .program.analysis.parameter_use import ParameterUse as ParameterUse
from .program.analysis.parameter_use import UseKind as UseKind
from .program.analysis.perturbation import HiddenPerturbation as HiddenPerturbation
from .program.analysis.perturbation import SignalComparison as SignalComparison
from .program.analysis.relations import Connection as Connection
from .program.analysis.relations import HiddenParamOpRelation as HiddenParamOpRelation
from .program.analysis.transition import EntryFacts as EntryFacts
from .program.analysis.transition import Transition as Transition
from .program.diagnostic import Diagnostic as Diagnostic
from .program.diagnostic import DiagnosticKind as DiagnosticKind
from .program.program import ModuleInfo as ModuleInfo
from .program.program import Slot as Slot
from .program.program import SlotRole as SlotRole
from .raising.raised import Raised as Raised
from .report.optimization import OptimizationReport as OptimizationReport
from .report.timings import Timing as Timing
from .report.timings import Timings as Timings
from .util.limits import Limits as Limits
from .verification.counterexample import Counterexample as Counterexample
from .verification.verify import Verification as Verification

__all__ = [
    "Activity",
    "Agreement",
    "Analysis",
    "Artifact",
    "Aux",
    "BindingTime",
    "ByParameter",
    "Compression",
    "Connection",
    "Counterexample",
    "Diagnostic",
    "DiagnosticKind",
    "EntryFacts",
    "Finding",
    "FitResult",
    "HeldMasks",
    "HiddenGroup",
    "HiddenParamOpRelation",
    "HiddenPerturbation",
    "Learner",
    "LearnerState",
    "LeftOut",
    "Limits",
    "ModuleInfo",
    "OperationCounts",
    "OptimizationReport",
    "ParameterBinding",
    "ParameterUse",
    "PassResult",
    "Plan",
    "Problem",
    "ProjectionCounts",
    "Raised",
    "Remark",
    "RuleComparison",
    "RuleMemory",
    "RuleResult",
    "SignalComparison",
    "Simulation",
    "Slot",
    "SlotRole",
    "StepFunction",
    "Timing",
    "Timings",
    "Transition",
    "UseKind",
    "Verification",
]
