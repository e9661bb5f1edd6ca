"""Neurons and operations as source: their equations run on expressions, and what comes out is the text of a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import ExportError
from ..graph.arrays import row_numbers
from ..graph.traced import Mapped
from ..graph.windows import Window
from .expressions import Expression, called, expression, filled, followed, leaf

Store = Callable[[str, np.ndarray], str]
"""Puts an array under a label into the file of arrays, and says how the program reads it."""
SPIKES = {">": "spike", ">=": "spike_at"}
"""Names of the functions that make spikes, by what fires."""


class SourceOps:
    """Arithmetic that writes JAX.

    Attributes:
        element: the population or projection that is written, for messages.
        store: for arrays that say where elements stand.
    """

    def __init__(self, element: str, store: Store) -> None:
        self.element, self.store = element, store

    def exp(self, x: Expression) -> Expression:
        return called("jnp.exp", x)

    def where(self, condition: Expression, x: Any, y: Any) -> Expression:
        return called("jnp.where", condition, x, y)

    def spike(self, v: Expression, threshold: Any, fires: str) -> Expression:
        threshold = expression(threshold)
        if threshold.number is not None:
            width = expression(abs(threshold.number) or 1)
        else:
            width = called("jnp.where", threshold == 0, 1, called("jnp.abs", threshold))
        return called(SPIKES[fires], v - threshold, width)

    def push(self, queue: Expression, newest: Expression) -> Expression:
        return filled(("jnp.concatenate([", ", ", "])"), followed(newest, "[None]"), queue)

    def drop_last(self, queue: Expression) -> Expression:
        return followed(queue, "[:-1]")

    def look_back(self, queue: Expression, steps: Any) -> Expression:
        entry = called("jnp.broadcast_to", steps, followed(queue, ".shape[1:]"))
        return followed(called("jnp.take_along_axis", queue, followed(entry, ".astype(int)[None]"), 0), "[0]")

    def product(self, weight: Expression, x: Expression) -> Expression:
        return weight @ x

    def sparse_product(self, values: Expression, rows: Any, x: Expression) -> Expression:
        column = self.store("column", rows.indices)
        terms = values * followed(x, f"[{column}]")
        row_text = self.store("row", row_numbers(rows))
        return filled(("jax.ops.segment_sum(", f", {row_text}, {rows.shape[0]}, indices_are_sorted=True)"), terms)

    def convolve(self, x: Expression, weight: Expression, window: Window, groups: int) -> Expression:
        letters = "HW"[: len(window.size)]
        layout = (f"NC{letters}", f"OI{letters}", f"NC{letters}")
        options = (
            f", {window.stride!r}, {window.padding!r}, rhs_dilation={window.dilation!r}, "
            f"dimension_numbers={layout!r}, feature_group_count={groups})[0]"
        )
        return filled(("lax.conv_general_dilated(", ", ", options), followed(x, "[None]"), weight)

    def sum_windows(self, x: Expression, window: Window) -> Expression:
        sizes, strides, padding = (1, *window.size), (1, *window.stride), ((0, 0), *window.padding)
        options = f", 0.0, lax.add, {sizes!r}, {strides!r}, {padding!r})"
        return filled(("lax.reduce_window(", options), x)

    def reshape(self, x: Expression, shape: tuple[int, ...]) -> Expression:
        # A number stands for all elements, and has no method.
        return x if x.number is not None else followed(x, f".reshape({shape!r})")

    def pick(self, x: Expression, index: np.ndarray) -> Expression:
        places = self.store("index", np.maximum(index, 0).astype(np.int32))
        taken = followed(x, f".reshape(-1)[{places}]")
        if np.all(index >= 0):
            return taken
        return taken * leaf(self.store("present", index >= 0))

    def call(self, function: Mapped, arrays: Mapping[str, Any], x: Any) -> Expression:
        raise ExportError(
            f"projection {self.element!r} is a map without a name, which is not written as source; "
            "export_artifact(model, path) writes any model."
        )
