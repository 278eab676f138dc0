"""The corpus: objects with found descriptions and lost reports, split by group. `corpus/README.md` is its data card."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from search.errors import InputFileError, TrainingError

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
    unlike: tuple[str, ...] = ()
    """Descriptions of other things, most of them short, that contradict all of the reports in one plain point."""


class StrayReport(BaseModel):
    """A report that no object of the corpus answers: of a sixth object of the group, or of another thing altogether."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    report: str
    group: str | None = None
    """The group whose objects it resembles, None where it resembles none."""
    split: Split


class VagueReport(BaseModel):
    """A report that fits several objects of a group."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    report: str
    group: str
    split: Split


class SeveralReport(BaseModel):
    """A report of two or three objects that were lost together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    report: str
    objects: tuple[str, ...]
    split: Split


@dataclass(frozen=True)
class Corpus:
    """All objects and reports, by split."""

    objects: dict[Split, list[LostObject]]
    strays: dict[Split, list[StrayReport]]
    vague: dict[Split, list[VagueReport]]
    several: dict[Split, list[SeveralReport]]

    def of(self, split: Split) -> tuple[list[LostObject], list[StrayReport]]:
        """What pairs are built from: the objects and the stray reports of a split."""
        return self.objects[split], self.strays[split]

    def training_groups(self, characters: str) -> "Corpus":
        """With only those groups to learn from whose names begin with one of these characters; "": with all.

        Stray reports of no group stay.

        Raises:
            TrainingError: There is no such group.
        """
        if not characters:
            return self
        of_groups = tuple(characters)
        train = Split.TRAIN
        objects = [entry for entry in self.objects[train] if entry.group.startswith(of_groups)]
        if not objects:
            wanted = " or ".join(characters)
            raise TrainingError(f"no training group of the corpus begins with {wanted}; try --groups wxyz")
        strays = [stray for stray in self.strays[train] if stray.group is None or stray.group.startswith(of_groups)]
        vague = [report for report in self.vague[train] if report.group.startswith(of_groups)]
        return replace(
            self,
            objects=self.objects | {train: objects},
            strays=self.strays | {train: strays},
            vague=self.vague | {train: vague},
        )


def load_corpus(folder: Path = CORPUS) -> Corpus:
    """Read a corpus folder: `objects.jsonl`, `splits.json`, and the reports without an object of their own.

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
        return Corpus(
            objects,
            _by_split(StrayReport, folder / "strays.jsonl"),
            _by_split(VagueReport, folder / "vague.jsonl"),
            _by_split(SeveralReport, folder / "several.jsonl"),
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputFileError(f"{folder} is no corpus: {error}") from error


Report = TypeVar("Report", StrayReport, VagueReport, SeveralReport)


def by_group(objects: Iterable[LostObject]) -> dict[str, list[LostObject]]:
    """The objects by the name of their group, in their order."""
    groups: dict[str, list[LostObject]] = defaultdict(list)
    for entry in objects:
        groups[entry.group].append(entry)
    return dict(groups)


def _by_split(model: type[Report], path: Path) -> dict[Split, list[Report]]:
    reports: dict[Split, list[Report]] = {split: [] for split in Split}
    for report in _lines(model, path):
        reports[report.split].append(report)
    return reports


Line = TypeVar("Line", bound=BaseModel)


def _lines(model: type[Line], path: Path) -> Iterator[Line]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield model.model_validate_json(line)
            except ValidationError as error:
                raise InputFileError(f"{path}, line {number}: {error.errors()[0]['msg']}") from error
