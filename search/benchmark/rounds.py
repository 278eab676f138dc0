"""Measuring side by side: every competitor once a round, so that a slow minute of the machine is everybody's."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from search.errors import BenchmarkError

Figures = dict[str, float | str]


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    section: str
    name: str
    figures: Figures = field(default_factory=dict)
    """By name; a figure that could not be measured says why."""


def alternate(competitors: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float] | str]:
    """Seconds of each competitor by round, after one round that does not count; of one that fails, why."""
    seconds: dict[str, list[float] | str] = {name: [] for name in competitors}
    for number in range(rounds + 1):
        for name, run in competitors.items():
            so_far = seconds[name]
            if isinstance(so_far, str):
                continue
            rest()
            try:
                taken = run()
            except BenchmarkError as error:
                seconds[name] = str(error)
                continue
            if number:
                so_far.append(taken)
    return seconds


def rest() -> None:
    """Long enough for the threads of whoever ran before to fall asleep; they spin for a while when they are done."""
    time.sleep(0.3)


def rates(seconds: list[float] | str, count: int, what: str) -> Figures:
    """`count` things in the median of the rounds, with the slowest and fastest round."""
    if isinstance(seconds, str):
        return {"not measured": seconds}
    return {
        f"{what}/s": count / median(seconds),
        "slowest": count / max(seconds),
        "fastest": count / min(seconds),
    }


def compare(rows: list[Row], what: str, with_: str) -> list[Row]:
    """The rows, each with its rate as a multiple of that of the row `with_`."""
    base = {row.name: row.figures for row in rows}[with_].get(what)
    return [
        Row(row.section, row.name, row.figures | {"ratio": float(row.figures[what]) / float(base)})
        if base is not None and what in row.figures
        else row
        for row in rows
    ]
