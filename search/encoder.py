"""The bi-encoder: texts to unit vectors whose inner product is their similarity."""

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from search import model_folder
from search.errors import ModelError
from search.types import Advance, Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CHARACTERS_PER_TOKEN = 20
"""More than any real text has; longer ones are cut before they are tokenised, to bound time and memory."""

BATCHES_PER_STEP = 32


class BiEncoder:
    """A sentence-transformers bi-encoder.

    Making one finds the folder; the weights (and torch) are loaded by the first text that is encoded.

    Example:
        >>> encoder = BiEncoder("all-MiniLM-L6-v2")
        >>> encoder.encode(["a black rucksack", "a red umbrella"]).shape
        (2, 384)
    """

    def __init__(self, name: str, device: str = "auto", batch_size: int = 32) -> None:
        """Find the model.

        Args:
            name: The built-in `all-MiniLM-L6-v2`, a local folder, or a hub id with an optional `@revision`.
            device: `auto`, `cpu`, `cuda` or `mps`.
            batch_size: Texts read at once.

        Raises:
            ModelError: There is no such model, or it has no safetensors weights.
        """
        self.name = name
        self.folder = model_folder.find_model(name)
        self._device = device
        self._batch_size = batch_size
        self._lock = threading.RLock()  # a tokenizer holds state while it reads
        self._loaded: SentenceTransformer | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Says which model and text form made a vector; 64 hex digits."""
        return model_folder.fingerprint(self.folder)

    @property
    def dim(self) -> int:
        """Values per vector."""
        with self._lock:
            return int(self._model().get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str], advance: Advance | None = None) -> Vectors:
        """Embed the texts of items.

        Args:
            texts: n texts; what is longer than the model reads is cut.
            advance: Called after each step with the number of texts in it.

        Returns:
            Shape (n, dim), float32, rows of unit length.

        Raises:
            ModelError: The model cannot be loaded, or returns vectors that are not finite.
        """
        return self._encode(texts, advance, queries=False)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Embed lost reports, with the model's query prompt where it has one; otherwise as `encode`."""
        return self._encode(texts, None, queries=True)

    def cut(self, text: str) -> tuple[str, bool]:
        """The beginning of `text` that the model reads, and whether anything was cut off.

        A text of which the model reads nothing, a mere variation selector, gives "".
        """
        with self._lock:
            model = self._model()
            limit = int(model.max_seq_length or 512)
            bounded = text[: limit * CHARACTERS_PER_TOKEN]
            read = model.tokenizer(bounded, return_offsets_mapping=True, return_special_tokens_mask=True)
        spans = zip(read["offset_mapping"], read["special_tokens_mask"], strict=True)
        ends = [end for (_, end), is_special in spans if not is_special]
        room = limit - (len(read["input_ids"]) - len(ends))
        if len(ends) <= room and bounded == text:
            return (text if ends else ""), False
        return bounded[: ends[:room][-1]] if ends else "", True

    def _encode(self, texts: Sequence[str], advance: Advance | None, *, queries: bool) -> Vectors:
        if not texts:
            return np.empty((0, 0), dtype=np.float32)
        step = self._batch_size * BATCHES_PER_STEP
        parts: list[Vectors] = []
        for start in range(0, len(texts), step):
            with self._lock:
                model = self._model()
                bound = int(model.max_seq_length or 512) * CHARACTERS_PER_TOKEN
                part = [text[:bound] for text in texts[start : start + step]]
                encode = model.encode_query if queries else model.encode_document
                vectors = encode(part, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True)
            parts.append(_unit_rows(vectors.astype(np.float32, copy=False), self.folder))
            if advance:
                advance(len(part))
        return np.concatenate(parts)

    def _model(self) -> "SentenceTransformer":
        if self._loaded is None:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415  seconds to import

            from search.loading import load_model  # noqa: PLC0415

            model_folder.require_kind(self.folder, "bi-encoder")
            self._loaded = load_model(SentenceTransformer, self.folder, self._device)
        return self._loaded


def _unit_rows(vectors: Vectors, folder: object) -> Vectors:
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ModelError(f"the encoder {folder} returned vectors that have no direction; its weights are damaged")
    return vectors / lengths
