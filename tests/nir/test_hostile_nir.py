"""NIR files that reach out of themselves, or become much larger than they are, are refused before they are read."""

from __future__ import annotations

import resource
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import nir
import ranvier
from tests.support.examples import few

SECRET = b"0123456789abcdef" * 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good file, and a secret beside it."""
    nodes = {
        "x": nir.Input({"input": np.array([2])}),
        "w": nir.Affine(np.arange(16.0, dtype=np.float32).reshape(8, 2), np.zeros(8, np.float32)),
        "y": nir.Output({"output": np.array([8])}),
    }
    graph = nir.NIRGraph(nodes, [("x", "w"), ("w", "y")], metadata={"from": "a test"})
    nir.write(str(tmp_path / "net.nir"), graph)
    (tmp_path / "secret").write_bytes(SECRET)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["weight"] = np.frombuffer(SECRET, np.float32).reshape(8, 2)
    return tmp_path / "net.nir"


WEIGHT = "node/nodes/w/weight"


def _external_storage(file: Any, folder: Path) -> None:
    group = file["node/nodes/w"]
    del group["weight"]
    group.create_dataset("weight", (8, 2), np.float32, external=[(str(folder / "secret"), 0, 64)])


def _external_link(file: Any, folder: Path) -> None:
    del file[WEIGHT]
    file[WEIGHT] = h5py.ExternalLink(str(folder / "other.h5"), "weight")


def _external_group(file: Any, folder: Path) -> None:
    with h5py.File(folder / "twin.h5", "w") as twin:
        file.copy("node", twin)
    del file["node"]
    file["node"] = h5py.ExternalLink(str(folder / "twin.h5"), "node")


def _virtual(file: Any, folder: Path) -> None:
    layout = h5py.VirtualLayout((8, 2), np.float32)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "weight", (8, 2))
    group = file["node/nodes/w"]
    del group["weight"]
    group.create_virtual_dataset("weight", layout)


def _soft_link(file: Any, folder: Path) -> None:
    file["elsewhere"] = file[WEIGHT][()]
    del file[WEIGHT]
    file[WEIGHT] = h5py.SoftLink("/elsewhere")


def _soft_circle(file: Any, folder: Path) -> None:
    file["node/nodes/w/again"] = h5py.SoftLink("/node")


def _hard_circle(file: Any, folder: Path) -> None:
    file["node/nodes/w/again"] = file["node"]


def _many_names(file: Any, folder: Path) -> None:
    group = file["node/nodes"].create_group("a0")
    group["v"] = 1.0
    for k in range(40):
        above = file["node/nodes"].create_group(f"a{k + 1}")
        above["left"], above["right"] = group, group
        group = above


def _reference(file: Any, folder: Path) -> None:
    del file[WEIGHT]
    file.create_dataset(WEIGHT, data=np.array([file["node"].ref] * 16, h5py.ref_dtype).reshape(8, 2))


def _compound(file: Any, folder: Path) -> None:
    del file[WEIGHT]
    file[WEIGHT] = np.zeros((8, 2), [("a", np.float32), ("b", np.float32)])


def _ragged(file: Any, folder: Path) -> None:
    del file[WEIGHT]
    dataset = file.create_dataset(WEIGHT, (8,), h5py.vlen_dtype(np.float32))
    for k in range(8):
        dataset[k] = np.ones(k)


def _empty(file: Any, folder: Path) -> None:
    del file[WEIGHT]
    file[WEIGHT] = h5py.Empty(np.float32)


def _named_type(file: Any, folder: Path) -> None:
    file["node/nodes/w/kind"] = np.dtype(np.float32)


def _plugin(file: Any, folder: Path) -> None:
    del file[WEIGHT]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((8, 2))
    properties.set_filter(31337, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((8, 2))
    h5py.h5d.create(file.id, WEIGHT.encode(), h5py.h5t.IEEE_F32LE, space, properties)


def _packed_again(file: Any, folder: Path) -> None:
    del file[WEIGHT]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((8, 2))
    properties.set_deflate(9)
    properties.set_deflate(9)
    space = h5py.h5s.create_simple((8, 2))
    h5py.h5d.create(file.id, WEIGHT.encode(), h5py.h5t.IEEE_F32LE, space, properties)


def _deep(file: Any, folder: Path) -> None:
    group = file["node/nodes/w"]
    for _ in range(5000):
        group = group.create_group("g")


@few(
    ("change", "reason"),
    [
        (_external_storage, "weight' are in another file"),
        (_external_link, "weight' is an ExternalLink"),
        (_external_group, "'/node' is an ExternalLink"),
        (_virtual, "weight' is a virtual dataset"),
        (_soft_link, "weight' is an SoftLink"),
        (_soft_circle, "again' is an SoftLink"),
        (_hard_circle, "also appears under another name"),
        (_many_names, "also appears under another name"),
        (_reference, "of a type that NIR does not have"),
        (_compound, "of a type that NIR does not have"),
        (_ragged, "of a type that NIR does not have"),
        (_empty, "holds no value"),
        (_named_type, "is a Datatype; expected groups and datasets"),
        (_plugin, "packed with filter 31337"),
        (_packed_again, "packed twice with the same filter"),
        (_deep, "nested more than"),
    ],
)
def test_what_no_nir_file_needs_is_refused(change: Callable[[Any, Path], None], reason: str, path: Path) -> None:
    assert ranvier.from_nir(path, dt=1e-3).total_params == 24
    with h5py.File(path, "a") as file:
        change(file, path.parent)
    with pytest.raises(ranvier.GraphError, match=f"cannot be read as NIR: .*{reason}"):
        ranvier.from_nir(path, dt=1e-3)


def _never_written(file: Any) -> None:
    file["node/nodes/w"].create_dataset("weight", (100_000, 100_000), np.float32)


def _sparsely_written(file: Any) -> None:
    file["node/nodes/w"].create_dataset("weight", (10**8, 10), np.float32, chunks=(1000, 10), compression="gzip")


def _one_large_chunk(file: Any) -> None:
    dataset = file["node/nodes/w"].create_dataset(
        "weight", (8, 2), np.float32, chunks=(2**28, 2), maxshape=(None, None), compression="gzip"
    )
    assert dataset.size == 16


def _chunk_that_grows(file: Any) -> None:
    """A chunk that says to have 64 bytes, and unpacks to a gigabyte."""
    dataset = file["node/nodes/w"].create_dataset("weight", (8, 2), np.float32, chunks=(8, 2), compression="gzip")
    packer = zlib.compressobj(9)
    content = b"".join(packer.compress(bytes(2**20)) for _ in range(1024)) + packer.flush()
    dataset.id.write_direct_chunk((0, 0), content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_never_written, "bytes of memory, but a file of"),
        (_sparsely_written, "bytes of memory, but a file of"),
        (_one_large_chunk, "bytes of memory, but a file of"),
        (_chunk_that_grows, "is larger than the 64 bytes it is declared to have"),
    ],
)
def test_what_becomes_large_is_refused(change: Callable[[Any], None], reason: str, path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file[WEIGHT]
        change(file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ranvier.GraphError, match=reason):
        ranvier.from_nir(path, dt=1e-3)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert grown < 50_000
    # Kilobytes, of the largest child so far; a child counts the pages of its parent until it runs its own program.
    assert children < max(600_000, before + 50_000)


def test_limits_of_hdf5_can_be_raised(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file[WEIGHT]
        file["node/nodes/w"].create_dataset("weight", (8, 2), np.float32, chunks=(2**22, 2), maxshape=(None, None))
    with ranvier.limits(file_bytes=1e6), pytest.raises(ranvier.GraphError, match=r"ranvier\.limits\(file_bytes="):
        ranvier.from_nir(path, dt=1e-3)
    assert ranvier.from_nir(path, dt=1e-3).total_params == 24


def test_shapes_that_only_an_input_declares(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for name in ("x", "y"):
            del file[f"node/nodes/{name}/shape"]
            file[f"node/nodes/{name}/shape"] = np.array([2**31])
        del file["node/nodes/w"]
        del file["node/edges"]
        file["node/edges"] = [("x", "y")]
    with pytest.raises(ranvier.GraphError, match=r"net\.nir'.*2147483648.*bytes of memory"):
        ranvier.from_nir(path, dt=1e-3)
