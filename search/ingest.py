"""The only writer: an item, its vector and its entry in the change log are committed together."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from search.encoder import BiEncoder
from search.errors import DatabaseError, DuplicateReferenceError
from search.item_input import ImportedItem, ItemUpdate, NewItem
from search.rejects import RejectsFile
from search.row_file import Reject, RowFile
from search.text import text_hash, text_of
from search.types import Advance, Vectors
from storage import changes, items, vectors
from storage.chunks import chunks
from storage.database import Database
from storage.models import Item, Status

ROWS_PER_COMMIT = 512
"""A second or two of encoding, then a write lock of some ten milliseconds."""


class Outcome(StrEnum):
    """What an imported row did."""

    ADDED = "added"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class ImportSummary:
    """What became of the rows of a file; the four counts add up to its rows."""

    added: int
    updated: int
    unchanged: int
    rejected: int
    rejects_file: Path | None
    ignored_columns: list[str]


class Ingest:
    """Adds, updates and withdraws items.

    Texts are encoded before the write lock is taken, so other writers wait for no model; only a text that another
    process changed in between is encoded under the lock.
    """

    def __init__(self, database: Database, encoder: BiEncoder) -> None:
        self._database = database
        self._encoder = encoder

    def add(self, new: NewItem) -> Item:
        """Store a new item. Without a reference it is given the next free `LF-000042`.

        Raises:
            DuplicateReferenceError: Another item has the reference.
            DatabaseError: The database does not take it; nothing is stored.
        """
        item = Item(**new.given())
        with self._database.read() as session:
            _require_free(session, item.reference)
        prepared = self._encode([item])
        with self._database.write() as session:
            _require_free(session, item.reference)
            item.reference = item.reference or items.next_reference(session)
            self._save(session, [item], prepared)
        return item

    def update(self, reference: str, update: ItemUpdate) -> Item:
        """Give an item new values.

        Raises:
            UnknownReferenceError: No item has the reference.
            DatabaseError: The database does not take it; nothing is stored.
        """
        with self._database.read() as session:
            item = items.by_reference(session, reference)
            has_new_text = _apply(item, update).has_new_text
        prepared = self._encode([item]) if has_new_text else {}
        with self._database.write() as session:
            item = items.by_reference(session, reference)
            applied = _apply(item, update)
            if applied.has_new_text:
                self._save(session, [item], prepared)
            elif applied.changed:
                changes.append(session, [item.id])
        return item

    def withdraw(self, reference: str, status: Status) -> Item:
        """Take an item out of what searches find: returned to its owner, or disposed of. Raises as `update`."""
        return self.update(reference, ItemUpdate(status=status))

    def import_file(self, path: Path, rejects_path: Path, advance: Advance | None = None) -> ImportSummary:
        """Store the good rows of a CSV or JSON Lines file, in batches that commit; a known reference is an update.

        An interrupted import keeps the batches that it has committed; repeating it ends in the same state.

        Args:
            path: The file, with the fields of an item as columns.
            rejects_path: Where the bad rows go.
            advance: Called with the number of bytes read since the last call.

        Raises:
            InputFileError: The file cannot be read, or the rejects cannot be written.
            DatabaseError: The database does not take a batch; the message says how many rows are stored.
        """
        file = RowFile(path, ImportedItem)
        outcomes: Counter[Outcome] = Counter()
        position = 0
        with RejectsFile(rejects_path, path) as rejects:
            for batch in chunks(file, ROWS_PER_COMMIT):
                for row in batch:
                    if isinstance(row, Reject):
                        rejects.write(row)
                try:
                    outcomes += self.upsert([row for row in batch if isinstance(row, ImportedItem)])
                except DatabaseError as error:
                    raise DatabaseError(f"{error}; {outcomes.total()} rows of {path} are stored") from error
                if advance:
                    advance(file.position - position)
                position = file.position
        return ImportSummary(
            added=outcomes[Outcome.ADDED],
            updated=outcomes[Outcome.UPDATED],
            unchanged=outcomes[Outcome.UNCHANGED],
            rejected=rejects.count,
            rejects_file=rejects.path if rejects.count else None,
            ignored_columns=sorted(file.ignored),
        )

    def upsert(self, rows: Sequence[ImportedItem]) -> Counter[Outcome]:
        """Add the rows with a new reference and update the others, in one transaction."""
        with self._database.read() as session:
            unencoded = self._unencoded(session, self._merge(session, rows)[0])
        prepared = self._encode(unencoded)
        with self._database.write() as session:
            changed, outcomes = self._merge(session, rows)
            self._save(session, changed, prepared)
        return outcomes

    def encode_stale(self, item_ids: Sequence[int]) -> int:
        """Give those of the items a vector that have none of this encoder and their present text; how many."""
        with self._database.read() as session:
            unencoded = self._unencoded(session, items.by_ids(session, item_ids).values())
        if not unencoded:
            return 0
        prepared = self._encode(unencoded)
        with self._database.write() as session:
            stale = self._stale(session, items.by_ids(session, item_ids).values())
            self._save(session, stale, prepared)
        return len(stale)

    def _merge(self, session: Session, rows: Sequence[ImportedItem]) -> tuple[list[Item], Counter[Outcome]]:
        """The items that the rows make or change, not yet in the session where new, each once."""
        known = items.by_references(session, {row.reference for row in rows})
        changed: dict[str, Item] = {}
        outcomes: Counter[Outcome] = Counter()
        for row in rows:
            item = known.get(row.reference)
            if item is None:
                item = known[row.reference] = Item(**row.given())
                outcome = Outcome.ADDED
            else:
                outcome = Outcome.UPDATED if _apply(item, row).changed else Outcome.UNCHANGED
            outcomes[outcome] += 1
            if outcome is not Outcome.UNCHANGED:
                changed[row.reference] = item
        return list(changed.values()), outcomes

    def _save(self, session: Session, changed: Sequence[Item], prepared: dict[str, Vectors]) -> None:
        """Write items, the vectors of those whose text is new, and their changes, within the session's transaction."""
        session.add_all(changed)
        session.flush()
        stale = self._stale(session, changed)
        # Another process may have changed an item since its text was encoded.
        prepared = prepared | self._encode([item for item in stale if text_hash(text_of(item)) not in prepared])
        hashes = [(item.id, text_hash(text_of(item))) for item in stale]
        new = [vectors.NewVector(item_id, digest, prepared[digest]) for item_id, digest in hashes]
        vectors.put(session, self._encoder.fingerprint, new)
        changes.append(session, [item.id for item in changed])

    def _stale(self, session: Session, candidates: Iterable[Item]) -> list[Item]:
        """Those of the items that have no vector of this encoder and their present text."""
        by_id = {item.id: item for item in candidates}
        hashes = vectors.text_hashes(session, self._encoder.fingerprint, by_id)
        return [item for item_id, item in by_id.items() if hashes.get(item_id) != text_hash(text_of(item))]

    def _unencoded(self, session: Session, candidates: Iterable[Item]) -> list[Item]:
        """Those of the items, stored or not yet, whose text has no vector of this encoder."""
        listed = list(candidates)
        new = [item for item in listed if item.id is None]
        return [*new, *self._stale(session, [item for item in listed if item.id is not None])]

    def _encode(self, changed: Iterable[Item]) -> dict[str, Vectors]:
        """Vectors by the hash of the text they are of, each text once."""
        texts = {text_hash(text): text for text in map(text_of, changed)}
        return dict(zip(texts, self._encoder.encode(list(texts.values())), strict=True))


def _require_free(session: Session, reference: str | None) -> None:
    if reference is not None and items.by_references(session, [reference]):
        raise DuplicateReferenceError(
            f"an item with the reference {reference!r} exists; change it with `lostfound update`"
        )


@dataclass(frozen=True)
class _Applied:
    changed: bool
    has_new_text: bool


def _apply(item: Item, update: ItemUpdate) -> _Applied:
    """Set the given fields."""
    before = text_of(item)
    different: dict[str, Any] = {name: value for name, value in update.given().items() if getattr(item, name) != value}
    for name, value in different.items():
        setattr(item, name, value)
    return _Applied(changed=bool(different), has_new_text=text_of(item) != before)
