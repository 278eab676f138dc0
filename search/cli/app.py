"""The typer application that the command modules register with."""

import typer

app = typer.Typer(
    help="Two-stage semantic search for lost-property offices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
