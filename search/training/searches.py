"""Searches of a split of the corpus: what is searched, what is asked, and how the places of the hits are judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from search.threshold import Figure
from search.training import metrics
from search.training.corpus import LostObject, StrayReport
from search.training.metrics import Values
from search.training.threshold_fit import figure

NO_OBJECT = -1

Section = dict[str, Figure]

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Inventory:
    """What is searched: one found description per object, from both writers in turn."""

    texts: list[str]
    objects: Sequence[LostObject]

    @classmethod
    def of(cls, objects: Sequence[LostObject]) -> "Inventory":
        """The inventory of these objects."""
        return cls([entry.found[number % len(entry.found)] for number, entry in enumerate(objects)], objects)


@dataclass(frozen=True)
class Queries:
    """Lost reports to be searched."""

    texts: list[str]
    own: Indices
    """Shape (q,): where the report's object is in the inventory, or `NO_OBJECT`."""
    groups: list[str]

    @classmethod
    def of_objects(cls, inventory: Inventory) -> "Queries":
        """All reports of the inventory's objects."""
        reports = [(lost, number) for number, entry in enumerate(inventory.objects) for lost in entry.lost]
        own = np.array([number for _, number in reports], dtype=np.int64)
        return cls([lost for lost, _ in reports], own, [inventory.objects[number].group for number in own])

    @classmethod
    def of_strays(cls, strays: Sequence[StrayReport]) -> "Queries":
        """Reports without an object."""
        groups = [stray.group or stray.report for stray in strays]
        return cls([stray.report for stray in strays], np.full(len(strays), NO_OBJECT), groups)


def ranks(hits: npt.NDArray[np.bool_]) -> Values:
    """The place of each query's hit, 1 is the first, inf where there is none; shape (q,)."""
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)


def ranking_figures(places: Values, groups: Sequence[str], ks: Sequence[int]) -> Section:
    """Recall at each k, and MRR."""
    recalls = {f"recall@{k}": figure(partial(metrics.recall_at, k=k), groups, places) for k in ks}
    return recalls | {"MRR": figure(metrics.mean_reciprocal_rank, groups, places)}
