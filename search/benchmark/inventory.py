"""The office that searches are measured in: texts, their vectors, and a database with an index of them."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.application import Application
from search.encoder import BiEncoder
from search.errors import BenchmarkError
from search.ingest import Ingest
from search.item_input import ImportedItem, clean
from search.reindex import reindex
from search.text import text_hash
from search.training.corpus import Split, load_corpus
from search.training.inventory import GROUPS, inventory_texts
from search.types import Advance, Vectors
from storage.chunks import chunks
from storage.schema import upgrade

SEED = 7

ROWS_AT_ONCE = 4096

MOST_ENCODED = 100_000
"""Texts that a model encodes; the vectors of more are drawn between theirs, for encoding a million takes an hour."""


@dataclass(frozen=True)
class Inventory:
    """Texts and their vectors, both also as files, for the peers."""

    texts: list[str]
    texts_file: Path
    vectors: Vectors
    vectors_file: Path


def make_inventory(encoder: BiEncoder, count: int, folder: Path, advance: Advance | None = None) -> Inventory:
    """The found descriptions of the test objects, and texts put together from the facts of the training split.

    Smaller inventories are the beginnings of larger ones. What was encoded is kept in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    corpus = load_corpus()
    own = [entry.found[number % len(entry.found)] for number, entry in enumerate(corpus.objects[Split.TEST])][:count]
    made = inventory_texts(corpus.training_groups(GROUPS).objects[Split.TRAIN], count - len(own), SEED)
    texts = [str(clean(text)) for text in (*own, *made)]  # as they are stored
    vectors = _encoded(encoder, texts[:MOST_ENCODED], folder, advance)
    if count > MOST_ENCODED:
        vectors = np.concatenate([vectors, _between(vectors, count - MOST_ENCODED)])
    texts_file, vectors_file = folder / f"texts-{count}.json", folder / f"vectors-{count}.npy"
    texts_file.write_text(json.dumps(texts), encoding="utf-8")
    np.save(vectors_file, vectors)
    return Inventory(texts, texts_file, vectors, vectors_file)


def _encoded(encoder: BiEncoder, texts: list[str], folder: Path, advance: Advance | None) -> Vectors:
    """The vectors, by this or an earlier run."""
    made_by = f"{encoder.fingerprint} {encoder.precision} {text_hash(json.dumps(texts))}"
    kept = folder / f"encoded-{text_hash(made_by)[:12]}.npy"
    if not kept.exists():
        partial = kept.with_suffix(".partial.npy")
        np.save(partial, encoder.encode(texts, advance))
        partial.replace(kept)
    vectors: Vectors = np.load(kept)
    return vectors


def make_office(application: Application, inventory: Inventory, folder: Path) -> Application:
    """An office that holds the inventory, indexed; one that is there is used again."""
    texts = text_hash(json.dumps(inventory.texts))
    made_by = text_hash(f"{application.encoder.fingerprint} {inventory.vectors.sum():.3f} {texts}")
    done = folder / "done"
    if done.exists() and done.read_text() == made_by:
        return open_office(application, folder)
    shutil.rmtree(folder, ignore_errors=True)
    office = open_office(application, folder)
    known = KnownVectors(application.encoder, inventory)
    store_items(office, known, inventory, ROWS_AT_ONCE)
    publish_index(office, known)
    done.write_text(made_by)
    return office


def store_items(office: Application, encoder: BiEncoder, inventory: Inventory, rows_at_once: int) -> None:
    """Each text of the inventory as an item, by its place in it."""
    ingest = Ingest(office.database, encoder)
    for numbers in chunks(range(len(inventory.texts)), rows_at_once):
        ingest.upsert([ImportedItem(reference=f"B-{n}", description=inventory.texts[n]) for n in numbers])


def publish_index(office: Application, encoder: BiEncoder) -> None:
    """An index of all items.

    Raises:
        BenchmarkError: It was refused.
    """
    if refused := reindex(office.database, encoder).indexed.refused:
        raise BenchmarkError(f"the index of {office.database.file} was refused: {refused}")


def open_office(application: Application, folder: Path) -> Application:
    """An office in a folder of its own, with the models, graphs and threshold of another."""
    folder.mkdir(parents=True, exist_ok=True)
    office = Application(application.settings.model_copy(update={"data_dir": folder, "database_url": ""}))
    office.graphs.unlink(missing_ok=True)
    office.graphs.symlink_to(application.graphs.absolute())
    office.threshold_file.unlink(missing_ok=True)
    if application.threshold_file.exists():  # for which the graphs were measured
        shutil.copyfile(application.threshold_file, office.threshold_file)
    upgrade(office.database)
    return office


class KnownVectors(BiEncoder):
    """An encoder that has encoded an inventory before."""

    def __init__(self, encoder: BiEncoder, inventory: Inventory) -> None:
        super().__init__(encoder.name, encoder.device)
        self._encoder = encoder
        self._vectors = inventory.vectors
        self._positions = {text: position for position, text in enumerate(inventory.texts)}

    @property
    def dim(self) -> int:
        """As of the encoder."""
        return self._encoder.dim

    def _encode(self, texts: list[str], advance: Advance | None, kind: str) -> Vectors:  # type: ignore[override]
        if any(text not in self._positions for text in texts):
            return self._encoder._encode(texts, advance, kind)
        return self._vectors[[self._positions[text] for text in texts]]


def _between(vectors: Vectors, count: int) -> Vectors:
    """Unit vectors between pairs of these, nearer to the first, as if another clerk had described the same thing."""
    chance = np.random.default_rng(SEED)
    parts = []
    for numbers in np.array_split(np.arange(count), max(1, count // MOST_ENCODED)):
        first, second = chance.integers(len(vectors), size=(2, len(numbers)))
        share = chance.uniform(0.1, 0.4, size=(len(numbers), 1)).astype(np.float32)
        mixed = (1 - share) * vectors[first] + share * vectors[second]
        parts.append(mixed / np.linalg.norm(mixed, axis=1, keepdims=True))
    return np.concatenate(parts)
