"""Whole searches by number of items, beside the plain recipe and txtai; storing; a cold start; retrieval alone."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from search.answers import Request
from search.application import Application
from search.benchmark.inventory import Inventory, make_office, open_office, publish_index, store_items
from search.benchmark.models import OURS
from search.benchmark.peer import peak_megabytes
from search.benchmark.rounds import Figures, Row, rest
from search.benchmark.workers import QUIET, Worker
from search.errors import BenchmarkError
from search.index.base import ROUNDING
from search.index.exact import nearest
from search.ingest import ROWS_PER_COMMIT
from search.retriever import Retriever
from search.threshold import Threshold, load_threshold
from search.training.corpus import Split, load_corpus
from search.types import Vectors
from storage.items import HELD

DEPTH, TOP, IN_HAND = 100, 10, 32

PEERS = ("plain recipe", "txtai")

Ranking = list[tuple[int, float]]
"""Positions in the inventory and scores, the best first."""


def reports(count: int) -> list[str]:
    """Lost reports of the test split, of objects that are in every inventory of the benchmark."""
    objects = load_corpus().objects[Split.TEST]
    every = [text for entry in objects for text in entry.lost]
    return every[:: max(1, len(every) // count)][:count]


def searching(
    application: Application,
    inventory: Inventory,
    folder: Path,
    pythons: dict[str, Path],
    models: dict[str, str],
    count: int,
) -> list[Row]:
    """Seconds of `count` searches, each asked of everybody in turn, and whether the answers are the same.

    Args:
        application: Its models.
        inventory: What is searched.
        folder: For the office and what peers write.
        pythons: The interpreter of each peer; one that is not named does not take part.
        models: The peers' `reranker` and `encoder`.
        count: Searches.
    """
    size = len(inventory.texts)
    section = f"search among {size:,} items"
    office = make_office(application, inventory, folder / f"office-{size}")
    fitted = load_threshold(application.reranker, office.threshold_file, application.encoder)
    cut = fitted.threshold if fitted else 0.5
    request = Request(top=TOP, depth=DEPTH, min_score=None if fitted else cut)
    seconds: dict[str, list[float]] = {name: [] for name in (OURS, *pythons)}
    answers: dict[str, list[Ranking]] = {name: [] for name in seconds}
    failed: dict[str, str] = {}
    queries = reports(count + 1)
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(python, folder / "peers.log")) for name, python in pythons.items()}
        for name, worker in workers.items():
            try:
                worker.load("searcher", name, **models)
                worker.ask("index", texts=str(inventory.texts_file), vectors=str(inventory.vectors_file))
            except BenchmarkError as error:
                failed[name] = str(error)
        for query, vector in zip(queries, application.encoder.encode_queries(queries), strict=True):
            rest()
            start = time.perf_counter()
            (answer,) = office.pipeline.search_many([query], request)
            seconds[OURS].append(time.perf_counter() - start)
            answers[OURS].append([(int(match.reference.removeprefix("B-")), match.score) for match in answer.matches])
            for name, worker in workers.items():
                if name in failed:
                    continue
                rest()
                try:
                    told = worker.ask("search", query=query, depth=DEPTH)
                except BenchmarkError as error:
                    failed[name] = str(error)
                    continue
                seconds[name].append(told["seconds"])
                decided = _decided(told["results"], fitted, vector, inventory.vectors)
                answers[name].append([(place, score) for place, score in decided[:TOP] if score >= cut])
        memory = _memory({name: worker for name, worker in workers.items() if name not in failed})
    rows = []
    for name, taken in seconds.items():
        if name in failed:
            rows.append(Row(section, name, {"not measured": failed[name]}))
            continue
        figures = _quantiles(taken[1:])  # the first one warms up
        if name in memory:
            figures["peak MB"] = memory[name]
        if name != OURS:
            figures["ratio"] = float(figures["p50 ms"]) / float(rows[0].figures["p50 ms"])
            figures |= _agreement(answers[OURS], answers[name])
        rows.append(Row(section, name, figures))
    rows[0].figures["queries/s, 32 in hand"] = _in_hand(office, request)
    rows[0].figures["MB on disk"] = _bytes(folder / f"office-{size}") / 1e6
    return [*rows, _retrieval(office, inventory, queries), _cold(office, queries[0], size)]


def _memory(workers: dict[str, Worker]) -> dict[str, float]:
    """The most megabytes that each has had; not every system tells it."""
    told: dict[str, float] = {}
    for name, worker in workers.items():
        with suppress(BenchmarkError):
            told[name] = worker.ask("memory")["megabytes"]
    return told


def _decided(results: Ranking, fitted: Threshold | None, query: Vectors, vectors: Vectors) -> Ranking:
    """A peer's ranking by the reranker, decided as lostfound does: the similarity counts too."""
    if fitted is None or not results:
        return results
    places, scores = [place for place, _ in results], np.array([score for _, score in results])
    final = fitted.scores(scores, vectors[places] @ query).tolist()
    return sorted(zip(places, final, strict=True), key=lambda scored: -scored[1])


def storing(
    application: Application, inventory: Inventory, folder: Path, pythons: dict[str, Path], models: dict[str, str]
) -> list[Row]:
    """Items a second from text to what can be searched, models and all."""
    texts = inventory.texts
    shutil.rmtree(folder / "storing", ignore_errors=True)
    office = open_office(application, folder / "storing")
    start = time.perf_counter()
    store_items(office, application.encoder, inventory, ROWS_PER_COMMIT)
    imported = time.perf_counter() - start
    start = time.perf_counter()
    publish_index(office, application.encoder)
    indexed = time.perf_counter() - start
    section = f"storing {len(texts):,} items"
    rate = len(texts) / (imported + indexed)
    rows = [Row(section, OURS, {"items/s": rate, "import s": imported, "reindex s": indexed})]
    for name, python in pythons.items():
        with Worker(python, folder / "peers.log") as worker:
            try:
                worker.load("searcher", name, **models)
                taken = worker.ask("index", texts=str(inventory.texts_file), vectors="")["seconds"]
                figures: Figures = {"items/s": len(texts) / taken, "ratio": rate * taken / len(texts)}
            except BenchmarkError as error:
                figures = {"not measured": str(error)}
            rows.append(Row(section, name, figures))
    return rows


def _in_hand(office: Application, request: Request) -> float:
    queries = reports(IN_HAND)
    start = time.perf_counter()
    office.pipeline.search_many(queries, request)
    return len(queries) / (time.perf_counter() - start)


def _retrieval(office: Application, inventory: Inventory, queries: Sequence[str]) -> Row:
    """Of the index alone, models not counted; recall against all vectors."""
    vectors = office.encoder.encode_queries(queries)
    retriever = Retriever(office.database, office.encoder)
    seconds, found = [], []
    for vector in vectors:
        start = time.perf_counter()
        with retriever.retrieve(vector[None], DEPTH, HELD) as (_, retrieval):
            seconds.append(time.perf_counter() - start)
            found.append([candidate.similarity for candidate in retrieval.candidates[0]])
    similarities, _ = nearest(vectors, iter([(np.arange(len(inventory.vectors)), inventory.vectors)]), DEPTH)
    lowest = similarities[:, -1]
    recalls = [
        sum(similarity >= low - ROUNDING for similarity in row) / DEPTH for row, low in zip(found, lowest, strict=True)
    ]
    figures = _quantiles(seconds[1:]) | {"recall@100": float(np.mean(recalls))}
    return Row(f"search among {len(inventory.texts):,} items", "retrieval alone", figures)


def _cold(office: Application, query: str, size: int, rounds: int = 3) -> Row:
    """The command, from nothing to the answer."""
    named = {"LOSTFOUND_DATA_DIR": str(office.settings.data_dir), "LOSTFOUND_DATABASE_URL": ""}
    environment = os.environ | QUIET | named
    command = [sys.executable, "-m", "search.cli", "search", query]
    seconds, peaks = [], []
    for _ in range(rounds):
        rest()
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603  ourselves
        while process.poll() is None:
            with suppress(OSError, ValueError):  # it is just ending
                peaks.append(peak_megabytes(str(process.pid)))
            time.sleep(0.02)
        seconds.append(time.perf_counter() - start)
        if process.returncode:
            raise BenchmarkError(f"`lostfound search` has ended with {process.returncode}")
    figures = _quantiles(seconds)
    if peaks:
        figures["peak MB"] = max(peaks)
    return Row(f"search among {size:,} items", f"{OURS}, cold start", figures)


def _agreement(ours: list[Ranking], theirs: list[Ranking]) -> dict[str, Any]:
    """In which share of the queries the answers are the same, and how much of all answers is in both."""

    def shown(rankings: list[Ranking]) -> list[list[int]]:
        return [[position for position, _ in ranking] for ranking in rankings]

    both = list(zip(shown(ours), shown(theirs), strict=True))
    either = sum(len({*mine, *others}) for mine, others in both)
    return {
        "same first": float(np.mean([mine[:1] == others[:1] for mine, others in both])),
        "same shown": float(np.mean([set(mine) == set(others) for mine, others in both])),
        "... in order": float(np.mean([mine == others for mine, others in both])),
        "in common": sum(len({*mine} & {*others}) for mine, others in both) / either if either else 1.0,
    }


def _quantiles(seconds: Sequence[float]) -> Figures:
    return {"p50 ms": float(np.quantile(seconds, 0.5)) * 1000, "p95 ms": float(np.quantile(seconds, 0.95)) * 1000}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "graphs" not in path.parts)
