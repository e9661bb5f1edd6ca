"""Copies of a graph's arrays that write changes back to the graph.

Arrays of a graph are never changed in place: copies of the graph share them, and analyses remember them. So an edit
changes the copy, and then gives the graph a new array. Where numpy or scipy would change an array in another way than
by assigning to elements, it is read only, so that they raise an error and no edit is lost.
"""

# An example: weights = graph.layers[0].weights is a copy w of the graph's array a. weights[0, 1] = 3.0 checks that the
# graph still has a, writes 3.0 into w, and gives the graph a copy b of w. a is unchanged. If the graph had another
# array by then, the assignment would be an error, since it would overwrite that one.

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
    """A copy of the array that ``read()`` returns, dense or sparse rows; ``write(array)`` replaces that array."""
    return LiveRows.of(read, write) if sparse.issparse(read()) else LiveArray.of(read, write)


def plain(value: Any) -> Any:
    """A live array as an ordinary one; anything else as it is."""
    if isinstance(value, LiveRows):
        return sparse.csr_array(tuple(getattr(value, name).copy() for name in ARRAYS_OF_ROWS), shape=value.shape)
    return np.array(value) if isinstance(value, LiveArray) else value


def copied(value: Any) -> Any:
    """A copy for the graph, so that later changes of the array do not change the graph."""
    return plain(value).copy() if sparse.issparse(value) else np.array(plain(value))


class _Link:
    """The origin of a live array: how to read it from the graph, and how to replace it there."""

    def __init__(self, read: Read, write: Write) -> None:
        self.read, self.write, self.origin = read, write, read()

    def check(self) -> None:
        if self.read() is not self.origin:
            raise GraphError("this array of the graph has been replaced; read it again, as in graph.layers[0].weights.")

    def replace(self, value: Any) -> None:
        self.write(value)
        self.origin = self.read()


class LiveArray(np.ndarray):
    """A copy of a dense array, or a view of such a copy. Assigning to elements writes the whole array to the graph."""

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

    # In-place operators and ufuncs with out= would write into memory that is read only. They compute into an ordinary
    # array, whose numbers are then assigned.
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
    """Sets the flag of an array and of its base: while the base is writeable, anyone could set the flag of the
    array."""
    for array in (root.base, root) if flag else (root, root.base):
        if array is not None:
            array.flags.writeable = flag


class LiveRows(sparse.csr_array):
    """A copy of sparse rows. Methods that change it write all rows to the graph."""

    _link: _Link | None = None

    @classmethod
    def of(cls, read: Read, write: Write) -> LiveRows:
        rows = cls.__new__(cls)
        rows._take(_Link(read, write))
        return rows

    def _take(self, link: _Link) -> None:
        """Becomes a copy of the rows in the graph."""
        self._link = None
        self.__init__(link.origin, copy=True)
        for name in ARRAYS_OF_ROWS:
            getattr(self, name).flags.writeable = False
        self._link = link

    def __setattr__(self, name: str, value: Any) -> None:
        if self._link is not None and name in ARRAYS_OF_ROWS:
            raise AttributeError(
                f"{name} of a graph's weights is read-only; assign new weights, as in layer.weights = w."
            )
        super().__setattr__(name, value)


def _written_through(name: str) -> Callable[..., Any]:
    """A method of sparse rows that changes a copy, and gives it to the graph."""
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
