"""Writers, readers and reindexes in processes of their own, on one office at the same time.

    crowd.py DATABASE ENCODER OTHER-ENCODER SECONDS

Four processes write and four read; a ninth reindexes, and changes the encoder half way. Every answer is compared with
brute force over the vectors that are stored at its own moment. Prints as JSON how much each of them did; a process that
fails prints its error and all ends with exit code 1.
"""

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch
from tqdm import tqdm

import search.index.build
from search.encoder import BiEncoder
from search.ingest import Ingest
from search.item_input import ImportedItem
from search.reindex import reindex
from search.retriever import Retriever
from storage.database import Database
from storage.items import HELD, Filters
from storage.models import Status
from storage.vectors import StoredVectors

OFFICES = ("Airport", "Harbour", "Central")
DEPTH = 20


def write(database: Database, encoder: BiEncoder, rng: random.Random, until: float) -> Counter[str]:
    ingest, done = Ingest(database, encoder), Counter[str]()
    while time.monotonic() < until:
        rows = [
            ImportedItem(
                reference=f"R-{rng.randrange(2000)}",
                description=f"a thing with {rng.randrange(10_000)} marks",
                office=rng.choice(OFFICES),
                status=rng.choice([Status.HELD, Status.HELD, Status.RETURNED, Status.DISPOSED]),
            )
            for _ in range(rng.choice([1, 1, 1, 20]))
        ]
        ingest.upsert(rows)
        done["items written"] += len(rows)
        time.sleep(0.02)
    return done


def read(database: Database, encoder: BiEncoder, rng: random.Random, until: float) -> Counter[str]:
    """An approximate index may miss a neighbour where nothing is selected: those are counted."""
    retriever, done = Retriever(database, encoder), Counter[str]()
    while time.monotonic() < until:
        query = encoder.encode_queries(
            [f"lost: {rng.choice(['a thing', 'my thing'])} of {rng.randrange(10_000)} marks"]
        )
        filters = rng.choice([HELD, Filters(office=rng.choice(OFFICES)), Filters(status=None)])
        with retriever.retrieve(query, DEPTH, filters) as (session, retrieval):
            stored = StoredVectors(session, encoder.fingerprint, encoder.dim, filters)
            true = {int(i): float(s) for ids, rows in stored.parts() for i, s in zip(ids, rows @ query[0], strict=True)}
        (candidates,) = retrieval.candidates
        found = [candidate.similarity for candidate in candidates]
        best = sorted(true.values(), reverse=True)[:DEPTH]
        assert len(found) == len(best)
        np.testing.assert_allclose(found, [true[candidate.item_id] for candidate in candidates], atol=1e-5)
        missed = sum(similarity < best[-1] - 1e-5 for similarity in found)
        current = retriever._current
        is_approximate = current is not None and current.index.base is not None and current.index.base.is_approximate
        assert not missed or (is_approximate and filters == HELD), (filters, found, best)
        assert retrieval.warnings == []
        done["queries"] += 1
        done["filtered queries"] += filters != HELD
        done["neighbours"] += len(found)
        done["neighbours missed by an approximate index"] += missed
        if rng.random() < 0.02:
            retriever = Retriever(database, encoder)  # a process that has just been started
    return done


def rebuild(database: Database, encoders: list[BiEncoder], rng: random.Random, until: float) -> Counter[str]:
    done, began = Counter[str](), time.monotonic()
    while time.monotonic() < until:
        search.index.build.EXACT_UP_TO = rng.choice([0, 10**9])
        # From half time on both encoders publish in turn: an index may be refused, and two of the other encoder in a
        # row would say that no process works by the readers' any more.
        is_late = time.monotonic() > (began + until) / 2
        report = reindex(database, encoders[is_late and done["generations published"] % 2], keep=rng.choice([1, 2]))
        done["reindexes"] += 1
        done["generations published"] += report.indexed.is_new
        time.sleep(rng.uniform(0, 1))
    return done


def in_child(work: Callable[[], Counter[str]]) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.write(writing, json.dumps(work()).encode())
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)


def main() -> None:
    file, *names, seconds = sys.argv[1:]
    torch.set_num_threads(1)  # threads of the parent would be missing in its children
    faiss.omp_set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # not the one that processes share, which a killed one would keep
    database = Database.at(Path(file))
    encoders = [BiEncoder(name, "cpu") for name in names]
    for encoder in encoders:
        encoder.encode(["a hat"])
    until = time.monotonic() + float(seconds)
    works: list[Callable[[], Counter[str]]] = [lambda: rebuild(database, encoders, random.Random(0), until)]
    for number in range(4):
        works.append(lambda number=number: write(database, encoders[0], random.Random(number), until))
        works.append(lambda number=number: read(database, encoders[0], random.Random(10 + number), until))
    children = [in_child(work) for work in works]
    done = Counter[str]()
    for child, reading in children:
        told = b"".join(iter(lambda reading=reading: os.read(reading, 1000), b""))
        if os.waitpid(child, 0)[1]:
            done["failed processes"] += 1
        else:
            done += Counter(json.loads(told))
    print(json.dumps(done))
    sys.exit(bool(done["failed processes"]))


if __name__ == "__main__":
    main()
