"""One immutable index on disk: its manifest, its checksums, how it is written and opened.

    g000041-9f86d081884c7d65/    the name bears the number and the checksum of the manifest
      manifest.json              what it holds, and the checksum of the other file
      vectors.faiss

So no byte of it can change unnoticed.
"""

import errno
import hashlib
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import faiss
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.errors import DamagedIndexError, IndexFileError
from search.index.base import BaseIndex
from search.types import Position
from search.whole_file import sync

MANIFEST, VECTORS = "manifest.json", "vectors.faiss"
NAME = re.compile(r"g(\d{6,})-([0-9a-f]{16})")


class Manifest(BaseModel):
    """What a generation holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    encoder: str
    """Fingerprint of the encoder that made the vectors."""
    dim: int = Field(ge=1)
    metric: Literal["inner product"] = "inner product"
    kind: Literal["exact", "approximate"]
    lists: int = Field(ge=1)
    probes: int = Field(ge=0)
    """Lists that a search without a selection reads."""
    largest_error: float = Field(ge=0)
    """The largest distance between a vector and what the file holds of it."""
    recall: float = Field(ge=0, le=1)
    """Measured recall@10 or @100, the lesser."""
    count: int = Field(ge=0)
    position: Position
    """It holds the changes up to this one."""
    previous_encoder: str | None
    """By which searches worked before it was published; None where nobody knows."""
    built_at: datetime
    faiss_bytes: int = Field(ge=0)
    faiss_sha256: str

    @property
    def is_settled(self) -> bool:
        """Whether its encoder was in use before it: no process should be working by another one by now."""
        return self.previous_encoder == self.encoder


@dataclass(frozen=True)
class Generation:
    """A published index, open."""

    name: str
    manifest: Manifest
    index: BaseIndex


@dataclass(frozen=True)
class Draft:
    """A FAISS file that is on the disk, in a folder that is not published."""

    folder: Path
    faiss_bytes: int
    faiss_sha256: str

    @classmethod
    def write(cls, folder: Path, index: faiss.Index) -> "Draft":
        """Write an index into an empty folder.

        Raises:
            OSError: The disk does not take it.
        """
        content = faiss.serialize_index(index).data
        (folder / VECTORS).write_bytes(content)
        sync(folder / VECTORS)
        return cls(folder, len(content), hashlib.sha256(content).hexdigest())

    def read_back(self) -> faiss.Index:
        """The index that the disk holds.

        Raises:
            DamagedIndexError: It is not the one that was written.
            IndexFileError: It cannot be read.
        """
        try:
            return _read_faiss(self.folder / VECTORS, self.faiss_bytes, self.faiss_sha256)
        except DamagedIndexError as error:
            raise DamagedIndexError(
                f"{self.folder.parent} does not hold the index as it was written, {error}; searches go on as "
                "before, examine the disk"
            ) from error
        except OSError as error:
            raise IndexFileError(f"the new index in {self.folder.parent} cannot be read: {error.strerror}") from error

    def complete(self, manifest: Manifest, number: int) -> str:
        """Add the manifest; the name that the folder is to bear.

        Raises:
            OSError: The disk does not take it.
        """
        content = manifest.model_dump_json(indent=1).encode()
        (self.folder / MANIFEST).write_bytes(content)
        sync(self.folder / MANIFEST)
        sync(self.folder)
        return f"g{number:06d}-{_checksum(content)}"


def number_of(name: str) -> int:
    """The number in a folder's name; 0 where it is no generation."""
    match = NAME.fullmatch(name)
    return int(match[1]) if match else 0


def read_manifest(folder: Path) -> Manifest:
    """What a generation holds.

    Raises:
        FileNotFoundError: There is no such folder.
        DamagedIndexError: It is damaged, or of another format.
        OSError: It cannot be read.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise _missing(folder, MANIFEST) from None
    except NotADirectoryError:
        raise DamagedIndexError("it is no folder") from None
    if _checksum(content) != folder.name.rpartition("-")[2]:
        raise DamagedIndexError(f"{MANIFEST} does not have the checksum in the folder's name")
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise DamagedIndexError(f"{MANIFEST} is of no form that this version reads: {field}: {first['msg']}") from None


def open_generation(folder: Path) -> Generation:
    """Open a generation, checked from its first byte to its last. Raises as `read_manifest`."""
    manifest = read_manifest(folder)
    try:
        index = _read_faiss(folder / VECTORS, manifest.faiss_bytes, manifest.faiss_sha256)
    except FileNotFoundError:
        raise _missing(folder, VECTORS) from None
    if (index.d, index.ntotal) != (manifest.dim, manifest.count):
        raise DamagedIndexError(f"{VECTORS} holds {index.ntotal} vectors of {index.d} values, unlike its manifest")
    return Generation(folder.name, manifest, BaseIndex(index, manifest.probes, manifest.largest_error))


def _missing(folder: Path, file: str) -> OSError | DamagedIndexError:
    """A file that is missing in a folder is damage, a folder that is missing was pruned."""
    return DamagedIndexError(f"it has no {file}") if os.path.lexists(folder) else FileNotFoundError(folder)


def _checksum(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:16]


def _read_faiss(path: Path, size: int, sha256: str) -> faiss.Index:
    """The index in a file, mapped into memory, so that processes share its pages."""
    with path.open("rb") as file:
        if path.stat().st_size != size or hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise DamagedIndexError(f"{path.name} does not have the size and checksum in its manifest")
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:  # the file is sound, so it is the memory, or another version of FAISS
        if not path.exists():
            raise FileNotFoundError(path) from None
        raise OSError(errno.EIO, f"FAISS {faiss.__version__} cannot open {path.name}") from error
