"""What a person sees: tables, warnings, progress. Answers go to stdout, all else to stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from search.answers import Answer, Match
from search.benchmark.rounds import Row
from search.reindex import ReindexReport

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One line of JSON on stdout; dates in ISO form."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    sys.stdout.write(json.dumps(value, ensure_ascii=not is_utf8, default=str) + "\n")


def warn(message: str) -> None:
    """One line on stderr."""
    err.print(Text(f"warning: {_one_line(message)}", style="yellow"), soft_wrap=True)


def warn_once(warnings: Sequence[str], warned: set[str]) -> None:
    """The warnings that are not in `warned`, to which they are added."""
    for warning in warnings:
        if warning not in warned:
            warn(warning)
            warned.add(warning)


def fail(message: str) -> None:
    """One line on stderr."""
    err.print(Text(f"error: {_one_line(message)}", style="red"), soft_wrap=True)


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, or nothing where that is no terminal; yields what advances it."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=err, transient=True, disable=not err.is_terminal, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.advance(task, done)


def print_fields(title: str, fields: dict[str, Any]) -> None:
    """A table of names and values; the name of a field is shown without its underscores."""
    table = Table(title=Text(title), title_justify="left", show_header=False)
    for _ in range(2):
        table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(
            Text(name.replace("_", " ") if name.isidentifier() else name), Text("–" if value is None else str(value))
        )
    out.print(table)


def print_rows(rows: Sequence[Row]) -> None:
    """A table for each section of a benchmark."""
    for section, members in groupby(rows, key=lambda row: row.section):
        listed = list(members)
        names = list(dict.fromkeys(name for row in listed for name in row.figures))
        told = [[row.name, *(_figure(row.figures.get(name, "")) for name in names)] for row in listed]
        cells = [["", *names], *told]
        if len(names) > len(listed):
            cells = [list(column) for column in zip(*cells, strict=True)]  # so that it is not wider than a terminal
        table = Table(title=Text(section), title_justify="left")
        for heading in cells[0]:
            table.add_column(Text(heading), overflow="fold")
        for line in cells[1:]:
            table.add_row(*map(Text, line))
        out.print(table)


def print_answer(answer: Answer, warned: set[str] | None = None) -> None:
    """The matches of a query as a table, or that there is none; a warning that is in `warned` is not repeated."""
    warn_once(answer.warnings, set() if warned is None else warned)
    if answer.matches:
        table = Table(title=Text(answer.query), title_justify="left")
        for name in ("#", "match", "score", "reference", "description", "found"):
            table.add_column(name, overflow="fold")
        for match in answer.matches:
            table.add_row(
                str(match.rank),
                _likelihood(match),
                f"{match.score:.2f}",
                Text(match.reference),
                Text(match.description),
                Text(_found(match)),
            )
        out.print(table)
    else:
        out.print(Text(f"No match for: {answer.query}"), soft_wrap=True)
    out.print(Text(_explanation(answer), style="dim"), soft_wrap=True)


def print_reindex(report: ReindexReport) -> None:
    """What a reindex did, as a table."""
    indexed, manifest = report.indexed, report.indexed.manifest
    index = indexed.generation or "none"
    fields: dict[str, Any] = {"items": report.encoded.items, "encoded": report.encoded.encoded}
    if indexed.without_vector:
        fields["without a vector"] = indexed.without_vector
    fields["index"] = f"{index}, {'new' if indexed.is_new else 'as it was'}"
    if manifest:
        fields |= {"kind": manifest.kind, "vectors": manifest.count, "recall": f"{manifest.recall:.4f}"}
        fields["megabytes"] = f"{manifest.faiss_bytes / 1e6:.1f}"
    fields["removed"] = f"{report.removed.changes} changes, {report.removed.vectors} vectors"
    fields["seconds"] = ", ".join(f"{step} {seconds:.1f}" for step, seconds in report.seconds.items())
    print_fields("Reindex", fields)


def answer_as_json(answer: Answer) -> dict[str, Any]:
    """An answer for `print_json`."""
    return asdict(answer)


def _one_line(message: str) -> str:
    """The message without what would break the line or the terminal."""
    return "".join(character if character.isprintable() else " " for character in " ".join(message.split()))


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.4g}"


def _likelihood(match: Match) -> str:
    if match.probability is None:
        return "–"
    return f"{match.likelihood} {min(match.probability, 0.99):.0%}"  # rounded up to certainty it would say too much


def _found(match: Match) -> str:
    where = ", ".join(part for part in (match.place, match.office) if part)
    status = "" if match.status == "held" else f" [{match.status}]"
    return " ".join(part for part in (str(match.found_on or ""), where) if part) + status


def _explanation(answer: Answer) -> str:
    if not answer.candidates:
        return "There is no item to compare."
    passing = answer.candidates - answer.below_threshold
    more = (
        f" The best {len(answer.matches)} are shown, --top {passing} shows all."
        if passing > len(answer.matches)
        else ""
    )
    if answer.threshold is None:
        return f"{answer.candidates} candidates compared, no threshold.{more}"
    below = f"{answer.below_threshold} of {answer.candidates} candidates are below the threshold {answer.threshold:.2f}"
    return f"{below}; --all shows them.{more}" if answer.below_threshold else f"{below}.{more}"
