"""Options that several commands share."""

from enum import StrEnum
from typing import Annotated

import typer


class StatusChoice(StrEnum):
    """The choices of `search --status`; `any` is for searches only."""

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
