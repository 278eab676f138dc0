"""Commands that write and show items."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.app import app
from search.cli.options import Brand, Category, Colour, FoundOn, Json, Office, Place, Reference

if TYPE_CHECKING:
    from storage.models import Item


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
    status: Annotated[str | None, typer.Option(help="held takes a returned or disposed item back.")] = None,
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
    """Store the items of a file; a known reference is an update, its status too; repeating an import is harmless."""
    from search.application import Application
    from search.console import print_fields, print_json, progress, warn
    from search.item_input import ImportedItem
    from search.row_file import RowFile

    with progress(f"Importing {file.name}", RowFile(file, ImportedItem).size) as advance:
        target = rejects or file.with_name(f"{file.stem}.rejects.jsonl")
        summary = Application().ingest.import_file(file, target, advance)
    if summary.ignored_columns:
        warn(f"ignored columns that are no field of an item: {', '.join(summary.ignored_columns)}")
    if json:
        print_json(asdict(summary))
    else:
        print_fields(f"Import of {file}", asdict(summary))


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
