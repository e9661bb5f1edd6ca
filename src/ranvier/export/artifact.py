"""A model in one file that runs with JAX alone: a time step as StableHLO, and its arrays. No pickles."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from ..errors import ExportError, InputError, printable, reason_text
from ..graph.names import free_name
from ..program._jax import is_key, stable_custom_calls
from ..program.analysis.explanations import equation_text
from ..program.bodies import bodies
from ..program.inputs import inputs_by_name
from ..program.interpret import evaluate
from ..program.kernels import check_kernels
from ..program.paths import full_text, leaf_path
from ..program.program import ModuleInfo
from ..program.random import fold_in, is_random
from ..util.counting import counted
from ..util.extras import require
from ..util.files import open_archive, write_atomically, write_member
from ..util.limits import RESULTS, TooLarge

FORMAT = 2
MANIFEST, STEP = "artifact.json", "step.bin"
PLATFORMS = ("cpu", "cuda", "tpu")
KEYS = "threefry2x32"
"""How random keys are made of the numbers that a file holds."""
CUSTOM_CALL = re.compile(r'custom_call\s*@"?([^\s("]+)|call_target_name\s*=\s*"([^"]*)"')
"""In the text of a step."""


@dataclass(frozen=True)
class Array:
    """What an input or output is.

    Attributes:
        name: for people, and for files with inputs.
        shape: of one step and sample.
        dtype: its name.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


def check_can_export() -> None:
    """Raises :class:`ExportError` where what writes and reads steps is missing."""
    require("an artifact", "artifact", "flatbuffers", error=ExportError)


def write_artifact(
    info: ModuleInfo, path: str | os.PathLike[str], *, batched: bool, outputs: Sequence[str] | None = None
) -> Path:
    """Writes a program into a file; an existing file is replaced once the new one is complete.

    Args:
        info: the program, with the values of parameters and initial states.
        path: of the file.
        batched: whether the program has an axis of samples of its own; otherwise it runs for any number of samples.
        outputs: names of the outputs; those of the program's pytree by default.

    Raises:
        ExportError: JAX cannot lower the step, or the file cannot be written.
    """
    if not Path(path).parent.is_dir():
        raise ExportError(f"{os.fspath(path)!r}: the folder {str(Path(path).parent)!r} does not exist; make it first.")
    check_kernels(info)
    params = [leaf for slot in info.parameters for leaf in slot.initial]
    state, keys, random = _state(info)
    step = _exported(info, params, state, keys, batched)
    manifest = {
        "format": FORMAT,
        "name": info.name,
        "inputs": [asdict(one) for one in _arrays(info.input_treedef, info.input_avals, "input")],
        "outputs": [asdict(one) for one in _arrays(info.output_treedef, info.output_avals, "output", outputs)],
        "batched": batched,
        "params": len(params),
        "state": len(state),
        "keys": keys,
        "random": random,
        "jax": jax.__version__,
        "sha256": _digest(step, [*params, *state]),
    }
    try:
        write_atomically(Path(path), _archive(manifest, step, params, state))
    except (OSError, ValueError) as error:
        raise ExportError(f"{os.fspath(path)!r} cannot be written: {reason_text(error)}.") from error
    return Path(path)


def _archive(manifest: Mapping[str, Any], step: bytes, params: list[Any], state: list[Any]) -> bytes:
    """The content of a file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
        archive.writestr(STEP, step)
        for kind, leaves in (("params", params), ("state", state)):
            for number, leaf in enumerate(leaves):
                write_member(archive, f"{kind}.{number}.npy", np.asarray(leaf))
    return buffer.getvalue()


def _digest(step: bytes, arrays: Iterable[Any]) -> str:
    """What tells a step and its arrays from damaged ones."""
    digest = hashlib.sha256(step)
    for value in map(np.asarray, arrays):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def _state(info: ModuleInfo) -> tuple[list[Any], list[int], list[int]]:
    """Leaves of hidden and other states, which of them are random keys as numbers, and which hold any kind of keys."""
    leaves, keys, random = [], [], []
    for slot in (*info.hidden, *info.other):
        for leaf in slot.initial:
            if is_random(slot):
                random.append(len(leaves))
            if is_key(leaf.dtype):
                keys.append(len(leaves))
                leaf = jax.random.key_data(leaf)
            leaves.append(leaf)
    return leaves, keys, random


def _arrays(treedef: Any, avals: Any, preset: str, first_names: Sequence[str] | None = None) -> list[Array]:
    numbered = jax.tree.unflatten(treedef, list(range(len(avals))))
    paths = [leaf_path(path) for path, _ in jax.tree_util.tree_flatten_with_path(numbered)[0]]
    if preset == "input" and treedef.num_nodes and len({path[0] for path in paths}) == 1:
        paths = [path[1:] for path in paths]
    names = list(first_names or ())
    for path in paths[len(names) :]:
        names.append(free_name(names, full_text(path) if path else preset))
    return [Array(name, tuple(aval.shape), str(aval.dtype)) for name, aval in zip(names, avals, strict=True)]


def _exported(info: ModuleInfo, params: list[Any], state: list[Any], keys: list[int], batched: bool) -> bytes:
    """The step as bytes: ``(parameters, states, inputs) -> (outputs, states)``, over lists."""

    def step(params: list[Any], state: list[Any], inputs: list[Any]) -> tuple[list[Any], list[Any]]:
        wrapped = [jax.random.wrap_key_data(x, impl=KEYS) if k in keys else x for k, x in enumerate(state)]
        results = evaluate(info.closed_jaxpr, [*inputs, *params, *wrapped])
        outputs, new = results[: len(info.output_avals)], results[len(info.output_avals) :]
        return list(outputs), [jax.random.key_data(x) if k in keys else x for k, x in enumerate(new)]

    samples = () if batched else tuple(export.symbolic_shape("samples"))
    function = step if batched else jax.vmap(step, in_axes=(None, 0, 0))

    def spec(lead: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*lead, *leaf.shape), leaf.dtype)

    arguments = [
        [spec((), jnp.asarray(leaf)) for leaf in params],
        [spec(samples, jnp.asarray(leaf)) for leaf in state],
        [spec(samples, aval) for aval in info.input_avals],
    ]
    try:
        return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).serialize())
    except Exception as error:
        calls = [equation_text(eqn) for eqn in info.equations if "call" in eqn.primitive.name and not bodies(eqn)]
        raise ExportError(
            f"{info.name} cannot be exported{f': here {calls[0]}' if calls else ''}. A step with calls back to Python, "
            f"or with kernels of one machine only, cannot leave it; write it in JAX operations ({reason_text(error)})."
        ) from error


class Artifact:
    """A model that was written by :func:`ranvier.export_artifact`.

    Attributes:
        name: of the model.
        inputs, outputs: what goes in and comes out of a step.
        batched: whether the model has an axis of samples of its own.
        params: values of the parameters, in order.
    """

    def __init__(self, manifest: Mapping[str, Any], step: bytes, params: list[Any], state: list[Any]) -> None:
        self.name = str(manifest["name"])
        self.inputs = [_array(one) for one in manifest["inputs"]]
        self.outputs = [_array(one) for one in manifest["outputs"]]
        self.batched = bool(manifest["batched"])
        self.params = params
        self._random = [int(k) for k in manifest["random"]]
        self._keys = [int(k) for k in manifest["keys"]]
        self._state = state
        self._step = export.deserialize(bytearray(step))
        self._check()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Artifact:
        """The model in a file. A step is a program: run only files whose maker you trust.

        Raises:
            ExportError: there is no such file, or it holds no artifact that this version reads.
        """
        check_can_export()
        source = Path(path)
        if not source.is_file():
            raise ExportError(f"there is no file {str(source)!r}.")
        try:
            return cls._read(source)
        except TooLarge as error:
            raise ExportError(f"{str(source)!r}: {error}.") from error
        except Exception as error:  # a damaged archive raises errors of many kinds
            raise ExportError(
                f"{str(source)!r} holds no artifact: {reason_text(error)}; ranvier.export_artifact writes one."
            ) from error

    @classmethod
    def _read(cls, source: Path) -> Artifact:
        with open_archive(source) as archive:
            manifest = json.loads(archive.text(MANIFEST))
            if manifest["format"] != FORMAT:
                raise ValueError(f"its format is {manifest['format']!r}, this version reads {FORMAT}")
            params, state = (
                [archive.array(f"{kind}.{number}.npy") for number in range(manifest[kind])]
                for kind in ("params", "state")
            )
            step = archive.read(STEP)
        if _digest(step, [*params, *state]) != manifest["sha256"]:
            raise ValueError("its step and arrays are not those that it was written with")
        return cls(manifest, step, params, state)

    def _check(self) -> None:
        """Raises ValueError where arrays, names and step do not fit together, or the step calls into the process."""
        with self._precision():
            initial = jax.eval_shape(partial(self.initial, None if self.batched else 1))
        lead = 0 if self.batched else 1
        expected = [
            *((np.shape(x), np.dtype(x.dtype)) for x in self.params),
            *((x.shape[lead:], x.dtype) for x in initial),
            *((one.shape, jnp.dtype(one.dtype)) for one in self.inputs),
        ]
        leads = [0] * len(self.params) + [lead] * (len(initial) + len(self.inputs))
        takes = [(x.shape[n:], x.dtype) for x, n in zip(self._step.in_avals, leads, strict=True)]
        gives = [(x.shape[lead:], x.dtype) for x in self._step.out_avals]
        results = [((*one.shape,), jnp.dtype(one.dtype)) for one in self.outputs]
        if takes != expected or gives != results + expected[len(self.params) : len(self.params) + len(initial)]:
            raise ValueError("its step does not take and return the arrays that it declares")
        for arrays in (self.inputs, self.outputs):
            if len({one.name for one in arrays}) < len(arrays):
                raise ValueError("two of its inputs or outputs have one name")
        calls = {one or other for one, other in CUSTOM_CALL.findall(str(self._step.mlir_module()))}
        if unknown := sorted(calls - stable_custom_calls()):
            raise ValueError(f"its step calls {unknown[0]!r}, which is not an operation of JAX that a file may hold")

    def initial(self, samples: int | None = None, *, seed: int = 0) -> list[jax.Array]:
        """States before the first step, for some samples; of a model with an axis of its own as they are.

        Random states differ from sample to sample and from seed to seed.
        """
        if self.batched:
            return [self._seeded(k, leaf, seed) for k, leaf in enumerate(self._state)]
        numbers = range(1 if samples is None else samples)
        leaves = [[self._seeded(k, leaf, seed + n) for n in numbers] for k, leaf in enumerate(self._state)]
        return [jnp.stack(samples) for samples in leaves]

    def _seeded(self, number: int, leaf: Any, seed: int) -> jax.Array:
        if number not in self._random:
            return jnp.asarray(leaf)
        if number in self._keys:
            return jax.random.key_data(fold_in(jax.random.wrap_key_data(jnp.asarray(leaf), impl=KEYS), seed))
        return fold_in(jnp.asarray(leaf), seed)

    def step(self, state: list[jax.Array], *inputs: Any) -> tuple[list[jax.Array], list[jax.Array]]:
        """One time step of all samples: outputs ``[samples, ...]`` and new states."""
        result: Any = self._step.call(self.params, state, list(inputs))
        return result

    def run(self, inputs: Any, *, seed: int = 0) -> dict[str, np.ndarray]:
        """Runs a sequence from the initial states.

        Args:
            inputs: values of the only input ``[T, ...]`` or ``[T, samples, ...]``, or a mapping by name.
            seed: for random states.

        Returns:
            By output ``[T, ...]`` or ``[T, samples, ...]``.

        Raises:
            InputError: the inputs do not fit, or the results would take more memory than they may.
            ExportError: the step in the file does not run.
        """
        with self._precision():
            by_input, samples = self._ordered(inputs)
            self._check_results(len(by_input[0]), samples)
            state = self.initial(samples, seed=seed)
            try:
                outputs = [np.asarray(leaf) for leaf in self._scan(state, by_input)]
            except Exception as error:  # what XLA says of a program that it does not take
                raise ExportError(f"the step of {self.name} does not run: {reason_text(error)}.") from error
        if not self.batched and samples is None:
            outputs = [leaf[:, 0] for leaf in outputs]
        return {one.name: leaf for one, leaf in zip(self.outputs, outputs, strict=True)}

    def _check_results(self, steps: int, samples: int | None) -> None:
        by_step = sum(prod(one.shape) * jnp.dtype(one.dtype).itemsize for one in self.outputs)
        RESULTS.check(steps * (samples or 1) * by_step, f"{counted(steps, 'step')} of {self.name}")

    @cached_property
    def _scan(self) -> Any:
        def scan(params: Any, state: Any, inputs: Any) -> Any:
            def one(state: Any, x: Any) -> tuple[Any, Any]:
                outputs, state = self._step.call(params, state, x)
                return state, outputs

            return jax.lax.scan(one, state, inputs)[1]

        return partial(jax.jit(scan), self.params)

    def _precision(self) -> Any:
        """A context in which JAX has the dtypes of the step."""
        double = any(str(aval.dtype) in ("float64", "int64", "uint64", "complex128") for aval in self._step.in_avals)
        return jax.enable_x64(double or jax.config.read("jax_enable_x64"))

    def _ordered(self, inputs: Any) -> tuple[list[jax.Array], int | None]:
        """Inputs in order, ``[T, samples, ...]``, and the number of samples; None without that axis."""
        names = [one.name for one in self.inputs]
        inputs = inputs_by_name(inputs, names, self.name)
        arrays = [jnp.asarray(inputs[one.name], one.dtype) for one in self.inputs]
        leads = {array.shape[: array.ndim - len(one.shape)] for one, array in zip(self.inputs, arrays, strict=True)}
        shapes = [array.shape[array.ndim - len(one.shape) :] for one, array in zip(self.inputs, arrays, strict=True)]
        (lead, *others) = leads
        fits = not others and len(lead) in ((1,) if self.batched else (1, 2))
        if not fits or shapes != [one.shape for one in self.inputs]:
            more = "" if self.batched else "or [T, samples, ...] "
            expected = ", ".join(f"{one.name} [T, ...] {more}with ... = {list(one.shape)}" for one in self.inputs)
            actual = ", ".join(str(list(array.shape)) for array in arrays)
            raise InputError(f"inputs have shapes {actual}; expected are {expected}.")
        if len(lead) == 2:
            return arrays, lead[1]
        return (arrays if self.batched else [array[:, None] for array in arrays]), None

    def __repr__(self) -> str:
        def listed(arrays: list[Array]) -> str:
            return ", ".join(f"{one.name} {one.dtype}{list(one.shape)}" for one in arrays)

        return printable(f"Artifact({self.name!r}: {listed(self.inputs)} -> {listed(self.outputs)})")


def _array(entry: Mapping[str, Any]) -> Array:
    return Array(str(entry["name"]), tuple(int(n) for n in entry["shape"]), str(entry["dtype"]))
