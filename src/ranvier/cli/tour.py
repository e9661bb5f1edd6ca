"""The command ``ranvier tour``: a network of adaptive spiking neurons, analyzed and explained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from rich.console import Console

from ..api.analyse import Analysis, analyse
from ..errors import ModelError
from ..learn.rules.catalog import rule_memory
from ..program.analysis.hidden_groups import HiddenGroup
from ..program.analysis.perturbation import HiddenPerturbation
from ..program.analysis.relations import HiddenParamOpRelation
from ..program.program import ModuleInfo
from ..report.summary import memory_lines
from ..util.extras import require
from .console import heading, print_plain

WARM_UP_STEPS = 200


def run_tour(console: Console) -> None:
    """Prints four analyses of the bundled network, and explains each of them."""
    require("the tour", "models", "brainpy", "braintools", error=ModelError)
    from ..models import alif_stp

    model, x = alif_stp()
    analysis = analyse(model, x)
    heading(console, "Ranvier looks inside a spiking network")
    print_plain(
        console,
        "Four adaptive LIF neurons send their spikes back to themselves, through short-term plasticity, a linear\n"
        "map and an exponential synapse. The model is ordinary brainstate code without annotations. Everything\n"
        "below comes from its jaxpr.",
    )
    hidden, other = _warmed_up(analysis.info, x)
    _show_program(console, analysis)
    neuron = _show_group(console, analysis.info, analysis.groups[0], x, hidden)
    _show_relation(console, analysis.info, analysis.relations[0], x, hidden, neuron)
    _show_perturbation(console, analysis.perturbation, x, hidden, other)
    _show_memory(console, analysis.info)


def _warmed_up(info: ModuleInfo, x: jax.Array) -> tuple[dict, dict]:
    """States after some steps with input, so that the printed numbers are those of an active network."""
    step = jax.jit(lambda hidden, other: info.step(x, hidden=hidden, other=other)[1:])
    hidden = {slot.path: slot.value for slot in info.hidden}
    other = {slot.path: slot.value for slot in info.other}
    for _ in range(WARM_UP_STEPS):
        hidden, other = step(hidden, other)
    return hidden, other


def _show_program(console: Console, analysis: Analysis) -> None:
    heading(console, "\n1. ModuleInfo: one time step, with a name for every operand and result")
    print_plain(
        console,
        f"{analysis.info}\n\n"
        "Hidden states are what the network remembers; parameters are what it learns. The model defines the units.",
    )


def _show_group(console: Console, info: ModuleInfo, group: HiddenGroup, x: jax.Array, hidden: dict) -> int:
    """Shows a group. Returns the number of the neuron closest to its threshold, whose numbers vary the most."""
    heading(console, "\n2. HiddenGroup: states that belong to the same neurons")
    D = group.transition.jacobian(info.values(x, hidden=hidden))
    neuron = int(jnp.abs(D[:, 2, 0]).argmax())
    print_plain(
        console,
        f"{group}\n\n"
        "The five states interact only within a neuron, so D, the Jacobian of the new states with respect to the\n"
        "old ones, is one 5 x 5 block per neuron. Zeros are known from the structure. Numbers are constants known\n"
        'before any data, such as exp(-dt/tau) of the synapse. "varies" means that the entry depends on the data.\n'
        f"D of neuron {neuron} after {WARM_UP_STEPS} steps:\n{_matrix(D[neuron])}",
    )
    return neuron


def _show_relation(
    console: Console, info: ModuleInfo, relation: HiddenParamOpRelation, x: jax.Array, hidden: dict, neuron: int
) -> None:
    heading(console, "\n3. HiddenParamOpRelation: where a parameter drives a group")
    f = relation.connections[0].f(info.values(x, hidden=hidden))
    print_plain(
        console,
        f"{relation}\n\n"
        "y = x @ W + b enters the synapse and, in the same step, the membrane. An eligibility trace for W needs x,\n"
        f"D and f = dh/dy. For neuron {neuron}, f is\n{_matrix(f[neuron])}",
    )


def _show_perturbation(
    console: Console, perturbation: HiddenPerturbation, x: jax.Array, hidden: dict, other: dict
) -> None:
    heading(console, "\n4. HiddenPerturbation: how each state affects the loss")
    comparison = perturbation.compare(lambda spikes: jnp.sum((spikes - 0.5) ** 2), x, hidden=hidden, other=other)
    print_plain(
        console,
        f"{perturbation}\n\n"
        "The learning signal dL/dh is the derivative of the loss with respect to these perturbations. Below it is\n"
        "computed for the loss sum((y - 1/2)^2) by automatic differentiation, and checked against central finite\n"
        f"differences, in which spikes count with their surrogate gradient:\n{comparison}",
    )


def _show_memory(console: Console, info: ModuleInfo) -> None:
    heading(console, "\nMemory for learning this network online")
    print_plain(console, "\n".join(memory_lines(rule_memory(info))))
    print_plain(
        console,
        "\nTry it with your own model:  ranvier show package.module:factory --picture model.svg",
    )


def _matrix(values: jax.Array) -> str:
    return "\n".join("  " + "  ".join(f"{float(v) + 0.0: .5f}" for v in row) for row in jnp.atleast_2d(values))
