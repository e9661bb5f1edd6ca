"""Files that are there whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ..errors import reason_text


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder that takes the place of ``path`` once it is written without an error."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(name)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name; pickled objects are refused.

    Raises:
        ValueError: the file cannot be read; the message says why.
    """
    if not path.is_file():
        raise ValueError("there is no such file")
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except Exception as error:  # a damaged archive raises errors of many kinds
        raise ValueError(reason_text(error)) from error


def write_member(archive: zipfile.ZipFile, name: str, value: np.ndarray) -> None:
    """Writes an array into an open archive."""
    with archive.open(name, "w", force_zip64=True) as member:
        npy.write_array(member, np.asarray(value, order="C"), allow_pickle=False)


def read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an open archive; pickled objects, and sizes that the archive does not hold, are refused.

    Raises:
        KeyError, ValueError: there is no such member, or it is no array.
    """
    size = archive.getinfo(name).file_size
    with archive.open(name) as member:
        version = npy.read_magic(member)
        reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = reader(member)
        if dtype.hasobject or int(np.prod(shape, dtype=np.float64)) * dtype.itemsize > size:
            raise ValueError(f"{name} is no array of {list(shape)} {dtype}")
    with archive.open(name) as member:
        return npy.read_array(member, allow_pickle=False)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name into one .npz file, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_atomically(path, buffer.getvalue())


def write_atomically(path: Path, content: bytes) -> None:
    """Writes through a temporary file in the same folder, so that no half-written file is ever seen."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
