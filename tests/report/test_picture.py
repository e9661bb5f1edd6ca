"""Pictures and the wiring behind them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import pytest

import ranvier
from ranvier.models import alif_stp
from ranvier.program.analysis.wiring import wiring_of

N = 4


@pytest.fixture(scope="module")
def ten_populations() -> ranvier.ModuleInfo:
    """A chain of ten populations with recurrence, a skip connection and feedback."""

    def step(p, s, x):
        new, signal = {}, x
        for k in range(10):
            drive = signal @ p[f"w{k}"] + jnp.tanh(s[f"v{k}"]) @ p[f"r{k}"]
            if k == 5:
                drive = drive + jnp.tanh(new["v1"]) @ p["skip"] + jnp.tanh(s["v8"]) @ p["feedback"]
            new[f"v{k}"] = 0.9 * s[f"v{k}"] + drive
            signal = jax.nn.sigmoid(new[f"v{k}"])
        return new, signal @ p["out"]

    names = [f"{letter}{k}" for letter in "wr" for k in range(10)] + ["skip", "feedback", "out"]
    params = {name: jnp.ones((N, N)) for name in names}
    model = ranvier.step_function(step, params, {f"v{k}": jnp.zeros(N) for k in range(10)}, name="ten populations")
    return ranvier.extract_module_info(model, jnp.ones(N))


def test_wiring(ten_populations: ranvier.ModuleInfo) -> None:
    wires = {(w.source, w.target, w.delay): w for w in wiring_of(ten_populations)}
    assert wires[("input", 0), ("group", 0), 0].parameters == (("w0",),)
    assert wires[("group", 3), ("group", 3), 1].parameters == (("r3",),)
    assert wires[("group", 1), ("group", 5), 0].parameters == (("skip",),)
    assert wires[("group", 8), ("group", 5), 1].parameters == (("feedback",),)
    assert wires[("group", 9), ("output", 0), 0].parameters == (("out",),)
    assert len(wires) == 10 + 10 + 3


def test_gated_wires() -> None:
    def step(p, s, x):
        r = jax.nn.sigmoid(x @ p["reset"])
        return {"h": 0.9 * s["h"] + (r * s["h"]) @ p["w"]}, s["h"]

    params = {"reset": jnp.ones((N, N)), "w": jnp.ones((N, N))}
    info = ranvier.extract_module_info(ranvier.step_function(step, params, {"h": jnp.ones(N)}), jnp.ones(N))
    wires = {(w.source, w.target): w for w in wiring_of(info) if w.kind != "direct"}
    assert wires[("input", 0), ("group", 0)].gated
    assert not wires[("group", 0), ("group", 0)].gated


def test_svg_is_well_formed_and_names_everything(ten_populations: ranvier.ModuleInfo, tmp_path: Path) -> None:
    path = ranvier.draw(ten_populations, tmp_path / "net.svg")
    text = " ".join(ElementTree.parse(path).getroot().itertext())
    for name in ["input x0", "output y0", *(f"population {k} [4]" for k in range(10)), "skip [4,4]", "feedback [4,4]"]:
        assert name in text
    assert list(tmp_path.iterdir()) == [path]


def test_pictures_are_reproducible(tmp_path: Path) -> None:
    info = ranvier.extract_module_info(*alif_stp())
    first, second = (ranvier.draw(info, tmp_path / f"{k}.svg").read_bytes() for k in "ab")
    assert first == second


def test_png_and_html(tmp_path: Path) -> None:
    info = ranvier.extract_module_info(*alif_stp())
    assert ranvier.draw(info, tmp_path / "net.png").read_bytes().startswith(b"\x89PNG")
    page = ranvier.draw(info, tmp_path / "net.html").read_text()
    assert page.count("<svg") == 1
    assert "HiddenParamOpRelation linear.weight" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")


def test_a_bad_ending_writes_nothing(tmp_path: Path) -> None:
    info = ranvier.extract_module_info(*alif_stp())
    with pytest.raises(ranvier.PictureError, match=r"write, for example, net.svg"):
        ranvier.draw(info, tmp_path / "net.pdf")
    assert not list(tmp_path.iterdir())
