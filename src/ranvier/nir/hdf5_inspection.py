"""Inspection of an HDF5 file before its NIR graph is read.

HDF5 can read other files (external links, external storage, virtual datasets), load code (filters from plugins), follow
links in circles, and unpack a few bytes to gigabytes. NIR uses none of that, so a file that does is refused. HDF5 can
also crash or hang on damaged files, so this module imports nothing from Ranvier and runs as a script in its own
process.

    python hdf5_inspection.py FILE BYTES
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from math import prod
from typing import Any

import h5py
from h5py import h5d, h5o, h5s, h5t, h5z  # pyright: ignore[reportAttributeAccessIssue]

ROOT = "node"
"""The group in which NIR stores the graph."""
DEEPEST = 128
"""The largest nesting of groups."""
REFUSED, TOO_MUCH = 3, 4
"""Exit codes for refused files; the reason is on standard output."""
HEADROOM = 2**32
"""Bytes of address space for Python and HDF5 themselves."""
FILTERS = {h5z.FILTER_DEFLATE: "gzip", h5z.FILTER_SHUFFLE: "shuffle", h5z.FILTER_FLETCHER32: "fletcher32", 32000: "lzf"}
"""Filters that are not plugins and never unpack to much more than the declared size."""
LZF_RATIO = 100
"""LZF unpacks a byte to fewer bytes than this."""
CHECKSUM = 4
"""Bytes of a fletcher32 at the end of a chunk."""
TYPES = {h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM}


class Refused(ValueError):
    """A file does what no NIR file needs; the message says where and what."""


class TooMuch(Refused):
    """The values of a file take more memory than they may."""


def inspect(path: str, most: float, size: int) -> None:
    """Returns if the graph in a file can be read.

    Args:
        path: of the file.
        most: bytes of memory that its values may take.
        size: bytes of the file.

    Raises:
        Refused: the file refers to others, has features that NIR does not use, or its values take too much memory.
        Exception: of many kinds, if the file is damaged.
    """
    spent = 0
    with h5py.File(path, "r") as file:
        for name, dataset in _datasets(file):
            spent += _checked(name, dataset)
            if spent <= most and dataset.id.get_type().get_class() == h5t.STRING:
                spent += _bytes_of_texts(name, dataset, most - spent, size)
            if spent > most:
                raise TooMuch(f"{name!r} brings the contents to {spent:,} bytes of memory")
            # Reads the values: if a damaged file makes HDF5 crash or hang, it must happen here and not in the caller.
            dataset[()]


def _datasets(file: Any) -> Iterator[tuple[str, Any]]:
    """All datasets of the graph with their full names. Each object must be reached by exactly one link, a hard one."""
    if not file.id.links.exists(ROOT.encode()):
        raise Refused(f"it has no group {ROOT!r}")
    seen: set[int] = set()
    stack = [(file, [ROOT], "", 0)]
    while stack:
        group, keys, prefix, depth = stack.pop()
        for key in keys:
            name = f"{prefix}/{key}"
            child = _child(group, key, name, seen)
            if isinstance(child, h5py.Dataset):
                yield name, child
            elif depth == DEEPEST:
                raise Refused(f"{name[:60]!r}...: groups are nested more than {DEEPEST} levels deep")
            else:
                stack.append((child, list(child), name, depth + 1))


def _child(group: Any, key: Any, name: str, seen: set[int]) -> Any:
    """A group or dataset that has not been seen before."""
    try:
        key.encode("utf-8")
    except (AttributeError, UnicodeError) as error:
        raise Refused(f"the name {name[:60]!r} is not text") from error
    link = group.get(key, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise Refused(f"{name!r} is an {type(link).__name__}: links to other places or files are not followed")
    address = h5o.get_info(group.id, key.encode("utf-8")).addr
    if address in seen:
        raise Refused(f"{name!r} also appears under another name; every object must appear once")
    seen.add(address)
    child = group[key]
    if not isinstance(child, (h5py.Group, h5py.Dataset)):
        raise Refused(f"{name!r} is a {type(child).__name__}; expected groups and datasets")
    return child


def _checked(name: str, dataset: Any) -> int:
    """The bytes that reading a dataset takes.

    Raises:
        Refused: its values are not in the file, or of a type or packing that NIR does not use.
    """
    properties = dataset.id.get_create_plist()
    if properties.get_external_count():
        raise Refused(f"the values of {name!r} are in another file, which is not read")
    if properties.get_layout() not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
        raise Refused(f"{name!r} is a virtual dataset, whose values are elsewhere")
    kind = dataset.id.get_type()
    if kind.get_class() not in TYPES:
        raise Refused(f"{name!r} holds values of a type that NIR does not have (class {kind.get_class()})")
    space = dataset.id.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        raise Refused(f"{name!r} holds no value")
    amount = space.get_simple_extent_npoints() * kind.get_size()
    if properties.get_layout() == h5d.CHUNKED:
        chunk = prod(properties.get_chunk()) * kind.get_size()
        return amount + max(chunk, _largest_chunk(name, dataset, properties, chunk))
    return amount


def _largest_chunk(name: str, dataset: Any, properties: Any, declared: int) -> int:
    """The bytes that HDF5 takes to unpack the largest chunk, which may be more than its declared size."""
    filters = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
    if unknown := [f for f in filters if f not in FILTERS]:
        raise Refused(f"{name!r} is packed with filter {unknown[0]}; only {', '.join(FILTERS.values())} are supported")
    if len(set(filters)) < len(filters):
        raise Refused(f"{name!r} is packed twice with the same filter")
    largest = 0
    for k in range(dataset.id.get_num_chunks()):
        info = dataset.id.get_chunk_info(k)
        if h5z.FILTER_DEFLATE not in filters:
            largest = max(largest, info.size * (LZF_RATIO if filters else 1))
            continue
        if filters[-1] not in (h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32):
            raise Refused(f"{name!r} is packed again after gzip")
        # A chunk of gzip can unpack to a thousand times its size. It is unpacked here up to a little more than
        # declared.
        skipped, content = dataset.id.read_direct_chunk(info.chunk_offset)
        if not skipped:
            end = len(content) - (CHECKSUM if filters[-1] == h5z.FILTER_FLETCHER32 else 0)
            unpacked = zlib.decompressobj().decompress(content[:end], declared + CHECKSUM + 1)
            if len(unpacked) > declared + CHECKSUM:
                raise Refused(f"a chunk of {name!r} is larger than the {declared:,} bytes it is declared to have")
    return largest


def _bytes_of_texts(name: str, dataset: Any, most: float, size: int) -> int:
    """The bytes of texts of variable length. All of them may be one long text that the file stores once, so at most as
    many are read together as would fit in memory if each were as long as the file.
    """
    if dataset.ndim == 0 or not dataset.size:
        return len(dataset[()]) if dataset.size else 0
    row = prod(dataset.shape[1:])
    at_once = int(most // (row * size))
    if not at_once:
        raise TooMuch(f"{name!r} has rows of {row:,} strings")
    total = 0
    for start in range(0, len(dataset), at_once):
        total += sum(len(text) for text in dataset[start : start + at_once].ravel())
        if total > most:
            break
    return total


def _limit_memory(most: float) -> None:
    """Limits the address space of this process, in case HDF5 takes memory for something that the inspection missed."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limit = int(most) + HEADROOM
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard in (resource.RLIM_INFINITY, -1) or hard > limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main(path: str, most: float) -> int:
    """Inspects a file and writes the reason to standard output if it is refused. Returns the exit code."""
    _limit_memory(most)
    try:
        inspect(path, most, os.stat(path).st_size)
    except Exception as error:
        sys.stdout.buffer.write(reason(error).encode("utf-8", "backslashreplace"))
        return TOO_MUCH if isinstance(error, TooMuch) else REFUSED
    return 0


def reason(error: Exception) -> str:
    """Why a file is refused, as one line."""
    text = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
