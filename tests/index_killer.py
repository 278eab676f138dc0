"""Kills a process that imports, updates, disposes and reindexes, again and again, and looks at what it left.

    index_killer.py FOLDER KILLS [SEED]

Half of the kills come at a random moment, half at a line of the code that writes, publishes and prunes an index, each
line in its turn. After each the office must hold what a model kept outside it says, the search must find exactly that,
and the doctor must find nothing wrong; else it stops with an AssertionError.
"""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import torch
from conftest import make_tiny_encoder, make_tiny_reranker, with_threshold
from killing import kill_at
from tqdm import tqdm

import search.index.build
from search import reindex as reindexing
from search import whole_file
from search.application import Application
from search.doctor import examine
from search.encoder import BiEncoder
from search.index import generation, generations
from search.ingest import Ingest
from search.item_input import ImportedItem
from search.loading import quiet_libraries
from search.reindex import reindex
from search.retriever import Retriever
from search.settings import Settings
from search.text import item_text
from storage import items
from storage.database import Database
from storage.items import HELD
from storage.models import Status
from storage.schema import upgrade

TRACED = {module.__file__ for module in (reindexing, generation, generations, whole_file)}
OPERATIONS_PER_CHILD = 8
MOMENTS = (0.02, 0.4)
"""Seconds within which a child is killed, one or the other: most of its time goes into reindexes."""

Stock = dict[str, tuple[str, Status]]
"""Description and status by reference: what an office should hold."""


@dataclass(frozen=True)
class Operation:
    """A step that is committed as one, or a reindex, which changes no item."""

    rows: tuple[tuple[str, str, Status], ...]
    """References with their new description and status; none: a reindex."""
    keep: int = 1
    is_approximate: bool = False

    def carry_out(self, database: Database, encoder: BiEncoder) -> None:
        if self.rows:
            given = [ImportedItem(reference=ref, description=text, status=status) for ref, text, status in self.rows]
            Ingest(database, encoder).upsert(given)
            return
        search.index.build.EXACT_UP_TO = 0 if self.is_approximate else 10**9
        reindex(database, encoder, keep=self.keep)

    def on(self, stock: Stock) -> Stock:
        return stock | {reference: (text, status) for reference, text, status in self.rows}


def operations(seed: int, stock: Stock) -> Iterator[Operation]:
    """What a clerk, an import and the nightly job do, without end."""
    rng = random.Random(seed)
    while True:
        known = sorted(stock)
        kind = rng.choice(["import", "update", "dispose", "return", "reindex", "reindex"])
        if kind == "reindex":
            operation = Operation((), keep=rng.choice([1, 2]), is_approximate=rng.random() < 0.5)
        elif kind == "import" or not known:
            operation = Operation(
                tuple(
                    (f"R-{rng.randrange(150)}", f"a thing with {rng.randrange(10_000)} marks", Status.HELD)
                    for _ in range(rng.randint(1, 30))
                )
            )
        else:
            reference = rng.choice(known)
            text, status = stock[reference]
            if kind == "update":
                text = f"another thing with {rng.randrange(10_000)} marks"
            else:
                status = Status.DISPOSED if kind == "dispose" else Status.RETURNED
            operation = Operation(((reference, text, status),))
        yield operation
        stock = operation.on(stock)


class Office:
    """A database with its index, and the model of what should be in it."""

    def __init__(self, folder: Path) -> None:
        encoder = make_tiny_encoder(folder / "encoder", seed=1)
        reranker = with_threshold(make_tiny_reranker(folder / "reranker", seed=1))
        settings = Settings(data_dir=folder / "data", encoder=str(encoder), reranker=str(reranker), device="cpu")
        self.application = Application(settings)
        self.database, self.encoder = self.application.database, self.application.encoder
        upgrade(self.database)
        self.stock: Stock = {}
        examine(self.application)  # loads the models, so that no child has to

    def work_in_child(self, seed: int, line: int | None) -> tuple[bool, bool]:
        """Whether a child was killed, and whether within a reindex; the model is brought to what it committed."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            self._work(seed, line, writing)
        os.close(writing)
        if line is None:
            rng = random.Random(seed)
            killer = threading.Timer(rng.uniform(0, rng.choice(MOMENTS)), os.kill, (child, signal.SIGKILL))
            killer.start()
        done = b"".join(iter(lambda: os.read(reading, 1000), b""))
        os.close(reading)
        status = os.waitpid(child, 0)[1]
        if line is None:
            killer.cancel()
        assert status == 0 or os.WIFSIGNALED(status), status
        planned = operations(seed, self.stock)
        for _ in done:
            self.stock = next(planned).on(self.stock)
        unfinished = next(planned)
        if os.WIFSIGNALED(status):
            self.stock = self._what_is_stored(self.stock, unfinished.on(self.stock))
        return os.WIFSIGNALED(status), os.WIFSIGNALED(status) and not unfinished.rows

    def _work(self, seed: int, line: int | None, done: int) -> None:
        try:
            if line is not None:
                kill_at(line, TRACED)
            planned = operations(seed, self.stock)
            for _ in range(OPERATIONS_PER_CHILD):
                next(planned).carry_out(self.database, self.encoder)
                os.write(done, b".")
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)

    def _what_is_stored(self, before: Stock, after: Stock) -> Stock:
        with self.database.read() as session:
            found = items.by_ids(session, items.ids_after(session, 0, 10_000)).values()
            stored = {item.reference: (item.description, item.status) for item in found}
        assert stored in (before, after), "an item is missing, or one is there that nobody stored"
        return stored

    def check(self) -> None:
        """The database holds the model, the search finds it, and the doctor is content."""
        assert self._what_is_stored(self.stock, self.stock) == self.stock
        held = [item_text(text, None, None, None) for text, status in self.stock.values() if status is Status.HELD]
        query = self.encoder.encode_queries(["a thing with 7 marks"])
        true = np.sort(self.encoder.encode(held) @ query[0])[::-1] if held else np.empty(0)
        with Retriever(self.database, self.encoder).retrieve(query, 10_000, HELD) as (session, retrieval):
            (candidates,) = retrieval.candidates
            found = items.by_ids(session, [candidate.item_id for candidate in candidates])
        assert {item.reference for item in found.values()} == {
            r for r, (_, s) in self.stock.items() if s is Status.HELD
        }
        np.testing.assert_allclose([candidate.similarity for candidate in candidates], true, atol=1e-5)
        assert retrieval.warnings == []
        assert examine(self.application) == []


def main() -> None:
    folder, wanted, *seed = sys.argv[1:]
    quiet_libraries()
    torch.set_num_threads(1)  # threads of the parent would be missing in its children
    faiss.omp_set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # not the one that processes share, which a killed one would keep
    office = Office(Path(folder))
    first = rounds = int(*seed or [0])
    kills = in_reindex = line = 0
    began = time.monotonic()
    while kills < int(wanted):
        rounds += 1
        line += rounds % 2
        killed, within = office.work_in_child(rounds, line if rounds % 2 else None)
        if rounds % 2 and not killed:
            line = 0  # the last line was behind the child's work
        kills += killed
        in_reindex += within
        office.check()
    print(
        f"{kills} kills, {in_reindex} of them within a reindex, of {rounds - first} processes in "
        f"{time.monotonic() - began:.0f} s; {len(office.stock)} items are as they should be, nothing was lost."
    )


if __name__ == "__main__":
    main()
