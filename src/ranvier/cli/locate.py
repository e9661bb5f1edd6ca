"""The model, with example inputs, that a text on the command line stands for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp

from ..errors import InputError, ModelError, RanvierError, reason_text
from ..frontends.extract import check_is_model
from ..frontends.step_function import StepFunction

FORM = "MODEL is package.module:object_or_factory, or path/to/file.py:object_or_factory"


def locate_model(spec: str, input_specs: list[str]) -> tuple[Any, tuple[Any, ...]]:
    """The model that ``spec`` names, and example inputs for it.

    Args:
        spec: ``package.module:name`` or ``file.py:name``. The name is a model, a tuple ``(model, *inputs)``, or a
            function without arguments that returns either.
        input_specs: shapes such as ``"3"``, ``"2,3"``, ``"3:int32"``, or ``""`` for a scalar. They replace the inputs
            of the tuple.

    Raises:
        ModelError: there is no such module, file or name, or the function fails.
        InputError: there are no inputs, or a shape cannot be read.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise ModelError(f"{spec!r} does not name a model; {FORM}, e.g. ranvier.models:alif_stp.")
    target = _attribute(_module(place, spec), name, place)
    if _is_factory(target):
        target = _call(target, spec)
    model, *inputs = target if isinstance(target, tuple) else (target,)
    if input_specs:
        inputs = [_example(text) for text in input_specs]
    check_is_model(model)
    if not inputs:
        raise InputError(
            f"{spec} comes without example inputs; add --input SHAPE for each argument of a step, e.g. --input 3 for "
            "one vector of three, or let the factory return (model, example_input)."
        )
    return model, tuple(inputs)


def _module(place: str, spec: str) -> ModuleType:
    try:
        if place.endswith(".py") or "/" in place:
            return _module_from_file(Path(place))
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)
        return importlib.import_module(place)
    except RanvierError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or place
        reason = f"there is no module {missing!r}" if place.startswith(missing) else f"it needs {missing!r}"
        raise ModelError(f"{spec}: cannot import {place}: {reason}; {FORM}.") from error
    except Exception as error:
        raise ModelError(f"{spec}: importing {place} fails: {reason_text(error)}.") from error


def _module_from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"there is no file {path}; {FORM}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} is not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


def _attribute(module: ModuleType, name: str, place: str) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            known = [n for n, v in vars(module).items() if not n.startswith("_") and not isinstance(v, ModuleType)]
            raise ModelError(f"{place} has no {name!r}; it has {', '.join(known) or 'no public names'}.")
        value = getattr(value, part)
    return value


def _is_factory(value: Any) -> bool:
    if isinstance(value, type):
        return True
    brainstate = sys.modules.get("brainstate")
    is_module = brainstate is not None and isinstance(value, brainstate.nn.Module)
    return callable(value) and not is_module and not isinstance(value, StepFunction)


def _call(factory: Any, spec: str) -> Any:
    try:
        return factory()
    except RanvierError:
        raise
    except Exception as error:
        raise ModelError(
            f"{spec} is called without arguments to create the model, and fails: {reason_text(error)}. "
            "Name a function without arguments that returns (model, example_input)."
        ) from error


def _example(text: str) -> Any:
    shape_text, _, dtype = text.partition(":")
    try:
        shape = tuple(int(size) for size in shape_text.split(",") if size.strip())
        if any(size < 0 for size in shape):
            raise ValueError(shape_text)
        return jnp.ones(shape, dtype or "float32")
    except (ValueError, TypeError):
        raise InputError(
            f"--input {text!r} is not a shape; write sizes with commas and, if needed, a dtype: 3 or 2,3 or 3:int32."
        ) from None
