"""The bi-encoder: texts to unit vectors whose inner product is their similarity."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from search import model_folder
from search.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = npt.NDArray[np.float32]
Advance = Callable[[int], None]
"""Called with the number of texts done since the last call."""

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

    @cached_property
    def fingerprint(self) -> str:
        """Says which model and text form made a vector; 64 hex digits."""
        return model_folder.fingerprint(self.folder)

    def encode(self, texts: Sequence[str], advance: Advance | None = None) -> Vectors:
        """Embed texts.

        Args:
            texts: n texts; what is longer than the model reads is cut.
            advance: Called after each step with the number of texts in it.

        Returns:
            Shape (n, dim), float32, rows of unit length.

        Raises:
            ModelError: The model cannot be loaded, or returns vectors that are not finite.
        """
        if not texts:
            return np.empty((0, 0), dtype=np.float32)
        step = self._batch_size * BATCHES_PER_STEP
        parts: list[Vectors] = []
        for start in range(0, len(texts), step):
            part = [self._bounded(text) for text in texts[start : start + step]]
            vectors = self._model.encode(
                part, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True
            ).astype(np.float32, copy=False)
            parts.append(_unit_rows(vectors, self.folder))
            if advance:
                advance(len(part))
        return np.concatenate(parts)

    def cut(self, text: str) -> tuple[str, bool]:
        """The beginning of `text` that the model reads, and whether anything was cut off."""
        bounded = self._bounded(text)
        tokens = self._model.tokenizer(
            bounded, truncation=True, max_length=self._max_tokens, return_offsets_mapping=True, add_special_tokens=True
        )
        end = max(end for _, end in tokens["offset_mapping"])
        rest = text[end:].strip()
        return (bounded[:end], True) if rest else (text, False)

    @property
    def _max_tokens(self) -> int:
        return int(self._model.max_seq_length or 512)

    def _bounded(self, text: str) -> str:
        return text[: self._max_tokens * CHARACTERS_PER_TOKEN]

    @cached_property
    def _model(self) -> "SentenceTransformer":
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415  seconds to import

        from search.loading import load_model  # noqa: PLC0415

        model_folder.require_kind(self.folder, "bi-encoder")
        return load_model(SentenceTransformer, self.folder, self._device)


def _unit_rows(vectors: Vectors, folder: object) -> Vectors:
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ModelError(f"the encoder {folder} returned vectors that have no direction; its weights are damaged")
    return vectors / lengths
