"""Grouping texts into batches that waste little on padding."""

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
