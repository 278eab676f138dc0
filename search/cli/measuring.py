"""The command that measures speed beside peers; it needs the extras `lostfound[fast,train]`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from search.cli.app import app
from search.cli.extras import require_extra

SIZES = (1_000, 10_000, 100_000)


@app.command()
def benchmark(
    peers: Annotated[
        Path, typer.Option(help="Python of an environment with the peers; one that lacks is named.")
    ] = Path(sys.executable),
    items: Annotated[list[int] | None, typer.Option(min=1_000, help="Items searched; repeat it.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of which the median counts.")] = 3,
    queries: Annotated[int, typer.Option(min=1, max=400, help="Searches of each kind.")] = 30,
    output: Annotated[Path, typer.Option(help="Folder for report, plot, inventories, offices, models.")] = Path(
        "runs/benchmark"
    ),
) -> None:
    """Measure the models and whole searches beside peers on the same models, in one run."""
    require_extra("fast", "train")
    from search.application import Application
    from search.benchmark.report import run_benchmark, write_report
    from search.console import out, print_rows, progress

    rows = []  # all or none: half a run is not to be compared with a whole one
    for row in run_benchmark(
        Application(), output, Path(sys.executable), peers,
        sizes=items or SIZES, rounds=rounds, queries=queries, show=progress,
    ):  # fmt: skip
        rows.append(row)
    write_report(rows, output, peers)
    print_rows(rows)
    out.print(f"{output / 'benchmark.json'} and benchmark.png hold this.", soft_wrap=True, markup=False)
