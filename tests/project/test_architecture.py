"""The tree says what it promises: light import, one door to JAX internals, one name per exported thing."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ranvier
import ranvier.compat.brainscale
import ranvier.compat.sc_neurocore
from ranvier import compat

SOURCES = Path(ranvier.__file__).parent


def test_import_is_light() -> None:
    heavy = ["jax", "brainstate", "brainunit", "brainpy", "braintools", "brainevent", "nir", "matplotlib"]
    code = f"import sys, ranvier; print([name for name in {heavy!r} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_step_function_needs_no_brainstate() -> None:
    code = """
import sys, jax.numpy as jnp, ranvier
model = ranvier.step_function(lambda p, s, x: ({"v": 0.9 * s["v"] + x @ p["w"]}, s["v"]),
                              {"w": jnp.ones((3, 4))}, {"v": jnp.zeros(4)})
analysis = ranvier.analyse(model, jnp.ones(3))
assert len(analysis.relations) == 1 and analysis.explain()
print([name for name in ("brainstate", "brainpy", "matplotlib", "nir") if name in sys.modules])
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
    return found


def test_one_module_touches_jax_internals() -> None:
    internal = ("jax._src", "jax.extend", "jax.interpreters", "jax.core")
    users = [
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if any(name.startswith(internal) for name in imported_modules(path))
    ]
    assert users == ["program/_jax.py"]


def test_only_frontends_of_brainstate_import_it() -> None:
    users = {
        path.relative_to(SOURCES).parts[0] + "/" + path.name
        for path in SOURCES.rglob("*.py")
        if imported_modules(path) & {"brainstate", "brainunit", "brainpy", "brainpy.state"}
    }
    found = {user for user in users if not user.startswith("models/")}
    assert found == {f"frontends/{name}.py" for name in ("brainstate_module", "brainstate_time", "step_module")}


@pytest.mark.parametrize("name", ranvier.__all__)
def test_every_exported_name_loads(name: str) -> None:
    value = getattr(ranvier, name)
    assert value is not None
    assert name.startswith("__") or value.__doc__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ranvier.nonsense


def modules() -> dict[str, Path]:
    """Dotted names of all modules, ``""`` for the top level."""
    return {".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
            for path in SOURCES.rglob("*.py")}  # fmt: skip


def imports_of(module: str, path: Path, known: set[str]) -> set[str]:
    """Modules of Ranvier that a module imports: at the top, in functions and for type checking alike."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *filter(None, [node.module])]
            for alias in node.names:
                target = ".".join([*base, alias.name])
                names.add(target if target in known else ".".join(base))
    return names - {module}


@pytest.mark.slow
def test_no_circle_of_modules() -> None:
    found = modules()
    graph = {name: imports_of(name, path, set(found)) for name, path in found.items()}
    assert sum(map(len, graph.values())) > 1000  # imports are seen at all
    list(TopologicalSorter(graph).static_order())  # a circle raises CycleError, which lists it


def test_a_circle_would_be_seen() -> None:
    with pytest.raises(CycleError):
        list(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())


def test_nothing_is_imported_by_string() -> None:
    """But a user's own model, which is named on the command line."""
    users = {
        path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py") if "import_module" in path.read_text()
    }
    assert users == {"cli/locate.py"}


@pytest.mark.parametrize("name", ["Verification", "Plan"])
def test_a_name_that_moved_says_where_it_is(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"there is ranvier\.types\.{name}"):
        getattr(ranvier, name)


def test_peers_names_work_at_the_top_and_stand_apart() -> None:
    assert ranvier.PEERS.isdisjoint(ranvier.__all__)
    assert ranvier.HiddenGroup is compat.brainscale.HiddenGroup
    assert ranvier.weight_pruning is compat.sc_neurocore.weight_pruning
    assert all(getattr(ranvier, name) is not None for name in ranvier.PEERS)
