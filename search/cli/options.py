"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class StatusChoice(StrEnum):
    """The choices of `search --status`; `any` is for searches only."""

    HELD = "held"
    RETURNED = "returned"
    DISPOSED = "disposed"
    ANY = "any"


class SplitChoice(StrEnum):
    """The choices of `evaluate --split`: what models were trained on says nothing about them."""

    VALIDATION = "validation"
    TEST = "test"


PairsFile = Annotated[
    Path | None, typer.Option(help="CSV or JSON Lines of sentence_0, sentence_1, label; default: the shipped corpus.")
]


ModelFolder = Annotated[Path, typer.Argument(help="Folder for the finished model.")]
RunFolder = Annotated[Path, typer.Option(help="Folder of the run; a killed one goes on there.")]
BaseName = Annotated[str, typer.Option(help="Model to start from: built-in, folder or hub id.")]
InBf16 = Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16; slow on a processor without it.")]


class PolicyChoice(StrEnum):
    """The choices of `calibrate --policy`."""

    BEST_F1 = "best-f1"
    BEST_ACCURACY = "best-accuracy"
    PRECISION = "precision"
    RECALL = "recall"


def _checked(value: str | None) -> str | None:
    """A text option as items are stored, so that it can be compared with them."""
    if value is None:
        return None
    from search.item_input import clean

    try:
        cleaned = str(clean(value))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not cleaned:
        raise typer.BadParameter("must not be empty")
    return cleaned


def _day(value: str | None) -> str | None:
    from search.item_input import parse_day

    value = _checked(value)
    try:
        parse_day(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return value


Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Reference = Annotated[str, typer.Argument(callback=_checked, help="The office's reference of the item.")]
Category = Annotated[str | None, typer.Option(help="Kind of thing, e.g. backpack.")]
Colour = Annotated[str | None, typer.Option(help="Main colour.")]
Brand = Annotated[str | None, typer.Option(help="Brand, if it can be seen.")]
Office = Annotated[str | None, typer.Option(help="Office that holds the item.")]
Place = Annotated[str | None, typer.Option(help="Where it was found.")]
FoundOn = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="When it was found.")]
OnlyOffice = Annotated[str | None, typer.Option("--office", callback=_checked, help="Only exactly this office.")]
OnlyCategory = Annotated[str | None, typer.Option("--category", callback=_checked, help="Only exactly this category.")]
FoundFrom = Annotated[
    str | None,
    typer.Option(
        callback=_day, metavar="YYYY-MM-DD", help="Found on or after this day; items without a day are left out."
    ),
]
FoundTo = Annotated[
    str | None, typer.Option(callback=_day, metavar="YYYY-MM-DD", help="Found on or before this day, likewise.")
]
