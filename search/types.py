"""Types that the modules pass to one another."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
"""Item ids, shape (n,)."""

Vectors = npt.NDArray[np.float32]
"""Rows of unit length, shape (n, dim)."""

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

Scores = npt.NDArray[np.float32]
"""Probabilities in [0, 1], shape (n,)."""


@dataclass(frozen=True)
class Position:
    """A place in the change log; the moment tells it from the same number in another history of the database."""

    number: int
    """Of the newest change there; 0 before the first."""
    changed_at: datetime | None
    """When that change was made, aware; None before the first."""


START = Position(0, None)

Advance = Callable[[int], None]
"""Called with how much was done since the last call; moves a progress bar."""
