"""Checks for optional packages, before the work that needs them begins."""

from __future__ import annotations

import importlib.util

PACKAGES = {"sklearn": "scikit-learn", "orbax.checkpoint": "orbax-checkpoint"}
"""Names of packages that differ from those of their modules."""


def require(purpose: str, extra: str, *modules: str, error: type[Exception]) -> None:
    """Returns if modules can be imported.

    Args:
        purpose: what the modules are needed for; the message starts with it.
        extra: the extra of Ranvier that installs them.
        modules: their names.
        error: class of the error.

    Raises:
        error: a module is missing; the message says how to install it.
    """
    missing = [PACKAGES.get(name, name) for name in modules if not _is_installed(name)]
    if missing:
        raise error(f"{purpose} needs {' and '.join(missing)}; {how_to_install(missing, extra)}.")


def how_to_install(packages: list[str], extra: str | None) -> str:
    """The commands that install packages: by an extra of Ranvier if there is one, and by their names."""
    by_name = f"`pip install {' '.join(packages)}`"
    return f"run `pip install '.[{extra}]'` in a clone of Ranvier, or {by_name}" if extra else f"run {by_name}"


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
