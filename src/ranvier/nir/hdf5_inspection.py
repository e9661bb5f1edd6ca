"""What reading the NIR graph of an HDF5 file would do, found out before it is read.

HDF5 can bring in other files (external links, external storage, virtual datasets), load code (filters from plugins),
follow links in circles, and give out gigabytes for a few bytes. NIR uses none of that, so a file that does is refused.
It can also crash or hang on damaged files: this module imports nothing of Ranvier and is run as a script of its own.

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
"""Where NIR keeps its graph."""
DEEPEST = 128
"""Groups in groups."""
REFUSED, TOO_MUCH = 3, 4
"""Exit codes where a file is refused; the reason is on standard output."""
HEADROOM = 2**32
"""Bytes of address space for Python and HDF5 themselves."""
FILTERS = {h5z.FILTER_DEFLATE: "gzip", h5z.FILTER_SHUFFLE: "shuffle", h5z.FILTER_FLETCHER32: "fletcher32", 32000: "lzf"}
"""Those whose results are never much larger than what they are declared to be, and that are no plugins."""
LZF_RATIO = 100
CHECKSUM = 4
"""Bytes of a fletcher32 at the end of a chunk."""
TYPES = {h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM}


class Refused(ValueError):
    """A file does what no NIR file needs; the message says where and what."""


class TooMuch(Refused):
    """The values of a file take more memory than they may."""


def inspect(path: str, most: float, size: int) -> None:
    """Passes for a file whose graph can be read.

    Args:
        path: of the file.
        most: bytes that its values may take in memory.
        size: of the file in bytes.

    Raises:
        Refused: it reaches out of itself, holds what NIR has not, or its values take too much memory.
        Exception: of many kinds, where it is damaged.
    """
    spent = 0
    with h5py.File(path, "r") as file:
        for name, dataset in _datasets(file):
            spent += _checked(name, dataset)
            if spent <= most and dataset.id.get_type().get_class() == h5t.STRING:
                spent += _bytes_of_texts(name, dataset, most - spent, size)
            if spent > most:
                raise TooMuch(f"{name!r} brings what is in it to {spent:,} bytes of memory")
            dataset[()]


def _datasets(file: Any) -> Iterator[tuple[str, Any]]:
    """All datasets of the graph by their full names, none of them reached through anything but one hard link."""
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
                raise Refused(f"{name[:60]!r}...: groups are nested deeper than {DEEPEST} times")
            else:
                stack.append((child, list(child), name, depth + 1))


def _child(group: Any, key: Any, name: str, seen: set[int]) -> Any:
    """A group or dataset."""
    try:
        key.encode("utf-8")
    except (AttributeError, UnicodeError) as error:
        raise Refused(f"the name {name[:60]!r} is no text") from error
    link = group.get(key, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise Refused(f"{name!r} is an {type(link).__name__}: links to other places or files are not followed")
    address = h5o.get_info(group.id, key.encode("utf-8")).addr
    if address in seen:
        raise Refused(f"{name!r} is there under another name too; every object is expected once")
    seen.add(address)
    child = group[key]
    if not isinstance(child, (h5py.Group, h5py.Dataset)):
        raise Refused(f"{name!r} is a {type(child).__name__}; groups and datasets are expected")
    return child


def _checked(name: str, dataset: Any) -> int:
    """The bytes of a dataset's values, once it is known that they are in the file and of a kind that NIR has."""
    properties = dataset.id.get_create_plist()
    if properties.get_external_count():
        raise Refused(f"the values of {name!r} are in another file, which is not read")
    if properties.get_layout() not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
        raise Refused(f"{name!r} is a virtual dataset, whose values are elsewhere")
    kind = dataset.id.get_type()
    if kind.get_class() not in TYPES:
        raise Refused(f"{name!r} holds values of a type that NIR has not (class {kind.get_class()})")
    space = dataset.id.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        raise Refused(f"{name!r} holds no value")
    amount = space.get_simple_extent_npoints() * kind.get_size()
    if properties.get_layout() == h5d.CHUNKED:
        chunk = prod(properties.get_chunk()) * kind.get_size()
        return amount + max(chunk, _largest_chunk(name, dataset, properties, chunk))
    return amount


def _largest_chunk(name: str, dataset: Any, properties: Any, declared: int) -> int:
    """The bytes that HDF5 takes to unpack a chunk, which may become more than what is declared."""
    filters = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
    if unknown := [f for f in filters if f not in FILTERS]:
        raise Refused(f"{name!r} is packed with filter {unknown[0]}; {', '.join(FILTERS.values())} are read")
    if len(set(filters)) < len(filters):
        raise Refused(f"{name!r} is packed with one filter twice")
    largest = 0
    for k in range(dataset.id.get_num_chunks()):
        info = dataset.id.get_chunk_info(k)
        if h5z.FILTER_DEFLATE not in filters:
            largest = max(largest, info.size * (LZF_RATIO if filters else 1))
            continue
        if filters[-1] not in (h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32):
            raise Refused(f"{name!r} is packed again after gzip")
        skipped, content = dataset.id.read_direct_chunk(info.chunk_offset)
        if not skipped:
            end = len(content) - (CHECKSUM if filters[-1] == h5z.FILTER_FLETCHER32 else 0)
            unpacked = zlib.decompressobj().decompress(content[:end], declared + CHECKSUM + 1)
            if len(unpacked) > declared + CHECKSUM:
                raise Refused(f"a chunk of {name!r} is larger than the {declared:,} bytes it is declared to have")
    return largest


def _bytes_of_texts(name: str, dataset: Any, most: float, size: int) -> int:
    """Of texts of any length. All may be one that is stored once, so no more are read than could be that long."""
    if dataset.ndim == 0 or not dataset.size:
        return len(dataset[()]) if dataset.size else 0
    row = prod(dataset.shape[1:])
    at_once = int(most // (row * size))
    if not at_once:
        raise TooMuch(f"{name!r} has {row:,} texts in a row")
    total = 0
    for start in range(0, len(dataset), at_once):
        total += sum(len(text) for text in dataset[start : start + at_once].ravel())
        if total > most:
            break
    return total


def _limit_memory(most: float) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limit = int(most) + HEADROOM
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard in (resource.RLIM_INFINITY, -1) or hard > limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main(path: str, most: float) -> int:
    """Inspects a file, and says on standard output why it is refused."""
    _limit_memory(most)
    try:
        inspect(path, most, os.stat(path).st_size)
    except Exception as error:
        sys.stdout.buffer.write(reason(error).encode("utf-8", "backslashreplace"))
        return TOO_MUCH if isinstance(error, TooMuch) else REFUSED
    return 0


def reason(error: Exception) -> str:
    """Why a file is refused, on one line."""
    text = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
