"""The bi-encoder: texts to unit vectors whose inner product is their similarity."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from search import model_folder
from search.batches import token_batches
from search.errors import ModelError
from search.graph import CHARACTERS_PER_TOKEN, Graph
from search.model import Model
from search.types import Advance, Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class BiEncoder(Model):
    """A sentence-transformers bi-encoder, or the graph made from it.

    Example:
        >>> encoder = BiEncoder("lostfound-encoder")
        >>> encoder.encode(["a black rucksack", "a red umbrella"]).shape
        (2, 384)
    """

    _loaded: "SentenceTransformer | None" = None

    @property
    def dim(self) -> int:
        """Values per vector."""
        if self.graph:
            return self.graph.notes.width
        with self._lock:
            return int(self._model().get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str], advance: Advance | None = None) -> Vectors:
        """Embed the texts of items.

        Args:
            texts: n texts; what is longer than the model reads is cut.
            advance: Called after each batch with the number of texts in it.

        Returns:
            Shape (n, dim), float32, rows of unit length.

        Raises:
            ModelError: The model cannot be loaded, or returns vectors that are not finite.
        """
        return self._encode(texts, advance, "document")

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Embed lost reports, with the model's query prompt where it has one; otherwise as `encode`."""
        return self._encode(texts, None, "query")

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        """The cosine of each (lost, found) pair, in [-1, 1]; shape (n,), float32. Every text is encoded once."""
        if not pairs:
            return np.empty(0, dtype=np.float32)
        reports, items = (list(dict.fromkeys(texts)) for texts in zip(*pairs, strict=True))
        rows = {text: row for row, text in enumerate(reports)}, {text: row for row, text in enumerate(items)}
        of_reports = self.encode_queries(reports)[[rows[0][lost] for lost, _ in pairs]]
        of_items = self.encode(items)[[rows[1][found] for _, found in pairs]]
        cosines: Vectors = (of_reports * of_items).sum(axis=1)
        return cosines

    def cut(self, text: str) -> tuple[str, bool]:
        """The beginning of `text` that the model reads, and whether anything was cut off.

        A text of which the model reads nothing, a mere variation selector, gives "".
        """
        bounded, ends, has_more = _read_by_graph(self.graph, text) if self.graph else self._read_by_torch(text)
        if not has_more and bounded == text:
            return (text if ends else ""), False
        return bounded[: ends[-1]] if ends else "", True

    def _read_by_torch(self, text: str) -> tuple[str, list[int], bool]:
        """As `_read_by_graph`."""
        with self._lock:
            model = self._model()
            limit = int(model.max_seq_length or 512)
            bounded = text[: limit * CHARACTERS_PER_TOKEN]
            read = model.tokenizer(bounded, return_offsets_mapping=True, return_special_tokens_mask=True)
        spans = zip(read["offset_mapping"], read["special_tokens_mask"], strict=True)
        ends = [end for (_, end), is_special in spans if not is_special]
        room = limit - (len(read["input_ids"]) - len(ends))
        return bounded, ends[:room], len(ends) > room

    def _encode(self, texts: Sequence[str], advance: Advance | None, kind: str) -> Vectors:
        if not texts:
            return np.empty((0, 0), dtype=np.float32)
        if self.graph:
            prompt = self.graph.notes.prompts[kind]
            return _unit_rows(self.graph.run([prompt + text for text in texts], advance), self.folder)
        parts: list[Vectors] = []
        positions: list[int] = []
        for batch in token_batches([len(text) for text in texts], self.batch_characters):
            with self._lock:
                model = self._model()
                bound = int(model.max_seq_length or 512) * CHARACTERS_PER_TOKEN
                encode = model.encode_query if kind == "query" else model.encode_document
                part = [texts[position][:bound] for position in batch]
                vectors = encode(part, batch_size=len(part), show_progress_bar=False, convert_to_numpy=True)
            parts.append(_unit_rows(vectors.astype(np.float32, copy=False), self.folder))
            positions += batch
            if advance:
                advance(len(batch))
        return np.concatenate(parts)[np.argsort(positions)]

    def _model(self) -> "SentenceTransformer":
        if self._loaded is None:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415  seconds to import

            from search.loading import load_model  # noqa: PLC0415

            model_folder.require_kind(self.folder, "bi-encoder")
            self._loaded = load_model(SentenceTransformer, self.folder, self.device, self.precision)
        return self._loaded


def _unit_rows(vectors: Vectors, folder: object) -> Vectors:
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ModelError(f"the encoder {folder} returned vectors that have no direction; its weights are damaged")
    return vectors / lengths


def _read_by_graph(graph: Graph, text: str) -> tuple[str, list[int], bool]:
    """The part that is tokenised, where each token that the model reads ends, and whether there are more."""
    bounded = text[: graph.notes.max_length * CHARACTERS_PER_TOKEN]
    read = graph.tokenizer.encode(bounded)
    spans = zip(read.offsets, read.special_tokens_mask, strict=True)
    return bounded, [end for (_, end), is_special in spans if not is_special], bool(read.overflowing)
