"""The command ``ranvier tour``: a network of adaptive spiking neurons, analysed and explained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from rich.console import Console

from ..api.analyse import Analysis, analyse
from ..errors import ModelError
from ..learn.rules.catalogue import rule_memory
from ..program.analysis.hidden_groups import HiddenGroup
from ..program.analysis.perturbation import HiddenPerturbation
from ..program.analysis.relations import HiddenParamOpRelation
from ..program.program import ModuleInfo
from ..report.summary import memory_lines
from ..util.extras import require
from .console import heading, print_plain

WARM_UP_STEPS = 200


def run_tour(console: Console) -> None:
    """Prints four analyses of the bundled network, and what each of them means."""
    require("the tour", "models", "brainpy", "braintools", error=ModelError)
    from ..models import alif_stp

    model, x = alif_stp()
    analysis = analyse(model, x)
    heading(console, "Ranvier looks inside a spiking network")
    print_plain(
        console,
        "Four adaptive LIF neurons send their spikes through short-term plasticity, one linear map and an\n"
        "exponential synapse back to themselves. The model is ordinary brainstate code without any marks;\n"
        "everything below is read off its jaxpr.",
    )
    hidden, other = _warmed_up(analysis.info, x)
    _show_program(console, analysis)
    neuron = _show_group(console, analysis.info, analysis.groups[0], x, hidden)
    _show_relation(console, analysis.info, analysis.relations[0], x, hidden, neuron)
    _show_perturbation(console, analysis.perturbation, x, hidden, other)
    _show_memory(console, analysis.info)


def _warmed_up(info: ModuleInfo, x: jax.Array) -> tuple[dict, dict]:
    """States after some steps with input, so that the numbers below are those of an active network."""
    step = jax.jit(lambda hidden, other: info.step(x, hidden=hidden, other=other)[1:])
    hidden = {slot.path: slot.value for slot in info.hidden}
    other = {slot.path: slot.value for slot in info.other}
    for _ in range(WARM_UP_STEPS):
        hidden, other = step(hidden, other)
    return hidden, other


def _show_program(console: Console, analysis: Analysis) -> None:
    heading(console, "\n1. ModuleInfo: one time step, every operand and result named")
    print_plain(
        console,
        f"{analysis.info}\n\n"
        "Hidden states are what the network remembers; parameters are what it learns. Units are the model's own.",
    )


def _show_group(console: Console, info: ModuleInfo, group: HiddenGroup, x: jax.Array, hidden: dict) -> int:
    """Shows a group. Returns the number of the neuron closest to its threshold, whose numbers vary the most."""
    heading(console, "\n2. HiddenGroup: states that belong to the same neurons")
    D = group.transition.jacobian(info.values(x, hidden=hidden))
    neuron = int(jnp.abs(D[:, 2, 0]).argmax())
    print_plain(
        console,
        f"{group}\n\n"
        "All five states interact neuron by neuron, so the Jacobian D of new states by old ones is one 5 x 5 block\n"
        "per neuron and nothing else. Zeros are known from the structure; numbers are constants found at analysis\n"
        'time (exp(-dt/tau) of the synapse, say); "varies" depends on the data. '
        f"After {WARM_UP_STEPS} steps, neuron {neuron}:\n{_matrix(D[neuron])}",
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
        f"D and f = dh/dy; for neuron {neuron} f is\n{_matrix(f[neuron])}",
    )


def _show_perturbation(
    console: Console, perturbation: HiddenPerturbation, x: jax.Array, hidden: dict, other: dict
) -> None:
    heading(console, "\n4. HiddenPerturbation: how the loss feels each state")
    comparison = perturbation.compare(lambda spikes: jnp.sum((spikes - 0.5) ** 2), x, hidden=hidden, other=other)
    print_plain(
        console,
        f"{perturbation}\n\n"
        "The learning signal dL/dh is the derivative by these perturbations. Here for the loss sum((y - 1/2)^2), by\n"
        "automatic differentiation and checked by central finite differences (spikes count with their surrogate\n"
        f"gradient):\n{comparison}",
    )


def _show_memory(console: Console, info: ModuleInfo) -> None:
    heading(console, "\nWhat learning this network online would keep in memory")
    print_plain(console, "\n".join(memory_lines(rule_memory(info))))
    print_plain(
        console,
        "\nTry it on your own model:  ranvier show package.module:factory --picture model.svg",
    )


def _matrix(values: jax.Array) -> str:
    return "\n".join("  " + "  ".join(f"{float(v) + 0.0: .5f}" for v in row) for row in jnp.atleast_2d(values))
