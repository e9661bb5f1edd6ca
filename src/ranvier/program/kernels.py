"""Kernels of primitives that come from outside JAX, looked for before work begins.

Some packages choose the kernel of a primitive, and import what that kernel needs, only where JAX lowers it: deep inside
a compilation. A primitive that JAX does not list is therefore lowered once on its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

import jax

from ..errors import ModelError, reason_text
from ..util.extras import how_to_install
from ._jax import Equation, bind, names_of_primitives, open_jaxpr, spec
from .bodies import bodies
from .program import ModuleInfo

EXTRAS = {"numba": "sparse"}
"""The extra of Ranvier that brings a package; others are installed by name."""
WITHOUT_NUMBA = ", or use brainevent's kernels in plain JAX: brainevent.config.set_backend('cpu', 'jax_raw')"


def check_kernels(info: ModuleInfo) -> None:
    """Passes where the kernels of all primitives can be compiled here.

    Raises:
        ModelError: a package that a primitive's kernel needs is not installed; the message says how to install it.
    """
    missing: dict[str, list[str]] = {}
    for eqn in {_form(eqn): eqn for eqn in _foreign(info.equations)}.values():
        name = _missing_package(eqn)
        if name is not None:
            missing.setdefault(name, []).append(eqn.primitive.name)
    if missing:
        reasons = " ".join(_reason(name, kernels) for name, kernels in missing.items())
        raise ModelError(f"{info.name} cannot run here: {reasons}")


def _reason(package: str, kernels: list[str]) -> str:
    install = how_to_install([package], EXTRAS.get(package))
    otherwise = WITHOUT_NUMBA if package == "numba" else ""
    return f"{', '.join(dict.fromkeys(kernels))} needs {package}, which is not installed; {install}{otherwise}."


def _foreign(equations: Iterable[Equation]) -> Iterator[Equation]:
    """The innermost equations whose primitive JAX does not list."""
    for eqn in equations:
        inside = bodies(eqn)
        for body in inside:
            yield from _foreign(open_jaxpr(body)[0].eqns)
        if not inside and eqn.primitive.name not in names_of_primitives():
            yield eqn


def _form(eqn: Equation) -> Hashable:
    """All that lowering an equation depends on; a number of its own where its parameters cannot be compared.

    The layers of a network have the same few forms, and lowering one of them takes milliseconds.
    """
    form = (eqn.primitive, tuple(atom.aval for atom in eqn.invars), tuple(eqn.params.items()))
    try:
        hash(form)
    except TypeError:
        return id(eqn)
    return form


def _missing_package(eqn: Equation) -> str | None:
    """The package whose import fails while the equation is lowered; None where it is lowered, or fails otherwise.

    Another failure is no reason to refuse a model: an equation may need what surrounds it.
    """
    try:
        jax.jit(lambda *operands: bind(eqn, operands)).lower(*(spec(atom.aval) for atom in eqn.invars))
    except Exception as error:
        return _not_imported(error)
    return None


def _not_imported(error: BaseException | None) -> str | None:
    """The module that an error, or one that it came from, could not import."""
    while error is not None:
        if isinstance(error, ImportError):
            return (error.name or reason_text(error)).partition(".")[0]
        error = error.__cause__ or error.__context__
    return None
