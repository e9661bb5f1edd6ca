"""Elements of an array by their flat numbers, without a gather if they form a block of rows and columns."""

# An example: of a matrix [3, 4], the flat numbers [[4 5] [8 9]] are in the rows 1 and 2 and the columns 0 and 1, so
# they are x[1:3][:, 0:2]. The numbers [[4 8] [5 9]] are its transpose. For [[4 6] [8 9]] there is no such block, and
# the elements are gathered one by one, which is slower, and whose derivative is a scatter.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Picked = slice | np.ndarray
"""Numbers along an axis: a range, or one by one."""


@dataclass(frozen=True, eq=False)
class Taking:
    """``y = x.ravel()[index]``, computed as ``x[rows][:, columns]`` of a matrix, or the transpose of that, if possible.

    Attributes:
        index: flat numbers, in the shape of the result.
        rows, columns: what is taken along both axes of a matrix; None if it is not a block.
        transposed: whether the block's rows are the result's columns.
        whole: whether all elements are taken in order.
    """

    index: np.ndarray
    rows: Picked | None = None
    columns: Picked | None = None
    transposed: bool = False
    whole: bool = False

    @classmethod
    def of(cls, shape: tuple[int, ...], index: np.ndarray) -> Taking:
        """The best way to take elements of an array of some shape."""
        if index.size == int(np.prod(shape)) and np.array_equal(index.ravel(), np.arange(index.size)):
            return cls(index, whole=True)
        if len(shape) == index.ndim == 2 and index.size:
            row, column = np.divmod(index, shape[1])
            for transposed, (r, c) in ((False, (row, column)), (True, (row.T, column.T))):
                if np.all(r == r[:, :1]) and np.all(c == c[:1]):
                    return cls(index, _picked(r[:, 0]), _picked(c[0]), transposed)
        return cls(index)

    def __call__(self, x: Any) -> Any:
        """The elements of ``x``, in JAX or numpy."""
        if self.whole:
            return x.reshape(self.index.shape)
        if self.rows is None:
            return x.reshape(-1)[self.index]
        block = x[self.rows][:, self.columns]
        return block.T if self.transposed else block


def _picked(numbers: np.ndarray) -> Picked:
    first, last = int(numbers[0]), int(numbers[-1])
    if np.array_equal(numbers, np.arange(first, last + 1)):
        return slice(first, last + 1)
    return numbers
