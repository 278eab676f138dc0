"""A user's own pairs: CSV or JSON Lines of (sentence_0, sentence_1, label)."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from search.errors import InputFileError
from search.item_input import clean
from search.rejects import RejectsFile
from search.row_file import Reject, RowFile
from search.training.pairs import Origin, Pair

Text = Annotated[str, Field(min_length=1, max_length=4000), BeforeValidator(clean)]

HELD_OUT = 0.1
"""Share of the objects whose pairs are kept for validation where there is no file of these."""


class PairRow(BaseModel):
    """One row."""

    model_config = ConfigDict(frozen=True)

    sentence_0: Text
    """A lost report."""
    sentence_1: Text
    """A found description."""
    label: float = Field(ge=0, le=1)
    """1 where both are of one object, 0 where not."""


def read_pairs(path: Path, rejects_path: Path) -> tuple[list[Pair], int]:
    """The good pairs of a file in its order, and the number of bad rows, which go to another file with line and reason.

    Raises:
        InputFileError: The file cannot be read or has no good pair, or the rejects cannot be written.
    """
    pairs: list[Pair] = []
    remedy = f"make {rejects_path.parent} writable, or copy {path.name} to where you may write"
    with RejectsFile(rejects_path, path, remedy) as rejects:
        for row in RowFile(path, PairRow):
            if isinstance(row, Reject):
                rejects.write(row)
            else:
                pairs.append(Pair(row.sentence_0, row.sentence_1, row.label, Origin.GIVEN, row.sentence_0))
    if not pairs:
        why = f"{rejects.count} rows were rejected, see {rejects_path}" if rejects.count else "it has no rows"
        raise InputFileError(f"{path} has no pair that can be used; {why}")
    return _grouped(pairs), rejects.count


def _grouped(pairs: list[Pair]) -> list[Pair]:
    """The pairs by object, as far as they tell: reports that match one description are of one, and so on."""
    leads_to: dict[tuple[str, str], tuple[str, str]] = {}

    def end(text: tuple[str, str]) -> tuple[str, str]:
        while (following := leads_to.setdefault(text, text)) != text:
            leads_to[text] = leads_to[following]  # halves the way, so that long chains stay short
            text = following
        return text

    for pair in pairs:
        if pair.is_match:
            leads_to[end(("found", pair.found))] = end(("lost", pair.lost))
    numbers: dict[tuple[str, str], str] = {}  # short: arrays of a column are as wide as the longest
    ends = [end(("lost", pair.lost)) for pair in pairs]
    return [replace(pair, group=numbers.setdefault(e, str(len(numbers)))) for pair, e in zip(pairs, ends, strict=True)]


def hold_out(pairs: list[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
    """The pairs for training and those for validation; all reports of an object are on one side.

    Raises:
        InputFileError: There are fewer than two objects.
    """
    objects = sorted({pair.group for pair in pairs})
    if len(objects) < 2:  # noqa: PLR2004
        raise InputFileError("the pairs are all of one object; give the validation pairs with --validation")
    rng = random.Random(seed)  # noqa: S311  no secret
    held = set(rng.sample(objects, max(1, round(len(objects) * HELD_OUT))))
    return [pair for pair in pairs if pair.group not in held], [pair for pair in pairs if pair.group in held]
