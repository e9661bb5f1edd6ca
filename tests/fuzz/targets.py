"""What is fuzzed: for every format good files to start from, ways to damage them, and a reader that uses them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ranvier
from ranvier.graph.operations import Linear
from ranvier.learn.training.checkpoint import Checkpoints
from ranvier.nir.notes import NOTES
from ranvier.passes.pipeline import parse_pipeline
from tests.support.random_graphs import random_graph

from .mutation import Generator, Mutate, in_archive, in_bytes, in_hdf5, in_json, in_words, pick, zipped

SMALL = 20_000
"""Neurons and weights of graphs that are also run."""


@dataclass(frozen=True)
class Target:
    """A format.

    Attributes:
        ending: of its files.
        seeds: good files.
        mutations: ways to damage one.
        read: reads a file and uses what is in it.
        count: files in the tests.
    """

    ending: str
    seeds: Callable[[], list[bytes]]
    mutations: tuple[Mutate, ...]
    read: Callable[[Path], object]
    count: int


def _use(graph: ranvier.SNNGraph) -> None:
    """All that is done with a graph that was read."""
    ranvier.from_text(*ranvier.to_text(graph))
    if sum(node.size for node in graph.nodes.values()) + graph.total_params > SMALL:
        return
    inputs = {name: np.ones((2, *node.shape)) for name, node in graph.inputs.items()}
    with np.errstate(all="ignore"):
        ranvier.interpret(graph, inputs)
        for write in (lambda folder: ranvier.export_source(graph, folder / "m.py"), lambda _: ranvier.to_nir(graph)):
            with TemporaryDirectory() as folder:
                try:
                    write(Path(folder))
                except ranvier.RanvierError:
                    assert not list(Path(folder).iterdir())


# Graphs -------------------------------------------------------------------------------------------------------------


def _written(write: Callable[[Path], object], ending: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"seed{ending}"
        write(path)
        return path.read_bytes()


@cache
def _graphs() -> list[ranvier.SNNGraph]:
    return [random_graph(seed) for seed in (0, 3, 5, 8, 11)]


@cache
def _snn_seeds() -> list[bytes]:
    return [_written(lambda path, g=graph: ranvier.save(g, path), ".snn") for graph in _graphs()]


@cache
def _text_seeds() -> list[bytes]:
    texts = [ranvier.to_text(graph, inline=10_000) for graph in map(random_graph, range(12))]
    return [text.encode() for text, arrays in texts if not arrays]


@cache
def _nir_seeds() -> list[bytes]:
    import nir

    seeds = []
    for graph in _graphs():
        try:
            seeds.append(_written(lambda path, g=graph: ranvier.to_nir(g, path), ".nir"))
        except ranvier.GraphError:
            continue
    two, nodes = np.full(2, 0.5), {"x": nir.Input({"input": np.array([2])}), "y": nir.Output({"output": np.array([2])})}
    nodes |= {"p": nir.LIF(two, two, two * 0, two, two * 0), "d": nir.Delay(two), "w": nir.Linear(np.ones((2, 2)))}
    loop = nir.NIRGraph(nodes, [("x", "p"), ("p", "d"), ("d", "w"), ("w", "p"), ("p", "y")], type_check=False)
    image = {"x": nir.Input({"input": np.array([1, 4, 4])}), "f": nir.Flatten({"input": np.array([2, 3, 3])}, 0, -1)}
    image |= {"c": nir.Conv2d((4, 4), np.ones((2, 1, 2, 2)), 1, 0, 1, 1, np.zeros(2))}
    image |= {"s": nir.SumPool2d(np.array([3, 3]), np.array([3, 3]), np.array([0, 0]))}
    image |= {"y": nir.Output({"output": np.array([2])}), "t": nir.Threshold(np.ones(2))}
    edges = [("x", "c"), ("c", "s"), ("s", "f"), ("f", "t"), ("t", "y")]
    pictures = nir.NIRGraph(image, edges, type_check=False)
    return [*seeds, *(_written(lambda path, g=graph: nir.write(path, g), ".nir") for graph in (loop, pictures))]


def _read_nir(path: Path) -> None:
    try:
        graph = ranvier.from_nir(path)
    except ranvier.GraphError as error:
        if "NIR does not store" not in str(error):
            raise
        graph = ranvier.from_nir(path, dt=0.1, reset="zero", recurrent_delay=1)
    _use(graph)


@cache
def _notes_seeds() -> list[bytes]:
    return [ranvier.to_nir(graph).metadata[NOTES].encode() for graph in _graphs()[:2]]


def _read_notes(path: Path) -> None:
    """What NIR files of Ranvier's say of themselves, without HDF5 around it."""
    graph = ranvier.to_nir(_graphs()[0])
    graph.metadata[NOTES] = path.read_bytes().decode("utf-8", "replace")
    _use(ranvier.from_nir(graph, dt=1e-3, reset="zero", recurrent_delay=1))


# Arrays -------------------------------------------------------------------------------------------------------------


def _inputs_of(graph: ranvier.SNNGraph) -> dict[str, np.ndarray]:
    return {name: np.ones((3, 2, *node.shape), np.float32) for name, node in graph.inputs.items()}


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@cache
def _data_seeds() -> list[bytes]:
    single = io.BytesIO()
    np.save(single, np.ones((3, 2)))
    inputs = _inputs_of(_graphs()[0])
    return [_npz({**inputs, "labels": np.array([0, 0])}), _npz(inputs), single.getvalue()]


def _read_data(path: Path) -> None:
    data = ranvier.Calibration.load(path, _graphs()[0])
    data.simulation(_graphs()[0])


@cache
def _counterexample_seeds() -> list[bytes]:
    graph = _graphs()[1]
    other = graph.copy()
    name, projection = next((k, p) for k, p in graph.projections.items() if isinstance(p.operation, Linear))
    label, value = "weight", np.asarray(projection.operation.rows(()).todense())
    other.projections[name] = projection.replace(operation=projection.operation.replace(**{label: value * 2 + 1}))
    found = ranvier.verify(graph, other, _inputs_of(graph)).counterexample
    assert found is not None
    return [_written(found.save, ".npz")]


def _in_told(data: bytes, generator: Generator) -> bytes:
    """What a counterexample says of itself, or one of the graphs in it."""
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    name = pick(generator, ("told", "original", "optimized"))
    mutate = in_json if name == "told" else in_archive
    arrays[name] = np.frombuffer(mutate(arrays[name].tobytes(), generator), np.uint8)
    return _npz(arrays)


# Programs -----------------------------------------------------------------------------------------------------------


@cache
def _artifact_seeds() -> list[bytes]:
    def noisy(params: Any, state: Any, x: Any) -> Any:
        key, own = jax.random.split(state["key"])
        v = 0.5 * state["v"] + x @ params["w"] + jax.random.normal(own, (2,))
        return {"v": v, "key": key}, v

    state = {"v": jnp.zeros(2), "key": jax.random.key(0)}
    model = ranvier.step_function(noisy, {"w": jnp.ones((3, 2))}, state, other=["key"])
    return [
        _written(lambda path: ranvier.export_artifact(_graphs()[0], path), ".rva"),
        _written(lambda path: ranvier.export_artifact(model, path, jnp.ones(3)), ".rva"),
    ]


def _signed(data: bytes, generator: Generator) -> bytes:
    """Changed by someone who knows how content is hashed; the compiled step stays as it is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        step = archive.read("step.bin")
    changed = in_archive(data, generator)
    with zipfile.ZipFile(io.BytesIO(changed)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["step.bin"] = step
    try:
        manifest = json.loads(members["artifact.json"])
        digest = hashlib.sha256(step)
        for kind in ("params", "state"):
            for number in range(manifest[kind]):
                value = np.load(io.BytesIO(members[f"{kind}.{number}.npy"]))
                digest.update(f"{value.dtype}{value.shape}".encode())
                digest.update(np.ascontiguousarray(value).data)
        manifest["sha256"] = digest.hexdigest()
        members["artifact.json"] = json.dumps(manifest).encode()
    except Exception:
        return changed
    return zipped(members)


def _read_artifact(path: Path) -> None:
    artifact = ranvier.load_artifact(path)
    inputs = {one.name: np.zeros((2, *one.shape), one.dtype) for one in artifact.inputs}
    if sum(value.size for value in inputs.values()) <= SMALL:
        artifact.run(inputs)


@cache
def _learner() -> Any:
    def step(params: Any, state: Any, x: Any) -> Any:
        v = 0.5 * state["v"] + x @ params["w"]
        return {"v": v}, v

    model = ranvier.step_function(step, {"w": jnp.ones((3, 2))}, {"v": jnp.zeros(2)})
    return ranvier.compile(model, ranvier.D_RTRL(), jnp.ones(3))


def _fit(folder: Path, epochs: int = 2) -> Any:
    data = [(jnp.ones((2, 3)), None)]
    loss = lambda y, _: (y**2).sum()  # noqa: E731
    return ranvier.fit(_learner(), data, loss, optax.sgd(0.1), epochs, checkpoint=folder, progress=False)


@cache
def _checkpoint_seeds() -> list[bytes]:
    """A folder as an archive."""
    with TemporaryDirectory() as folder:
        _fit(Path(folder) / "run")
        return [Path(shutil.make_archive(f"{folder}/all", "zip", Path(folder) / "run")).read_bytes()]


def _read_checkpoint(path: Path) -> None:
    with TemporaryDirectory() as folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        with Checkpoints(folder, _learner()) as checkpoints:
            assert checkpoints.restore(_like()) is not None, "a damaged checkpoint is passed over"


@cache
def _like() -> Any:
    from ranvier.learn.training.trainer import Trainer

    return Trainer(_learner(), lambda y, _: (y**2).sum(), optax.sgd(0.1), {}).start(None, None)


def _in_folder(data: bytes, generator: Generator) -> bytes:
    """A file of a folder changed; what was removed is gone as a file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = pick(generator, [name for name in members if not name.endswith("/")])
    mutate = in_json if members[name][:1] == b"{" and generator.random() < 0.6 else in_bytes
    members[name] = mutate(members[name], generator)
    if generator.random() < 0.1:
        del members[name]
    return zipped(members)


@cache
def _pipeline_seeds() -> list[bytes]:
    first = b"dead-neurons{threshold=0.001},prune{sparsity=0.8},merge-neurons{similarity=0.9}"
    return [first, b"canonicalize,fuse,connections,dead-code"]


def _read_pipeline(path: Path) -> None:
    for one in parse_pipeline(path.read_bytes().decode("utf-8", "replace")):
        one.options  # noqa: B018


TARGETS: dict[str, Target] = {
    "graph": Target(".snn", _snn_seeds, (in_archive, in_archive, in_bytes), lambda path: _use(ranvier.load(path)), 150),
    "text": Target(
        ".txt",
        _text_seeds,
        (in_words, in_words, in_bytes),
        lambda path: _use(ranvier.from_text(path.read_bytes().decode("utf-8", "replace"))),
        150,
    ),
    "nir": Target(".nir", _nir_seeds, (in_hdf5, in_hdf5, in_bytes), _read_nir, 24),
    "nir notes": Target(".json", _notes_seeds, (in_json, in_json, in_words), _read_notes, 100),
    "data": Target(".npz", _data_seeds, (in_archive, in_bytes), _read_data, 100),
    "counterexample": Target(".npz", _counterexample_seeds, (_in_told, in_archive, in_bytes), ranvier.replay, 50),
    "artifact": Target(".rva", _artifact_seeds, (in_archive, _signed, _signed, in_bytes), _read_artifact, 40),
    "checkpoint": Target(".zip", _checkpoint_seeds, (_in_folder,), _read_checkpoint, 30),
    "pipeline": Target(".txt", _pipeline_seeds, (in_words, in_bytes), _read_pipeline, 150),
}


def mutated(target: Target, generator: Generator) -> bytes:
    """A damaged file."""
    seed, mutate = pick(generator, target.seeds()), pick(generator, target.mutations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return mutate(seed, generator)
        except zipfile.BadZipFile:  # a seed that is no archive
            return in_bytes(seed, generator)
