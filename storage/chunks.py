"""Long lists of values in pieces that fit one SQL statement."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

PARAMETERS_PER_STATEMENT = 10_000
"""Well under SQLite's limit of 32,766."""


def chunks(values: Iterable[T], size: int = PARAMETERS_PER_STATEMENT) -> Iterator[list[T]]:
    """`values` in lists of `size`, the last one shorter."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk
