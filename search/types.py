"""Types that the modules pass to one another."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
"""Item ids, shape (n,)."""

Vectors = npt.NDArray[np.float32]
"""Rows of unit length, shape (n, dim)."""

Scores = npt.NDArray[np.float32]
"""Probabilities in [0, 1], shape (n,)."""

Advance = Callable[[int], None]
"""Called with how much was done since the last call; moves a progress bar."""
