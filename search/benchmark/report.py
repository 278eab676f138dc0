"""The whole benchmark in one run, and its report: JSON, tables, a plot."""

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from search.application import Application
from search.benchmark.inventory import make_inventory
from search.benchmark.models import OURS, encoding, reranking, roofline
from search.benchmark.peer_models import models_for_peers
from search.benchmark.rounds import Row
from search.benchmark.searching import PEERS, searching, storing
from search.benchmark.workers import Worker
from search.errors import BenchmarkError
from search.graph_notes import processor
from search.reindex import ShowProgress
from search.threshold import load_threshold, require_precision
from search.whole_file import write_whole

TXTAI_UP_TO = 100_000
"""Items; its index of more is not waited for."""

STORED = 2_000

LIBRARIES = ("sentence-transformers", "torch", "openvino", "faiss-cpu")

PEER_LIBRARIES = (*LIBRARIES, "transformers", "onnxruntime", "optimum-onnx", "rerankers", "txtai")


def run_benchmark(
    application: Application, folder: Path, own: Path, peers: Path, *, sizes: Sequence[int], rounds: int, queries: int,
    show: ShowProgress,
) -> Iterator[Row]:  # fmt: skip
    """Every measurement, one after the other.

    Args:
        application: Its models, which must run on the CPU by graphs.
        folder: For inventories, offices, the peers' models and what they write.
        own: The Python that runs lostfound.
        peers: The Python that has the peers.
        sizes: Items searched.
        rounds: Of which the median counts.
        queries: Searches of each kind.
        show: Shows progress.

    Raises:
        BenchmarkError: The models have no graphs, or cannot be copied for the peers.
        FingerprintError: The threshold does not hold for the reranker's graph.
    """
    if application.encoder.graph is None or application.reranker.graph is None:
        raise BenchmarkError("the models have no graphs on this machine; run `lostfound optimise`")
    threshold = load_threshold(application.reranker, application.threshold_file, application.encoder)
    if threshold is not None:
        require_precision(threshold, application.reranker)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "peers.log"
    models = models_for_peers(application, folder / "peer-models")
    with show("Reranking", None):
        reranked = reranking(application, own, peers, models, log, rounds)
        yield from reranked
        yield from roofline(application, reranked)
    with show("Encoding", None):
        yield from encoding(application, own, log, rounds)
    pythons = dict(zip(PEERS, (own, peers), strict=True))
    inventory = make_inventory(application.encoder, STORED, folder)
    with show("Storing", None):
        yield from storing(application, inventory, folder, pythons, models)
    for size in sizes:
        with show(f"Encoding {size:,} items", None) as advance:
            inventory = make_inventory(application.encoder, size, folder, advance)
        taking_part = {name: python for name, python in pythons.items() if name != "txtai" or size <= TXTAI_UP_TO}
        with show(f"Searching among {size:,} items", None):
            yield from searching(application, inventory, folder, taking_part, models, queries)


def machine() -> dict[str, Any]:
    """What the figures are of."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def write_report(rows: Sequence[Row], folder: Path, peers: Path) -> None:
    """`benchmark.json` and `benchmark.png` in a folder that exists, in place of earlier ones.

    Args:
        rows: What was measured.
        folder: Where they go.
        peers: The Python that has the peers: theirs may be other versions than ours.
    """
    of_peers = _versions(peers, folder / "peers.log")
    report = {"machine": machine(), "peers": of_peers, "rows": [asdict(row) for row in rows]}
    write_whole(folder / "benchmark.json", json.dumps(report, indent=1) + "\n")
    _plot(rows, folder / "benchmark.png")


def _versions(python: Path, log: Path) -> dict[str, str | None] | str:
    """Of the libraries that a Python has, or why they are not known: not worth the loss of a report."""
    try:
        with Worker(python, log) as worker:
            told: dict[str, str | None] = worker.ask("versions", libraries=PEER_LIBRARIES)["versions"]
    except BenchmarkError as error:
        return str(error)
    return told


def _plot(rows: Sequence[Row], path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    picture = Figure(figsize=(12, 4.5), layout="constrained")
    bars, lines = picture.subplots(1, 2)
    measured = [row for row in rows if row.section == "reranking" and "pairs/s" in row.figures]
    colours = ["tab:orange" if row.name == OURS else "tab:gray" for row in measured]
    bars.barh([row.name for row in measured], [float(row.figures["pairs/s"]) for row in measured], color=colours)
    bars.invert_yaxis()
    bars.set_xlabel("pairs per second")
    bars.set_title("Reranking")
    for name in (OURS, *PEERS):
        points = [
            (int(row.section.split()[2].replace(",", "")), float(row.figures["p50 ms"]))
            for row in rows
            if row.section.startswith("search among") and row.name == name and "p50 ms" in row.figures
        ]
        if points:
            lines.plot(*zip(*points, strict=True), marker="o", label=name)
    lines.set(xscale="log", yscale="log", xlabel="items", ylabel="milliseconds (median)", title="A search, depth 100")
    if lines.lines:
        lines.legend()
    picture.savefig(path, dpi=120)
