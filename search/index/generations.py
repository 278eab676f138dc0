"""The indexes of one database on disk: published by one rename, kept beside one another, set aside when damaged.

lostfound.db.index/
g000041-9f86d081884c7d65/    a generation; the newest is the one with the highest number
g000040-2c26b46b68ffc68f/
.building-k3x9/              being written, or left by a killed process
set-aside/                   damaged and foreign ones, each with a reason.txt
.lock                        held while a generation is built
"""

import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import faiss
from filelock import FileLock, Timeout

from search.errors import DamagedIndexError, IndexFileError, ReindexRunningError
from search.index.generation import NAME, Draft, Generation, Manifest, number_of, open_generation, read_manifest
from search.whole_file import sync, write_whole

RETRY_AFTER = 60.0
"""Seconds after which an index is tried again that could not be read."""

REASON, SET_ASIDE, BUILDING, REMOVING, LOCK = "reason.txt", "set-aside", ".building-", ".removing-", ".lock"


class Generations:
    """All generations in one folder, that of one database.

    The folder is a cache: what cannot be read of it is passed over, with a note, and never keeps a search from its
    answer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: Generation | None = None
        self._passed_over: dict[str, float] = {}
        self._notes: list[str] = []

    def names(self) -> list[str]:
        """The published ones, the newest first; none where there is no folder."""
        try:
            names = [entry.name for entry in self.folder.iterdir() if NAME.fullmatch(entry.name)]
        except OSError:
            if trouble := self.trouble():
                self.pass_over(str(self.folder), trouble, RETRY_AFTER)
            return []
        return sorted(names, key=number_of, reverse=True)

    def trouble(self) -> str | None:
        """Why the folder cannot be used; None where it can, or is not there yet."""
        if not os.path.lexists(self.folder):
            return None
        if not self.folder.is_dir():
            return "it is no folder, or a link to nowhere"
        return None if os.access(self.folder, os.R_OK | os.X_OK) else "there is no permission to read it"

    def newest(self, encoder: str) -> Generation | None:
        """The newest sound generation of this encoder; what is damaged on the way to it is set aside."""
        names = self.names()
        while names:
            name = names.pop(0)
            if self._passed_over.get(name, 0) > time.monotonic():
                continue
            if self._opened is not None and (name, encoder) == (self._opened.name, self._opened.manifest.encoder):
                return self._opened
            try:
                if self.manifest(name).encoder == encoder:
                    self._opened = self.open(name)
                    return self._opened
            except DamagedIndexError as error:
                self.set_aside(name, str(error))
            except OSError as error:  # no permission, say: no reason to move it
                if name in (present := self.names()):
                    self.pass_over(name, f"it cannot be read: {error.strerror}", RETRY_AFTER)
                else:
                    names = present  # pruned meanwhile, so there is a newer one
        return None

    def manifest(self, name: str) -> Manifest:
        """What a generation holds. Raises as `read_manifest`."""
        return read_manifest(self.folder / name)

    def manifests(self) -> Iterator[Manifest]:
        """What the generations hold that can be read, the newest first."""
        for name in self.names():
            with suppress(DamagedIndexError, OSError):
                yield self.manifest(name)

    def open(self, name: str) -> Generation:
        """Open a generation. Raises as `open_generation`."""
        return open_generation(self.folder / name)

    def set_aside(self, name: str, reason: str) -> None:
        """Move a generation to where no search looks, and keep the reason with it."""
        place = self.folder / SET_ASIDE / name
        with suppress(OSError):  # another process was faster, or this one may only read
            place.parent.mkdir(exist_ok=True)
            (self.folder / name).rename(place)
            write_whole(place / REASON, f"{datetime.now(UTC).isoformat()}\n{reason}\n")
        self.pass_over(name, reason)

    def pass_over(self, name: str, reason: str, seconds: float = math.inf) -> None:
        """Use no such generation in this process for that long; noted once."""
        if name not in self._passed_over:
            self._notes.append(f"index {name} is not used, {reason}; run `lostfound doctor`")
        self._passed_over[name] = time.monotonic() + seconds

    def lost_newest(self) -> str | None:
        """The one that was set aside and has had no newer one since."""
        aside = max(self.set_aside_names(), key=number_of, default="")
        return aside if number_of(aside) > max(map(number_of, self.names()), default=0) else None

    def set_aside_names(self) -> list[str]:
        """Those that were set aside and are kept."""
        with suppress(OSError):
            return sorted(place.name for place in (self.folder / SET_ASIDE).iterdir())
        return []

    def take_notes(self) -> list[str]:
        """What this process has passed over since the last call, and why."""
        notes, self._notes = self._notes, []
        return notes

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by the one process that builds and prunes; a killed one leaves none behind.

        Raises:
            ReindexRunningError: Another one holds it.
            IndexFileError: The folder cannot be written.
        """
        if trouble := self.trouble():
            raise IndexFileError(f"{self.folder} cannot be used, {trouble}; mend that and run `lostfound reindex`")
        with _told(self.folder):
            self.folder.mkdir(exist_ok=True)
            lock = FileLock(self.folder / LOCK, timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise ReindexRunningError(f"another reindex of {self.folder} is running; wait for its end") from None
            except NotImplementedError:
                raise IndexFileError(f"{self.folder} is on a file system without locks; put it on another") from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def draft(self, index: faiss.Index) -> Iterator[Draft]:
        """Write an index beside the others; unless it is published within the block, it is gone after it.

        Raises:
            IndexFileError: It cannot be written.
        """
        with _told(self.folder):
            folder = Path(tempfile.mkdtemp(prefix=BUILDING, dir=self.folder))
        try:
            with _told(self.folder):
                folder.chmod(stat.S_IMODE(self.folder.stat().st_mode))  # mkdtemp makes it for this user alone
                draft = Draft.write(folder, index)
            yield draft
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, draft: Draft, manifest: Manifest) -> str:
        """Put a draft in the place of the newest, by one rename; its name.

        Raises:
            IndexFileError: It cannot be written; the earlier ones are as they were.
        """
        number = 1 + max(map(number_of, [*self.names(), *self.set_aside_names()]), default=0)
        with _told(self.folder):
            name = draft.complete(manifest, number)
            draft.folder.rename(self.folder / name)
            sync(self.folder)
        return name

    def prune(self, serving: Manifest, keep: int) -> list[Manifest] | None:
        """Delete what no search needs, and what killed processes left; what is kept, None where that cannot be read.

        Kept are the newest `keep` generations of the present encoder and, until that has a second one, the newest one
        of the encoder before it, by which some processes may still be working.

        Args:
            serving: The newest generation's.
            keep: At least 1.
        """
        allowed = {serving.encoder: keep}
        if serving.previous_encoder is not None and not serving.is_settled:
            allowed[serving.previous_encoder] = 1
        kept = []
        for name in self.names():
            try:
                manifest = self.manifest(name)
            except DamagedIndexError as error:
                self.set_aside(name, str(error))
                continue
            except FileNotFoundError:
                continue  # a search has set it aside
            except OSError:
                return None
            if allowed.get(manifest.encoder, 0) > 0:
                allowed[manifest.encoder] -= 1
                kept.append(manifest)
                continue
            with suppress(OSError):
                (self.folder / name).rename(self.folder / f"{REMOVING}{name}")  # half of one is never in its place
        for prefix in (BUILDING, REMOVING):
            for left in self.folder.glob(f"{prefix}*"):
                shutil.rmtree(left, ignore_errors=True)
        return kept


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn the errors of the file system inside the block into one of ours."""
    try:
        yield
    except OSError as error:
        raise IndexFileError(
            f"{folder} cannot be written: {error.strerror}; searches go on as before, "
            "free some space or correct the permissions, then run `lostfound reindex`"
        ) from error
