"""Copies of a graph's arrays that write what is changed in place back to the graph.

A graph never writes its arrays in place: copies of it share them, and analyses remember them. So an edit changes the
copy, and then gives the graph a new array. What numpy or scipy would change by another way than assigning to elements
is read only, so that it ends in their own error and never in an edit that the graph does not see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from ..errors import GraphError
from .arrays import Matrix

Read = Callable[[], Any]
Write = Callable[[Any], None]
ARRAYS_OF_ROWS = ("data", "indices", "indptr")


def live(read: Read, write: Write) -> Matrix:
    """A copy of the array that ``read()`` gives, dense or sparse rows; ``write(array)`` replaces that."""
    return LiveRows.of(read, write) if sparse.issparse(read()) else LiveArray.of(read, write)


def plain(value: Any) -> Any:
    """The same as an ordinary array where it is a live one."""
    if isinstance(value, LiveRows):
        return sparse.csr_array(tuple(getattr(value, name).copy() for name in ARRAYS_OF_ROWS), shape=value.shape)
    return np.array(value) if isinstance(value, LiveArray) else value


def own(value: Any) -> Any:
    """A copy for the graph: whoever changes the array later shall not change the graph."""
    return plain(value).copy() if sparse.issparse(value) else np.array(plain(value))


class _Link:
    """Where a live array comes from."""

    def __init__(self, read: Read, write: Write) -> None:
        self.read, self.write, self.origin = read, write, read()

    def check(self) -> None:
        if self.read() is not self.origin:
            raise GraphError(
                "this array of the graph was replaced since; read it again, as in graph.layers[0].weights."
            )

    def replace(self, value: Any) -> None:
        self.write(value)
        self.origin = self.read()


class LiveArray(np.ndarray):
    """A copy of a dense array, or a view of one: assigning to elements writes the whole to the graph."""

    _link: _Link | None

    @classmethod
    def of(cls, read: Read, write: Write) -> LiveArray:
        link = _Link(read, write)
        array = np.array(link.origin).view(cls)
        array._link = link
        _set_writeable(array, False)
        return array

    def __array_finalize__(self, parent: Any) -> None:
        self._link = None

    def __setitem__(self, key: Any, value: Any) -> None:
        root = self if self._link is not None else self.base
        if not isinstance(root, LiveArray) or root._link is None:
            super().__setitem__(key, value)
            return
        root._link.check()
        _set_writeable(root, True)
        try:
            self.flags.writeable = True
            super().__setitem__(key, value)
        finally:
            self.flags.writeable = False
            _set_writeable(root, False)
        root._link.replace(np.array(root))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if method == "at":
            changed = np.array(inputs[0])
            ufunc.at(changed, *map(plain, inputs[1:]), **options)
            inputs[0][...] = changed
            return None
        operands = [x.view(np.ndarray) if isinstance(x, LiveArray) else x for x in inputs]
        results = None if out is None else tuple(map(plain, out))
        value = getattr(ufunc, method)(*operands, **options, **({} if results is None else {"out": results}))
        for target, result in zip(out or (), results or (), strict=True):
            if isinstance(target, LiveArray):
                target[...] = result
        return value if out is None else out[0] if len(out) == 1 else out


def _set_writeable(root: LiveArray, flag: bool) -> None:
    """Of the array below too, without which numpy lets anyone set the flag of the one above."""
    for array in (root.base, root) if flag else (root, root.base):
        if array is not None:
            array.flags.writeable = flag


class LiveRows(sparse.csr_array):
    """A copy of sparse rows: methods that change them write the whole to the graph."""

    _link: _Link | None = None

    @classmethod
    def of(cls, read: Read, write: Write) -> LiveRows:
        rows = cls.__new__(cls)
        rows._take(_Link(read, write))
        return rows

    def _take(self, link: _Link) -> None:
        """Becomes a copy of what the graph has."""
        self._link = None
        self.__init__(link.origin, copy=True)
        for name in ARRAYS_OF_ROWS:
            getattr(self, name).flags.writeable = False
        self._link = link

    def __setattr__(self, name: str, value: Any) -> None:
        if self._link is not None and name in ARRAYS_OF_ROWS:
            raise AttributeError(
                f"{name} of a graph's weights is read only; assign new weights, as in layer.weights = w."
            )
        super().__setattr__(name, value)


def _written_through(name: str) -> Callable[..., Any]:
    """A method that changes sparse rows in place, on a copy that the graph then gets."""
    method = getattr(sparse.csr_array, name)

    def change(self: LiveRows, *args: Any, **options: Any) -> Any:
        link = self._link
        if link is None:
            return method(self, *args, **options)
        link.check()
        changed = plain(self)
        method(changed, *args, **options)
        link.replace(changed)
        self._take(link)
        return self if name.startswith("__i") else None

    return change


for _name in ("__setitem__", "__imul__", "__itruediv__", "setdiag", "resize", "eliminate_zeros", "prune"):
    setattr(LiveRows, _name, _written_through(_name))
