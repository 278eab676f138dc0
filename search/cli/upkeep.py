"""Commands that look after the stored data: what there is, whether it is sound, copies of it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.app import app
from search.cli.extras import require_extra
from search.cli.options import Json

if TYPE_CHECKING:
    from search.application import Application


REFUSED, RUNNING = 3, 4
"""Exit codes of `reindex`."""


@app.command()
def reindex(
    keep: Annotated[int, typer.Option(min=1, max=100, help="Indexes that are kept on the disk.")] = 2,
    json: Json = False,
) -> None:
    """The nightly job: encode what lacks a vector of the present encoder, build an index, check and publish it.

    Searches go on all the while. Exit code 3: the new index was not good enough, the earlier one serves on. 4: another
    reindex is running.
    """
    from search.application import Application
    from search.console import fail, print_json, print_reindex, progress
    from search.errors import ReindexRunningError
    from search.reindex import reindex as run

    application = Application()
    try:
        report = run(application.database, application.encoder, progress, keep)
    except ReindexRunningError as error:
        fail(str(error))
        raise typer.Exit(RUNNING) from None
    if json:
        manifest = report.indexed.manifest
        told = asdict(report)
        told["indexed"]["manifest"] = manifest.model_dump(mode="json") if manifest else None
        print_json(told)
    else:
        print_reindex(report)
    if report.indexed.refused:
        fail(f"the new index was not published: {report.indexed.refused}; run `lostfound doctor`")
        raise typer.Exit(REFUSED)


@app.command()
def optimise(json: Json = False) -> None:
    """Make the models fast on this machine's CPU, once, and again after a change of model, threshold or processor.

    Takes some minutes; a search then starts without torch and computes several times as many pairs a second. What
    does not decide as the model itself does is not used.
    """
    require_extra("fast")
    from search.application import Application
    from search.console import print_fields, print_json, progress
    from search.optimise import optimise as run

    for made in run(Application(), progress):
        if json:
            notes = made.notes and made.notes.model_dump(exclude={"early_exit": {"estimates"}})
            print_json({**asdict(made), "notes": notes})
            continue
        told: dict[str, Any] = {"serves": "torch"}
        if made.notes:
            told = {"serves": f"{made.notes.precision}, {'new' if made.is_new else 'as it was'}"}
            told |= {name: f"{figure:.4g}" for name, figure in made.notes.figures.items()}
            if early := made.notes.early_exit:
                kept = f"{early.kept:.1%} of searches lose nothing"
                left = ", then ".join(f"{1 - share:.0%}" for share in early.going_on)
                told["leave early"] = f"{left} of the reranked pairs in all, {kept}"
        told |= {f"{variant} does not serve": why for variant, why in made.refused.items()}
        print_fields(made.model, told)


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


@app.command()
def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what needs no choice of yours.")] = False,
    json: Json = False,
) -> None:
    """Check all stored data and the models; exit code 1 where something is wrong."""
    from search.application import Application
    from search.console import out, print_fields, print_json, progress
    from search.doctor import examine
    from search.doctor import repair as mend

    application = Application()
    total = _count_items(application)
    with progress("Examining", total) as advance:
        findings = examine(application, advance)
    if findings and repair:
        hindrances = mend(application, findings, progress)
        with progress("Examining", total) as advance:
            findings = hindrances + examine(application, advance)
    if json:
        print_json({"items": total, "findings": [asdict(finding) for finding in findings]})
    elif findings:
        print_fields("Something is wrong", {finding.what: finding.mended_by for finding in findings})
    else:
        out.print(f"All is well with {total} items.")
    if findings:
        raise typer.Exit(1)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The copy; an earlier backup there is replaced.")], json: Json = False
) -> None:
    """Copy the database into one file, at any time, while others write."""
    from search.application import Application
    from search.console import out, print_json, progress
    from storage.backup import back_up

    with progress("Copying"):
        back_up(Application().database, file)
    if json:
        print_json({"backup": str(file)})
    else:
        out.print(f"{file} holds the database as it is now.", soft_wrap=True, markup=False)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file made by `lostfound backup`.")], json: Json = False
) -> None:
    """Put a backup in the place of the database; what it held before is kept beside it."""
    from search.application import Application
    from search.console import out, print_json, progress
    from storage import backup as backups

    database = Application().database
    with progress("Restoring"):
        kept = backups.restore(database, file)
    if json:
        print_json({"database": str(database.file), "kept": None if kept is None else str(kept)})
        return
    out.print(f"{database.file} holds what {file} holds.", soft_wrap=True, markup=False)
    if kept:
        out.print(f"Its earlier content is kept in {kept}.", soft_wrap=True, markup=False)


def _count_items(application: "Application") -> int:
    from storage import items

    with application.database.read() as session:
        return sum(items.count_by_status(session).values())
