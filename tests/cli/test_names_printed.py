"""What a file calls its neurons is shown as text: it moves no cursor, marks nothing up, and forges no picture."""

from __future__ import annotations

import re
import xml.dom.minidom
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import ranvier
from ranvier.cli.main import app
from ranvier.util.files import write_arrays
from tests.support.examples import few

PREFIXES = {
    "escape": "\x1b[2J\x1b[31mred\x07",
    "backspace": "abc\r\x08\x08",
    "c1": "\x9b31m",
    "right to left": "\u202eevil\u2066",
    "separator": "a\u2028b",
    "markup": "[/nope][bold]",
    "formula": "$\\frac{",
    "element": "</text><script>alert(1)</script>",
}
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff]")


def _graph(prefix: str) -> ranvier.SNNGraph:
    """A chain of which one neuron never fires."""
    neuron, weight = ranvier.neurons.LIF(tau=0.02), 30 * np.eye(3)
    names = [f"{prefix}{end}" for end in "ipqo"]
    weights = [np.diag([30.0, 30.0, -1.0]), weight, weight]
    return ranvier.SNNGraph(
        name=prefix,
        dt=1e-3,
        inputs=[ranvier.Input(names[0], (3,), low=0.0)],
        populations=[ranvier.Population(name, (3,), neuron) for name in names[1:3]],
        outputs=[ranvier.Output(names[3], (3,))],
        projections=[
            ranvier.Projection(f"{prefix}{k}", names[k], names[k + 1], ranvier.operations.Linear(w))
            for k, w in enumerate(weights)
        ],
    )


@few("prefix", [pytest.param(value, id=name) for name, value in PREFIXES.items()])
def test_the_command_line_shows_names_as_text(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ranvier.save(_graph(prefix), "g.snn")
    assert list(ranvier.load("g.snn").populations) == [f"{prefix}p", f"{prefix}q"]
    write_arrays(Path("x.npz"), {f"{prefix}i": np.full((30, 2, 3), 3.0)})
    write_arrays(Path("wrong.npz"), {f"{prefix}wrong": np.full((30, 2, 3), 3.0)})
    commands = [
        "show g.snn --picture p.svg",
        "show g.snn --json",
        "opt g.snn -o h.snn --calibration x.npz --neurons --print-after-all --report r.html --json r.json",
        "verify g.snn h.snn --inputs x.npz --promise profiled",
        "simulate g.snn --inputs x.npz -o out.npz",
        "simulate g.snn --inputs wrong.npz",
        "export g.snn -o m.rva",
        "run m.rva --inputs x.npz",
    ]
    for command in commands:
        result = CliRunner().invoke(app, command.split())
        if "wrong" in command:
            assert isinstance(result.exception, ranvier.InputError)
        else:
            assert result.exit_code == 0, (command, result.exception)
        assert not UNPRINTABLE.search(result.output + str(result.exception)), command
    xml.dom.minidom.parse("p.svg")
    for name in ("p.svg", "r.html"):
        text = Path(name).read_text()
        assert not UNPRINTABLE.search(text), name
        assert "<script>" not in text, name


def test_reports_and_errors_in_python_show_names_as_text() -> None:
    prefix = "".join(PREFIXES.values())
    graph = _graph(prefix)
    _, report = ranvier.optimize(graph, level="O2", calibration=np.full((30, 2, 3), 3.0))
    assert report.remarks
    other = _graph(prefix)
    other.outputs = {}
    (problem, *_) = ranvier.problems(other)
    texts = [report, *report.remarks, ranvier.verify(graph, graph, np.ones((5, 2, 3))), problem, graph]
    for text in (*map(str, texts), ranvier.to_text(graph)[0], repr(graph.layers)):
        assert not UNPRINTABLE.search(text)
    with pytest.raises(ranvier.InputError) as caught:
        ranvier.simulate(graph, {f"{prefix}x": np.ones((5, 2, 3))})
    assert not UNPRINTABLE.search(str(caught.value))


def test_text_that_prints_is_shown_as_it_is() -> None:
    graph = _graph("Näurön α→β 神経 ")
    assert "Näurön α→β 神経 p" in ranvier.to_text(graph)[0]


LONG, SPACED = "a weight with a name of more than thirty-two characters", "second weight"


def _spaced() -> ranvier.types.StepFunction:
    def step(params: Any, state: Any, x: Any) -> Any:
        h = jnp.tanh(0.5 * state["h"] + x["first input"] @ params[LONG] + x["second input"] @ params[SPACED])
        return {"h": h}, {"an output": h, "another output": 2 * h}

    weights = np.random.default_rng(0).normal(size=(2, 3, 3))
    return ranvier.step_function(step, {LONG: weights[0], SPACED: weights[1]}, {"h": jnp.zeros(3)})


X = {"first input": np.ones(3), "second input": np.full(3, 0.5)}
XS = {name: np.stack([value * k for k in range(4)]) for name, value in X.items()}


def test_long_names_and_names_with_spaces_are_told_apart_in_artifacts(tmp_path: Path) -> None:
    model = _spaced()
    artifact = ranvier.load_artifact(ranvier.export_artifact(model, tmp_path / "m.rva", X))
    assert [one.name for one in artifact.inputs] == ["first input", "second input"]
    found = artifact.run(XS)
    h = np.zeros(3)
    for k in range(4):
        drive = sum(
            XS[n][k] @ np.asarray(w) for n, w in zip(XS, (model.params[LONG], model.params[SPACED]), strict=True)
        )
        h = np.tanh(0.5 * h + drive)
        np.testing.assert_allclose(found["an output"][k], h, rtol=1e-5)
        np.testing.assert_allclose(found["another output"][k], 2 * h, rtol=1e-5)


@pytest.mark.parametrize("as_text", [False, True])
def test_long_names_and_names_with_spaces_have_rules_of_their_own(as_text: bool) -> None:
    model = _spaced()
    rules: dict[Any, ranvier.Rule] = {
        LONG if as_text else (LONG,): ranvier.RTRL(),
        SPACED if as_text else (SPACED,): ranvier.D_RTRL(),
    }

    def gradient(rule: Any) -> Any:
        learner = ranvier.compile(model, rule, X, chunk=1)
        return learner.grad(lambda y, _: jnp.sum(y["an output"] ** 2), XS, np.zeros(4))[0]

    both, alone = gradient(rules), {rule: gradient(rule) for rule in rules.values()}
    for path, rule in zip([(LONG,), (SPACED,)], rules.values(), strict=True):
        np.testing.assert_allclose(both[path], alone[rule][path], rtol=1e-6)
    assert set(gradient({...: ranvier.D_RTRL()})) == {(LONG,), (SPACED,)}
    with pytest.raises(ranvier.RuleError, match=f"{SPACED} has no rule"):
        gradient({(LONG,): ranvier.D_RTRL()})


def test_graphs_keep_long_names_and_names_with_spaces() -> None:
    def step(params: Any, state: Any, x: Any) -> Any:
        h = jnp.tanh(state["h"] @ params[SPACED] + x @ params[SPACED])
        return {"h": h}, h @ params[LONG]

    model = ranvier.step_function(step, {LONG: np.eye(3), SPACED: np.eye(3)}, {"h": np.zeros(3)})
    assert list(ranvier.raise_model(model, np.ones(3)).graph.parameters) == ["second_weight"]
