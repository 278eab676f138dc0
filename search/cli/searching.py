"""Commands that search and score."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.app import app
from search.cli.options import FoundFrom, FoundTo, Json, OnlyCategory, OnlyOffice, StatusChoice

if TYPE_CHECKING:
    from search.pipeline import SearchPipeline

QUERIES_PER_BATCH = 32
PAIRS_PER_BATCH = 4096


@app.command()
def search(
    query: Annotated[str | None, typer.Argument(help="The lost item, in the owner's words.")] = None,
    queries: Annotated[Path | None, typer.Option(help='JSON Lines of {"query_id", "text"}; - is stdin.')] = None,
    top: Annotated[int | None, typer.Option(min=1, max=10_000, help="Matches shown; default LOSTFOUND_TOP.")] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Candidates compared; default LOSTFOUND_DEPTH.")
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Also what is below the threshold.")] = False,
    min_score: Annotated[float | None, typer.Option(min=0, max=1, help="Threshold in place of the fitted one.")] = None,
    deadline: Annotated[
        int | None,
        typer.Option(min=1, help="Milliseconds after which the most similar candidates must do, for each query."),
    ] = None,
    office: OnlyOffice = None,
    category: OnlyCategory = None,
    status: Annotated[StatusChoice, typer.Option(help="Only items of this status.")] = StatusChoice.HELD,
    found_from: FoundFrom = None,
    found_to: FoundTo = None,
    json: Json = False,
) -> None:
    """Find the item that somebody describes."""
    if (query is None) == (queries is None):
        raise typer.BadParameter("give either a description or --queries FILE")
    if show_all and min_score is not None:
        raise typer.BadParameter("--all hides nothing, --min-score hides what is below; give one of them")
    from search.answers import Request
    from search.application import Application
    from search.console import answer_as_json, print_answer, print_json, progress
    from search.item_input import parse_day
    from search.record_file import QueryRecord, read_records
    from storage.chunks import chunks
    from storage.items import Filters
    from storage.models import Status

    application = Application()
    request = Request(
        top=top or application.settings.top,
        depth=depth or application.settings.depth,
        min_score=min_score,
        show_all=show_all,
        deadline=deadline,
        filters=Filters(
            status=None if status is StatusChoice.ANY else Status(status),
            office=office,
            category=category,
            found_from=parse_day(found_from),
            found_to=parse_day(found_to),
        ),
    )
    if query is not None:
        with progress("Searching"):
            answer = application.pipeline.search(query, request)
        if json:
            print_json(answer_as_json(answer))
        else:
            print_answer(answer)
        return
    records = read_records(QueryRecord, queries or Path())
    _require_readable(application.pipeline, ((f"query {record.query_id!r}", record.text) for record in records))
    warned: set[str] = set()
    # Queries that are answered together would share the time.
    for batch in chunks(records, QUERIES_PER_BATCH if deadline is None else 1):
        with progress("Searching"):
            answers = application.pipeline.search_many([record.text for record in batch], request)
        for record, answer in zip(batch, answers, strict=True):
            if json:
                print_json({"query_id": record.query_id, **answer_as_json(answer)})
            else:
                print_answer(answer, warned)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help='JSON Lines of {"lost", "found"}; - is stdin.')],
) -> None:
    """Score pairs of a lost report and a found description as a search would; each line comes out with "score"."""
    from search.application import Application
    from search.console import print_json, progress, warn_once
    from search.record_file import PairRecord, read_records
    from storage.chunks import chunks

    records = read_records(PairRecord, file)
    pipeline = Application().pipeline
    _require_readable(pipeline, ((f"pair {number}", record.lost) for number, record in enumerate(records, start=1)))
    warned: set[str] = set()
    for batch in chunks(records, PAIRS_PER_BATCH):
        with progress("Scoring", len(batch)) as advance:
            scores, warnings = pipeline.score_pairs([(record.lost, record.found) for record in batch], advance)
        warn_once(warnings, warned)
        for record, value in zip(batch, scores.tolist(), strict=True):
            print_json(record.model_dump() | {"score": value})


def _require_readable(pipeline: "SearchPipeline", reports: Iterable[tuple[str, str]]) -> None:
    """Refuse a file with a report of which the models read nothing, by its name, before the first is answered."""
    from search.errors import QueryError

    for name, text in reports:
        try:
            pipeline.read(text)
        except QueryError as error:
            raise QueryError(f"{name}: {error}") from error
