"""Files and simulations that ask for much memory are refused before they take any, and each limit can be raised."""

from __future__ import annotations

import io
import json
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ranvier
from tests.support.random_graphs import random_graph

MIB = 2**20
MODEST = 96 * MIB
"""More than any refusal needs, and much less than what was asked for."""
CHAIN = 'graph "g" { dt = 0.001 input "x" SHAPE output "y" SHAPE projection "p" "x" -> "y" delay=DELAY Identity() }'


def peak_of(job: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        job()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(job: Callable[[], object], error: type[Exception], match: str) -> None:
    def run() -> None:
        with pytest.raises(error, match=match):
            job()

    assert peak_of(run) < MODEST


def npy_header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_2_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression, compresslevel=9) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def zeros(path: Path, name: str, head: bytes, mib: int) -> Path:
    """An archive whose only member is a head and so many MiB of zeros, written without taking them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open(name, "w", force_zip64=True) as member:
        member.write(head)
        for _ in range(mib):
            member.write(bytes(MIB))
    return path


def test_a_small_npz_that_becomes_large(tmp_path: Path) -> None:
    path = zeros(tmp_path / "x.npz", "x.npy", npy_header((400 * MIB // 4,)), 400)
    assert path.stat().st_size < MIB
    graph = ranvier.from_text(CHAIN.replace("SHAPE", "[1]").replace("DELAY", "0"))
    refused(lambda: ranvier.Calibration.load(path, graph), ranvier.InputError, r"takes 419,430,\d+ bytes .*file_bytes=")


@pytest.mark.parametrize("shape", [(10**12,), (2**62, 2**62), (-5,), (0, 2**62), (2**40,)])
def test_an_array_that_declares_more_than_it_holds(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = archive(tmp_path / "x.npz", {"x.npy": npy_header(shape) + bytes(100)})
    graph = ranvier.from_text(CHAIN.replace("SHAPE", "[1]").replace("DELAY", "0"))
    refused(lambda: ranvier.Calibration.load(path, graph), ranvier.InputError, "cannot be read|values|shape")


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_compressions_that_choose_their_own_memory(compression: int, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.snn", {"graph.txt": b"graph", "arrays.json": b"[]"}, compression)
    with pytest.raises(ranvier.GraphError, match="stored or deflated"):
        ranvier.load(path)


def test_a_name_that_an_archive_has_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.snn", "w") as file:
        file.writestr("graph.txt", "graph")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("graph.txt", "graph")
    with pytest.raises(ranvier.GraphError, match="more than once"):
        ranvier.load(tmp_path / "x.snn")


@pytest.mark.parametrize("member", ["graph.txt", "arrays.json"])
@pytest.mark.parametrize("content", [b'graph "' + b"a" * 20_000_000, b"[" * 20_000_000, b"\\" * 20_000_000])
def test_texts_in_small_files(member: str, content: bytes, tmp_path: Path) -> None:
    good = {"graph.txt": b'graph "g" { dt = 0.1 }', "arrays.json": b"[]"}
    path = archive(tmp_path / "x.snn", {**good, member: content})
    refused(lambda: ranvier.load(path), ranvier.GraphError, "is a text of 20,000,... bytes.*text_bytes=")


@pytest.mark.parametrize(
    "text",
    [
        'graph "g" { dt = 0.001 input "x" [2147483648] }',
        'graph "g" { dt = 0.001 input "x" [4096, 4096, 4096] }',
        'graph "g" { dt = 0.001 output "x" [4611686018427387904, 4611686018427387904] }',
        'graph "g" { dt = 0.001 population "x" [3] IF() { r: float64[100000, 100000] = all 1 } }',
        'graph "g" { dt = 0.001 projection "p" "x" -> "y" Linear() { weight: float64[100000, 100000] = all 1 } }',
        'graph "g" { dt = 0.001 projection "p" "x" -> "y" Linear() { weight: float64[100000, 100000] = [[1]] } }',
        'graph "g" { dt = 0.001 ' + "".join(f'input "{k}" [10000000] ' for k in range(4)) + "}",
    ],
)
def test_declared_shapes(text: str) -> None:
    refused(lambda: ranvier.from_text(text), ranvier.GraphError, r"line 1: a shape .* bytes of memory")


def test_the_parser_needs_little_more_memory_than_a_text() -> None:
    quoted = f'graph "{"ab" * 2_000_000}" {{ dt = 0.1 }}'
    assert peak_of(lambda: ranvier.from_text(quoted)) < 8 * len(quoted)
    numbers = f'graph "g" {{ dt = 0.1 population "p" [50000] IF() {{ r: float64[50000] = [{"1.5," * 49_999}1.5] '
    numbers += "v_threshold: float64[] = 1.0 } }"
    assert peak_of(lambda: ranvier.from_text(numbers)) < 8 * len(numbers)


def test_a_long_delay_is_refused_before_it_takes_memory() -> None:
    graph = ranvier.from_text(CHAIN.replace("SHAPE", "[1000]").replace("DELAY", "1000000"))
    for job in (
        lambda: ranvier.simulate(graph, np.zeros((3, 1000))),
        lambda: ranvier.interpret(graph, np.zeros((3, 1000))),
        lambda: ranvier.lower(graph),
        lambda: ranvier.verify(graph, graph, np.zeros((3, 1000))),
        lambda: ranvier.export_source(graph, "nowhere.py"),
    ):
        refused(job, ranvier.GraphError, r"carries [48],000,000,000 bytes .*state_bytes=[48]000000000")


def test_a_long_delay_of_neurons_is_refused_too() -> None:
    text = (
        CHAIN.replace("SHAPE", "[2000]")
        .replace("DELAY", "0")
        .replace("output", 'population "d" [2000] Delay() { steps: float64[] = 1000000 } output')
    )
    graph = ranvier.from_text(text)
    refused(lambda: ranvier.simulate(graph, np.zeros((3, 2000))), ranvier.GraphError, "carries 8,000,000,000 bytes")


def test_results_of_a_run_are_refused_before_it(tmp_path: Path) -> None:
    text = 'graph "g" { dt = 0.001 input "x" [1] output "y" [20000000] }'
    graph = ranvier.from_text(text)
    with ranvier.limits(result_bytes=1e9):
        refused(lambda: ranvier.simulate(graph, np.zeros((100, 1))), ranvier.InputError, "take 8,000,000,000 bytes")
        small = ranvier.from_text(text.replace("20000000", "2000000"))
        path = ranvier.export_artifact(small, tmp_path / "g.rva")
        artifact = ranvier.load_artifact(path)
        with pytest.raises(ranvier.InputError, match="the results of 200 steps of g take 1,600,000,000 bytes"):
            artifact.run(np.zeros((200, 1)))


def test_limits_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'graph "g" { dt = 0.001 input "x" [40000000] output "y" [1] }'
    with pytest.raises(ranvier.GraphError):
        ranvier.from_text(text)
    with ranvier.limits(file_bytes=1e9) as raised:
        assert raised.file_ratio == ranvier.types.Limits().file_ratio
        assert ranvier.from_text(text).inputs["x"].size == 40_000_000
    with pytest.raises(ranvier.GraphError):
        ranvier.from_text(text)
    monkeypatch.setenv("RANVIER_FILE_BYTES", "1e9")
    assert ranvier.from_text(text).inputs["x"].size == 40_000_000
    monkeypatch.setenv("RANVIER_FILE_BYTES", "much")
    with pytest.raises(ranvier.InputError, match="RANVIER_FILE_BYTES is 'much'"):
        ranvier.from_text(text)


@pytest.mark.parametrize("changes", [{"file_bytes": -1}, {"file_ratio": "8"}, {"memory": 3}, {"text_bytes": None}])
def test_limits_are_amounts(changes: dict[str, float]) -> None:
    with pytest.raises(ranvier.InputError, match="limit"), ranvier.limits(**changes):
        pass


def test_what_compresses_well_is_written_so_that_it_can_be_read(tmp_path: Path) -> None:
    from ranvier.util.files import read_arrays, write_arrays

    with ranvier.limits(file_bytes=10_000, file_ratio=10):
        write_arrays(tmp_path / "zeros.npz", {"x": np.zeros(100_000)})
        assert read_arrays(tmp_path / "zeros.npz")["x"].shape == (100_000,)


def test_archives_within_an_archive_share_its_limit(tmp_path: Path) -> None:
    """An .npz may hold whole graphs (counterexamples); these may not multiply what the file may take."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("graph.txt", 'graph "g" { dt = 0.1 input "x" [30000000] }'.ljust(1_000_000))
        file.writestr("arrays.json", json.dumps([]))
    stored = np.frombuffer(inner.getvalue(), np.uint8)
    told = np.frombuffer(b'{"promise": null, "populations": {}}', np.uint8)
    np.savez_compressed(tmp_path / "c.npz", original=stored, optimized=stored, told=told)
    with ranvier.limits(file_bytes=100 * MIB):
        refused(lambda: ranvier.replay(tmp_path / "c.npz"), ranvier.GraphError, r"shape \[30000000\]")


def test_a_random_graph_is_far_below_all_limits(tmp_path: Path) -> None:
    graph = random_graph(3)
    assert ranvier.load(ranvier.save(graph, tmp_path / "g.snn")).total_neurons == graph.total_neurons


POOL = 'graph "g" { dt = 0.1 input "x" [1, N, N] output "y" [1, C, C] projection "p" "x" -> "y" '
POOL += "SumPool(kernel=[K, K], stride=[1, 1], padding=[P, P]) }"


@pytest.mark.parametrize("size", [30_001, 10**9 + 1, 2**61 + 1])
def test_windows_much_larger_than_their_image(size: int) -> None:
    sizes = {"N": 1, "C": 1, "K": size, "P": size // 2}
    graph = ranvier.from_text("".join(str(sizes.get(word, word)) for word in re.split(r"\b", POOL)))
    for job in (
        lambda: ranvier.interpret(graph, np.ones((2, 1, 1, 1))),
        lambda: ranvier.simulate(graph, np.ones((2, 1, 1, 1))),
    ):
        refused(job, ranvier.GraphError, "windows .* over an image")


def test_the_matrix_of_large_windows() -> None:
    sizes = {"N": 1000, "C": 1000, "K": 2001, "P": 1000}
    graph = ranvier.from_text("".join(str(sizes.get(word, word)) for word in re.split(r"\b", POOL)))
    assert not ranvier.problems(graph)
    refused(lambda: ranvier.interpret(graph, np.ones((1, 1, 1000, 1000))), ranvier.GraphError, "the matrix of windows")


@pytest.mark.parametrize(
    ("data", "indices", "indptr"),
    [
        ([1.0] * 5, [0, 2, 4, 0, 1], [0, 2**25, 0]),
        ([1.0], [7], [0, 1, 1]),
        ([1.0], [-1], [0, 1, 1]),
        ([1.0], [0], [1, 1, 1]),
        ([1.0], [0], [0, 1]),
        ([1.0, 2.0], [0], [0, 1, 2]),
        ([1.0], [0.0], [0, 1, 1]),
        ([[1.0]], [0], [0, 1, 1]),
    ],
)
def test_sparse_rows_that_point_elsewhere(data: list[float], indices: list[int], indptr: list[int]) -> None:
    """Compiled code would read and write there."""
    text = 'graph "g" { dt = 0.1 projection "p" "x" -> "y" Linear() { weight: float64[2, 5] sparse = @"w" } }'
    arrays = {"w/data": np.array(data), "w/indices": np.array(indices), "w/indptr": np.array(indptr)}
    with pytest.raises(ranvier.GraphError, match=r"sparse rows of shape \[2, 5\]"):
        ranvier.from_text(text, arrays)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_one_array_where_arrays_by_name_are_expected(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 1)))
    (tmp_path / "x.npy").rename(tmp_path / name)
    graph = ranvier.from_text(CHAIN.replace("SHAPE", "[1]").replace("DELAY", "0"))
    with pytest.raises(ranvier.InputError, match=r"one array without a name .* np\.savez"):
        ranvier.Calibration.load(tmp_path / name, graph)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_paths_that_no_file_can_have(name: str) -> None:
    graph = random_graph(3)
    for write in (ranvier.save, ranvier.to_nir):
        with pytest.raises(ranvier.GraphError, match="cannot be written"):
            write(graph, f"{name}.snn")
    for write, ending in ((ranvier.export_source, "py"), (ranvier.export_artifact, "rva")):
        with pytest.raises(ranvier.ExportError, match="cannot be written"):
            write(graph, f"{name}.{ending}")


def test_sparse_weights_that_a_nir_file_would_hold_dense() -> None:
    text = 'graph "g" { dt = 0.1 input "x" [46000] output "y" [46000] projection "p" "x" -> "y" Linear() { WEIGHT } }'
    text = text.replace("WEIGHT", 'weight: float64[46000, 46000] sparse = @"w"')
    rows = {"w/data": np.ones(1), "w/indices": np.zeros(1, int), "w/indptr": np.r_[0, np.ones(46000, int)]}
    graph = ranvier.from_text(text, rows)
    with ranvier.limits(result_bytes=1e9):
        refused(lambda: ranvier.to_nir(graph), ranvier.GraphError, "dense as in NIR, takes 16,928,000,000 bytes")
