"""A ring buffer mirrored in memory, so that the last N rows are always one contiguous view."""

from __future__ import annotations

import numpy as np

from failsight.core.types import Array


class Window:
    """The last `length` rows of width `width`; constant memory, no allocation after construction."""

    def __init__(self, length: int, width: int) -> None:
        self._rows = np.zeros((2 * length, width))
        self._length, self._at, self.count = length, 0, 0

    def clear(self) -> None:
        """Forget all rows."""
        self._at, self.count = 0, 0

    def push(self, row: Array) -> None:
        """Add a row (W,), dropping the oldest when full."""
        self._rows[self._at] = row
        self._rows[self._at + self._length] = row
        self._at = (self._at + 1) % self._length
        self.count = min(self.count + 1, self._length)

    def view(self) -> Array:
        """(N, W) the `count` rows of `width` entries, oldest first; valid until the next push."""
        end = self._at + self._length
        return self._rows[end - self.count : end]

    def save(self) -> Array:
        """(N, W) a copy of the rows, oldest first."""
        return self.view().copy()

    def load(self, rows: Array) -> None:
        """Replace the content by rows (N, W), oldest first; of more than `length` the last ones stay."""
        self.clear()
        for row in rows:
            self.push(row)
