"""What optional packages are needed for, checked before the work that needs them begins."""

from __future__ import annotations

import importlib.util

PACKAGES = {"sklearn": "scikit-learn", "orbax.checkpoint": "orbax-checkpoint"}
"""Names of packages where modules are called otherwise."""


def require(purpose: str, extra: str, *modules: str, error: type[Exception]) -> None:
    """Passes where modules can be imported.

    Args:
        purpose: what they are needed for; begins the message.
        extra: of Ranvier, that brings them.
        modules: their names.
        error: what to raise.

    Raises:
        error: some are missing; says how to install them.
    """
    missing = [PACKAGES.get(name, name) for name in modules if not _is_installed(name)]
    if missing:
        raise error(f"{purpose} needs {' and '.join(missing)}; {how_to_install(missing, extra)}.")


def how_to_install(packages: list[str], extra: str | None) -> str:
    """The commands that install packages: with an extra of Ranvier where one brings them, and by their names."""
    by_name = f"`pip install {' '.join(packages)}`"
    return f"run `pip install '.[{extra}]'` in a clone of Ranvier, or {by_name}" if extra else f"run {by_name}"


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
