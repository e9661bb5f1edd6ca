"""Files that are written completely or not at all, and archives that are read within the limits of memory."""

# An example: an .npz file of 300 bytes declares an array of 10^9 numbers of 8 bytes. Its member has 128 bytes, fewer
# than the 8 * 10^9 that are declared, so it is refused before memory is allocated.

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ..errors import reason_text
from .limits import MemoryBudget, TooLarge

NUMBERS = "biufc"
"""Kinds of dtypes that are read."""
ARRAY = ".npy"
"""The ending of members that are arrays."""
NPY, ZIP = b"\x93NUMPY", b"PK"
"""The first bytes of files."""


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A temporary file in the same folder, which replaces ``path`` if the block ends without an error."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    except ValueError as error:  # NUL or lone surrogates in the path
        raise OSError(str(error)) from error
    os.close(handle)
    try:
        yield Path(name)
        # mkstemp makes files that only their owner can read; this one gets the permissions of any other new file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Archive:
    """A zip archive that is open for reading, and whose members together fit into memory.

    Attributes:
        names: of the members.
        budget: the memory that the file may take, and how much of it is left.
    """

    def __init__(self, archive: zipfile.ZipFile, budget: MemoryBudget) -> None:
        self._archive, self.budget = archive, budget
        members = archive.infolist()
        self.names = [member.filename for member in members]
        if repeated := [name for name, count in Counter(self.names).items() if count > 1]:
            raise ValueError(f"it has {repeated[0]!r} more than once")
        for member in members:
            # LZMA and BZIP2 take memory that the file determines, and no writer of arrays uses them.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(
                    f"{member.filename!r} uses a compression that is not supported; use stored or deflated"
                )
            budget.spend(member.file_size, repr(member.filename))

    def text(self, name: str) -> bytes:
        """A member that is a text.

        Raises:
            KeyError, ValueError: there is no such member, or it is too long.
        """
        self.budget.check_text(self._archive.getinfo(name).file_size, repr(name))
        return self._archive.read(name)

    def read(self, name: str) -> bytes:
        """The bytes of a member.

        Raises:
            KeyError: there is no such member.
        """
        return self._archive.read(name)

    def array(self, name: str) -> np.ndarray:
        """A member that is an array of numbers.

        Raises:
            KeyError, ValueError: there is no such member, or it is not an array of numbers, or declares more than it
            has.
        """
        size = self._archive.getinfo(name).file_size
        with self._archive.open(name) as member:
            version = npy.read_magic(member)
            reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = reader(member)
        if dtype.kind not in NUMBERS:
            raise ValueError(f"{name!r} is an array of {dtype}; expected numbers")
        # Before numpy allocates what the header declares.
        if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize > size:
            raise ValueError(f"{name!r} says that it is an array {list(shape)} of {dtype}, but has {size:,} bytes")
        with self._archive.open(name) as member:
            return npy.read_array(member, allow_pickle=False)


@contextmanager
def open_archive(source: Path | io.BytesIO, size: int | None = None) -> Generator[Archive]:
    """An archive in a file or in bytes. Limits follow from ``size``, by default the bytes of the archive itself.

    Raises:
        TooLarge: the contents take more memory than a file of this size may.
        ValueError, zipfile.BadZipFile: the archive is damaged.
    """
    archive_size = source.stat().st_size if isinstance(source, Path) else len(source.getbuffer())
    with zipfile.ZipFile(source) as archive:
        yield Archive(archive, MemoryBudget(archive_size if size is None else size))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name. Pickled objects are refused, since loading them could run code.

    Raises:
        ValueError: the file cannot be read; the message says why.
    """
    if not path.is_file():
        raise ValueError("there is no such file" if not path.exists() else "it is not a file")
    try:
        _check_beginning(path)
        with open_archive(path) as archive:
            if others := [name for name in archive.names if not name.endswith(ARRAY)]:
                raise ValueError(f"it holds {others[0]!r}, which is not an array (.npy)")
            return {name.removesuffix(ARRAY): archive.array(name) for name in archive.names}
    except TooLarge:
        raise
    except Exception as error:  # a damaged archive raises errors of many kinds
        raise ValueError(str(error) if type(error) is ValueError else reason_text(error)) from error


def _check_beginning(path: Path) -> None:
    """Raises ValueError for a file that is not an archive; the message says what it is."""
    with path.open("rb") as file:
        start = file.read(len(NPY))
    if start == NPY:
        raise ValueError(
            "it is one array without a name (.npy), and arrays by name (.npz) are expected: write it with "
            "np.savez('data.npz', name=array)"
        )
    if not start.startswith(ZIP):
        raise ValueError("it is not an .npz file as written by np.savez" if start else "it is empty")


def write_member(archive: zipfile.ZipFile, name: str, value: np.ndarray) -> None:
    """Writes an array of numbers into an open archive.

    Raises:
        ValueError: the array is not one of numbers, so it could not be read again.
    """
    if value.dtype.kind not in NUMBERS:
        raise ValueError(f"{name!r} is an array of {value.dtype}, which a file cannot hold; pass numbers")
    with archive.open(name, "w", force_zip64=True) as member:
        npy.write_array(member, np.asarray(value, order="C"), allow_pickle=False)


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz file as bytes, compressed unless it would then be too small to be read within the limits."""
    content = _npz(arrays, zipfile.ZIP_DEFLATED)
    needed = sum(np.asarray(value).nbytes for value in arrays.values())
    return content if 2 * needed < MemoryBudget(len(content)).most else _npz(arrays, zipfile.ZIP_STORED)


def _npz(arrays: Mapping[str, np.ndarray], compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, value in arrays.items():
            write_member(archive, f"{name}{ARRAY}", value)
    return buffer.getvalue()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name into an .npz file, completely or not at all."""
    write_atomically(path, npz_bytes(arrays))


def write_atomically(path: Path, content: bytes) -> None:
    """Writes through a temporary file in the same folder, so that no partly written file is ever visible."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
