"""The command line, `lostfound`. Heavy modules are imported by the commands that need them: `--help` is instant."""

import sys
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.errors import LostfoundError

if TYPE_CHECKING:
    from storage.models import Item

app = typer.Typer(
    help="Two-stage semantic search for lost-property offices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

QUERIES_PER_BATCH = 32
PAIRS_PER_BATCH = 4096


class StatusChoice(StrEnum):
    """The choices of `search --status`."""

    HELD = "held"
    RETURNED = "returned"
    DISPOSED = "disposed"
    ANY = "any"


Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Reference = Annotated[str, typer.Argument(help="The office's reference of the item.")]
Category = Annotated[str | None, typer.Option(help="Kind of thing, e.g. backpack.")]
Colour = Annotated[str | None, typer.Option(help="Main colour.")]
Brand = Annotated[str | None, typer.Option(help="Brand, if it can be seen.")]
Office = Annotated[str | None, typer.Option(help="Office that holds the item.")]
Place = Annotated[str | None, typer.Option(help="Where it was found.")]
FoundOn = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="When it was found.")]
Day = typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Found on or after / on or before this day.")


@app.command()
def init(json: Json = False) -> None:
    """Create the database, or upgrade it to this version."""
    from search.application import Application
    from search.console import out, print_json
    from storage.database import REVISION, database_file
    from storage.schema import upgrade

    application = Application()
    upgrade(application.database)
    path = database_file(application.database.url)
    if json:
        print_json({"database": str(path), "revision": REVISION})
    else:
        out.print(f"The database {path} is ready, revision {REVISION}.", soft_wrap=True, markup=False)


@app.command()
def add(
    description: Annotated[str, typer.Argument(help="What was found, in words.")],
    reference: Annotated[str | None, typer.Option(help="The office's own reference; without it one is given.")] = None,
    category: Category = None,
    colour: Colour = None,
    brand: Brand = None,
    office: Office = None,
    place: Place = None,
    found_on: FoundOn = None,
    json: Json = False,
) -> None:
    """Store a found item."""
    from search.application import Application
    from search.console import progress
    from search.item_input import NewItem, parse

    fields = _given(
        description=description, reference=reference, category=category, colour=colour, brand=brand, office=office,
        place=place, found_on=found_on,
    )  # fmt: skip
    new = parse(NewItem, fields)
    with progress("Storing"):
        item = Application().ingest.add(new)
    _print_item(item, json)


@app.command()
def update(
    reference: Reference,
    description: Annotated[str | None, typer.Option(help="What was found, in words.")] = None,
    category: Category = None,
    colour: Colour = None,
    brand: Brand = None,
    office: Office = None,
    place: Place = None,
    found_on: FoundOn = None,
    status: Annotated[StatusChoice | None, typer.Option(help="held takes a returned or disposed item back.")] = None,
    json: Json = False,
) -> None:
    """Change fields of an item; an empty value clears a field."""
    from search.application import Application
    from search.console import progress
    from search.item_input import ItemUpdate, parse

    fields = _given(
        description=description, category=category, colour=colour, brand=brand, office=office, place=place,
        found_on=found_on, status=status,
    )  # fmt: skip
    if not fields:
        raise typer.BadParameter("name at least one field to change, see `lostfound update --help`")
    new = parse(ItemUpdate, fields)
    with progress("Storing"):
        item = Application().ingest.update(reference, new)
    _print_item(item, json)


@app.command("return")
def return_item(reference: Reference, json: Json = False) -> None:
    """Note that an item is back with its owner; searches no longer find it."""
    from search.application import Application
    from storage.models import Status

    _print_item(Application().ingest.withdraw(reference, Status.RETURNED), json)


@app.command()
def dispose(reference: Reference, json: Json = False) -> None:
    """Note that an item was sold, given away or destroyed; searches no longer find it."""
    from search.application import Application
    from storage.models import Status

    _print_item(Application().ingest.withdraw(reference, Status.DISPOSED), json)


@app.command()
def show(reference: Reference, json: Json = False) -> None:
    """Show an item."""
    from search.application import Application
    from storage import items

    with Application().database.read() as session:
        _print_item(items.by_reference(session, reference), json)


@app.command("import")
def import_items(
    file: Annotated[Path, typer.Argument(help="FILE.csv or FILE.jsonl; columns are the fields of an item.")],
    rejects: Annotated[Path | None, typer.Option(help="Where bad rows go; default FILE.rejects.jsonl.")] = None,
    json: Json = False,
) -> None:
    """Store the items of a file; a known reference is an update, so a repeated import changes nothing."""
    from search.application import Application
    from search.console import print_fields, print_json, progress, warn

    size = file.stat().st_size if file.is_file() else None
    with progress(f"Importing {file.name}", size) as advance:
        summary = Application().ingest.import_file(file, rejects or file.with_suffix(".rejects.jsonl"), advance)
    if summary.ignored_columns:
        warn(f"ignored columns that are no field of an item: {', '.join(summary.ignored_columns)}")
    if json:
        print_json(asdict(summary))
    else:
        print_fields(f"Import of {file}", asdict(summary))


@app.command()
def search(
    query: Annotated[str | None, typer.Argument(help="The lost item, in the owner's words.")] = None,
    queries: Annotated[Path | None, typer.Option(help='JSON Lines of {"query_id", "text"}; - is stdin.')] = None,
    top: Annotated[int | None, typer.Option(min=1, max=1_000, help="Matches shown; default LOSTFOUND_TOP.")] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Candidates reranked; default LOSTFOUND_DEPTH.")
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Also what is below the threshold.")] = False,
    min_score: Annotated[float | None, typer.Option(min=0, max=1, help="Threshold in place of the fitted one.")] = None,
    office: Annotated[str | None, typer.Option(help="Only items of this office.")] = None,
    category: Annotated[str | None, typer.Option(help="Only items of this category.")] = None,
    status: Annotated[StatusChoice, typer.Option(help="Only items of this status.")] = StatusChoice.HELD,
    found_from: Annotated[datetime | None, Day] = None,
    found_to: Annotated[datetime | None, Day] = None,
    json: Json = False,
) -> None:
    """Find the item that somebody describes."""
    if (query is None) == (queries is None):
        raise typer.BadParameter("give either a description or --queries FILE")
    from search.application import Application
    from search.console import answer_as_json, print_answer, print_json, progress
    from search.pipeline import Request
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
        filters=Filters(
            status=None if status is StatusChoice.ANY else Status(status),
            office=office,
            category=category,
            found_from=found_from.date() if found_from else None,
            found_to=found_to.date() if found_to else None,
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
    with progress("Searching", len(records)) as advance:
        for batch in chunks(records, QUERIES_PER_BATCH):
            answers = application.pipeline.search_many([record.text for record in batch], request)
            advance(len(batch))
            for record, answer in zip(batch, answers, strict=True):
                if json:
                    print_json({"query_id": record.query_id, **answer_as_json(answer)})
                else:
                    print_answer(answer)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help='JSON Lines of {"lost", "found"}; - is stdin.')],
) -> None:
    """Score pairs of a lost report and a found description; each line comes out with "score"."""
    from search.application import Application
    from search.console import print_json, progress
    from search.record_file import PairRecord, read_records
    from storage.chunks import chunks

    records = read_records(PairRecord, file)
    reranker = Application().reranker
    with progress("Scoring", len(records)) as advance:
        for batch in chunks(records, PAIRS_PER_BATCH):
            scores = reranker.score_pairs([(record.lost, record.found) for record in batch], advance)
            for record, value in zip(batch, scores.tolist(), strict=True):
                print_json(record.model_dump() | {"score": value})


@app.command()
def reindex(json: Json = False) -> None:
    """Encode what has no vector of the present encoder, e.g. after LOSTFOUND_ENCODER was changed."""
    from search.application import Application
    from search.console import print_fields, print_json, progress
    from search.reindex import reindex as run
    from storage import items

    application = Application()
    with application.database.read() as session:
        total = sum(items.count_by_status(session).values())
    with progress("Encoding", total) as advance:
        summary = run(application.database, application.encoder, advance)
    if json:
        print_json(asdict(summary))
    else:
        print_fields("Reindex", asdict(summary))


@app.command()
def status(json: Json = False) -> None:
    """Show what is stored, which models are used, and the threshold."""
    from search.application import Application
    from search.console import print_fields, print_json
    from search.status import collect_status

    report = collect_status(Application())
    if json:
        print_json(report)
        return
    for title, fields in report.items():
        print_fields(title, fields)


def main() -> None:
    """Run the command line: 0 done, 1 an error in one line on stderr, 2 wrong usage."""
    try:
        app()
    except LostfoundError as error:
        from search.console import fail

        fail(str(error))
        sys.exit(1)
    except Exception as error:  # a defect of ours: the user gets a line, the log the traceback
        from search.console import fail
        from search.defects import log_defect

        fail(f"unexpected {type(error).__name__}: {error}; {log_defect(error)}")
        sys.exit(1)


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _print_item(item: "Item", json: bool) -> None:
    from search.console import print_fields, print_json
    from search.item_input import item_fields

    fields = item_fields(item)
    if json:
        print_json(fields)
    else:
        print_fields(item.reference, fields)
