"""The corpus: objects with found descriptions and lost reports, split by group. `corpus/README.md` is its data card."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from search.errors import InputFileError

CORPUS = Path(__file__).parent / "corpus"


class Split(StrEnum):
    """Which use a group is for; no text, object or group is in two."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class LostObject(BaseModel):
    """An object that somebody lost and somebody else found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    object: str
    group: str
    """About five objects of one kind that are easily confused share it."""
    kind: str
    category: str
    facts: str
    """What a finder can see."""
    owner: str
    """What the owner remembers; the lost reports were written from this alone."""
    mistake: bool
    """The owner remembers one detail wrongly."""
    found: tuple[str, ...]
    """Descriptions by finders: a photo caption, a clerk's note."""
    lost: tuple[str, ...]
    """Reports by the owner."""


class StrayReport(BaseModel):
    """A report that no object of the corpus answers: of a sixth object of the group, or of another thing altogether."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    report: str
    group: str | None = None
    """The group whose objects it resembles, None where it resembles none."""
    split: Split


@dataclass(frozen=True)
class Corpus:
    """All objects and stray reports, by split."""

    objects: dict[Split, list[LostObject]]
    strays: dict[Split, list[StrayReport]]

    def groups(self, split: Split) -> dict[str, list[LostObject]]:
        """The objects of a split by group."""
        groups: dict[str, list[LostObject]] = defaultdict(list)
        for entry in self.objects[split]:
            groups[entry.group].append(entry)
        return dict(groups)


def load_corpus(folder: Path = CORPUS) -> Corpus:
    """Read `objects.jsonl`, `strays.jsonl` and `splits.json` of a corpus folder.

    Raises:
        InputFileError: A file is missing, or a line does not have the form.
    """
    try:
        split_of = {
            group: Split(split)
            for split, groups in json.loads((folder / "splits.json").read_bytes()).items()
            for group in groups
        }
        objects: dict[Split, list[LostObject]] = {split: [] for split in Split}
        for entry in _lines(LostObject, folder / "objects.jsonl"):
            objects[split_of[entry.group]].append(entry)
        strays: dict[Split, list[StrayReport]] = {split: [] for split in Split}
        for stray in _lines(StrayReport, folder / "strays.jsonl"):
            strays[stray.split].append(stray)
    except (OSError, ValueError, KeyError) as error:
        raise InputFileError(f"{folder} is no corpus: {error}") from error
    return Corpus(objects, strays)


Line = TypeVar("Line", bound=BaseModel)


def _lines(model: type[Line], path: Path) -> Iterator[Line]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield model.model_validate_json(line)
            except ValidationError as error:
                raise InputFileError(f"{path}, line {number}: {error.errors()[0]['msg']}") from error
