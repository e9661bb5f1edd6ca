"""Ways to damage a file: its bytes, its words, the members of an archive (with right checksums), the values of HDF5."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

Generator = np.random.Generator
Mutate = Callable[[bytes, Generator], bytes]

NUMBERS = (0, 1, -1, 2, 3, 255, 2**31 - 1, 2**31, 2**32, 2**62, 2**63, 2**64, 10**30, -(2**31), -(2**63))
REALS = (0.0, -0.0, 0.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "a", "\0", "\ud800", "é", "/", "..", "x" * 5000, '"""', "\n", "zero", "euler", "in", "out", "1e999", "{}")
WORDS = re.compile(rb'"(?:[^"\\\n]|\\.)*"|[A-Za-z_]+|[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|\S')


def pick(generator: Generator, choices: Any) -> Any:
    return choices[int(generator.integers(len(choices)))]


def junk(generator: Generator, depth: int = 0) -> Any:
    """Something that JSON can say."""
    kind = int(generator.integers(8 if depth < 3 else 6))
    if kind < 6:
        scalar = (None, True, pick(generator, NUMBERS), pick(generator, REALS), pick(generator, TEXTS), [])
        return scalar[kind]
    inner = [junk(generator, depth + 1) for _ in range(int(generator.integers(4)))]
    return inner if kind == 6 else {str(pick(generator, TEXTS)): value for value in inner}


def in_bytes(data: bytes, generator: Generator) -> bytes:
    """Bits flipped, stretches overwritten, cut out, put in, doubled."""
    content = bytearray(data)
    for _ in range(int(generator.integers(1, 5))):
        if not content:
            break
        at = int(generator.integers(len(content)))
        length = int(min(len(content) - at, 2 ** generator.integers(0, 9)))
        kind = int(generator.integers(7))
        if kind == 0:
            content[at] ^= 1 << int(generator.integers(8))
        elif kind == 1:
            content[at] = pick(generator, (0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            content[at : at + length] = generator.bytes(length)
        elif kind == 3:
            del content[at : at + length]
        elif kind == 4:
            content[at:at] = generator.bytes(length)
        elif kind == 5:
            content[at:at] = content[at : at + length]
        else:
            width = int(pick(generator, (2, 4, 8)))
            number = int(pick(generator, NUMBERS)) % 2 ** (8 * width)
            content[at : at + width] = number.to_bytes(width, "little")
    return bytes(content[:at]) if content and generator.random() < 0.05 else bytes(content)


def in_words(data: bytes, generator: Generator) -> bytes:
    """Words left out, doubled, moved, or others in their place."""
    words = [match.span() for match in WORDS.finditer(data)]
    if not words:
        return in_bytes(data, generator)
    for _ in range(int(generator.integers(1, 4))):
        start, end = pick(generator, words)
        other = data[slice(*pick(generator, words))]
        extreme = (
            json.dumps(pick(generator, TEXTS)),
            str(pick(generator, NUMBERS)),
            str(pick(generator, REALS)),
            "[" * 50,
            "}",
            "all",
            "sparse",
            "@",
        )
        word = pick(generator, (b"", other, data[start:end] * 2, pick(generator, extreme).encode("utf-8", "replace")))
        data = data[:start] + word + data[end:]
        words = [match.span() for match in WORDS.finditer(data)] or [(0, 0)]
    return data


def in_json(data: bytes, generator: Generator) -> bytes:
    """Another value somewhere."""
    try:
        value = json.loads(data)
    except ValueError:
        return in_bytes(data, generator)
    holder = {"": value}
    place: Any = (holder, "")
    while True:
        inner = place[0][place[1]]
        if not isinstance(inner, (dict, list)) or not inner or generator.random() < 0.2:
            break
        place = (inner, pick(generator, [*inner]) if isinstance(inner, dict) else int(generator.integers(len(inner))))
    if generator.random() < 0.2 and place[1] != "":
        del place[0][place[1]]
    else:
        place[0][place[1]] = junk(generator)
    return json.dumps(holder[""]).encode("utf-8", "replace")


def in_array(data: bytes, generator: Generator) -> bytes:
    """An array in numpy's form: other dtype, shape or values, or a header that says so without them."""
    try:
        value = np.load(io.BytesIO(data))
    except Exception:
        return in_bytes(data, generator)
    if value.dtype.kind not in "biuf":
        return in_bytes(data, generator)
    buffer = io.BytesIO()
    if generator.random() < 0.4:
        shape = tuple(int(pick(generator, NUMBERS)) for _ in range(int(generator.integers(4))))
        descr = pick(generator, ("<f4", "<f8", "<i8", "|b1", "|O", "<U9", "<c16", "|V7", "<M8[s]", [("a", "<f4")]))
        header = {"descr": descr, "fortran_order": bool(generator.integers(2)), "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue() + value.tobytes()
    changes = (
        lambda: value.astype(pick(generator, ("float16", "float32", "float64", "int8", "complex64", "bool"))),
        lambda: value.reshape(-1),
        lambda: value[None],
        lambda: value[..., None],
        lambda: value.reshape(-1)[: value.size // 2],
        lambda: np.zeros((0, *value.shape), value.dtype),
        lambda: np.full_like(value, pick(generator, (*REALS, -1, 1, 10**6)) if value.dtype.kind == "f" else 1),
        lambda: value * 0,
        lambda: np.array("text"),
    )
    with np.errstate(all="ignore"):
        np.save(buffer, pick(generator, changes)())
    return buffer.getvalue()


def in_member(name: str) -> Mutate:
    """What suits a member of an archive."""
    return {"npy": in_array, "json": in_json, "txt": in_words}.get(name.rpartition(".")[2], in_bytes)


def in_archive(data: bytes, generator: Generator) -> bytes:
    """A member changed, left out, called otherwise or compressed; its checksum is right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(int(generator.integers(1, 3))):
        name = pick(generator, [*members])
        kind = generator.random()
        if kind < 0.8:
            mutate = in_bytes if generator.random() < 0.2 else in_member(name)
            members[name] = mutate(members[name], generator)
        elif kind < 0.9 and len(members) > 1:
            del members[name]
        else:
            members[pick(generator, (*members, "0.npy", "x.npy", "../x.npy", "extra"))] = members.pop(name)
    return zipped(members, pick(generator, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def in_hdf5(data: bytes, generator: Generator) -> bytes:
    """Another value, type, shape or link in place of a dataset or group of HDF5, in a file that is whole."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "a") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(int(generator.integers(1, 3))):
            name = pick(generator, names)
            if name not in file:
                continue
            value = file[name][()] if isinstance(file[name], h5py.Dataset) else None
            del file[name]
            if generator.random() < 0.85:
                _put(file, name, value, generator)
    return buffer.getvalue()


def _put(file: Any, name: str, value: Any, generator: Generator) -> None:
    array = np.asarray(0.0 if value is None or isinstance(value, bytes) else value)
    numbers = array if array.dtype.kind in "fiu" else np.zeros(2)
    replacements = (
        lambda: np.asarray(pick(generator, REALS)),
        lambda: np.asarray(pick(generator, NUMBERS[:10]), np.int64),
        lambda: np.asarray([pick(generator, NUMBERS[:10]) for _ in range(3)], np.int64),
        lambda: pick(generator, ("LIF", "Conv2d", "NIRGraph", "Delay", "same", "valid", "", "a" * 300)),
        lambda: numbers.astype(pick(generator, ("f2", "f8", "i1", "u8", "c8"))),
        lambda: numbers.reshape(-1),
        lambda: numbers[None],
        lambda: numbers.reshape(-1)[:1],
        lambda: numbers[..., None] * pick(generator, REALS),
        lambda: np.zeros((0,)),
        lambda: [["x", "y"], ["y", "x"], ["nobody", "x"]],
        lambda: [["x"]],
        lambda: h5py.Empty("f4"),
        lambda: h5py.SoftLink("/node"),
        lambda: h5py.ExternalLink("other.h5", "/"),
        lambda: np.zeros(2, [("a", "f4")]),
        lambda: None,
    )
    with np.errstate(all="ignore"):
        found = pick(generator, replacements)()
    if found is None:
        file.create_group(name)["again"] = 1.0
    else:
        file[name] = found
