"""Grouping texts into batches that waste little on padding."""

import math
from collections.abc import Iterator, Sequence


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group texts of like length; the longest come first, so the largest batch shows at once if memory is short.

    Args:
        lengths: Tokens (or characters) of each text.
        budget: What a batch has at most when its texts are padded to the longest; a longer text is alone.

    Yields:
        Positions in `lengths`, each once.

    Example:
        >>> list(token_batches([3, 9, 4, 4], budget=12))
        [[1], [2, 3, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    start = 0
    while start < len(order):
        count = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + count]
        start += count


def even_budget(lengths: Sequence[int], most: int, side_by_side: int) -> int:
    """The budget for `token_batches` that gives batches computed side by side about as much to do each.

    Args:
        lengths: Tokens of each text, at least one text.
        most: What a batch has at most, about: the longest text may come on top.
        side_by_side: Batches that are computed at once.

    Example:
        >>> list(token_batches([5] * 8, even_budget([5] * 8, most=1024, side_by_side=2)))
        [[0, 1, 2, 3], [4, 5, 6, 7]]
    """
    total, longest = max(1, sum(lengths)), max(lengths)
    batches = side_by_side * math.ceil(total / (side_by_side * most))
    return math.ceil(total / batches) + longest - 1  # so that a batch's number of texts is rounded up
