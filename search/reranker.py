"""The cross-encoder: how probable it is that a lost report and a found description are of one object."""

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from search import model_folder
from search.errors import ModelError
from search.types import Advance, Scores

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

BATCHES_PER_STEP = 16


class Reranker:
    """A sentence-transformers CrossEncoder with one label.

    Making one finds the folder; the weights (and torch) are loaded by the first pair that is scored.

    Example:
        >>> reranker = Reranker("lostfound-minilm")
        >>> texts = ["Rucksack, black, Eastpak, front pocket torn", "A red umbrella"]
        >>> bool(np.diff(reranker.score("my black eastpak backpack with a ripped pocket", texts)) < 0)
        True
    """

    def __init__(self, name: str, device: str = "auto", batch_size: int = 32, precision: str | None = None) -> None:
        """Find the model.

        Args:
            name: The built-in `lostfound-minilm`, a local folder, or a hub id with an optional `@revision`.
            device: `auto`, `cpu`, `cuda` or `mps`.
            batch_size: Pairs read at once.
            precision: `float32`, `bfloat16` or `float16`; None: half on a GPU, else float32.

        Raises:
            ModelError: There is no such model, or it has no safetensors weights.
        """
        self.name = name
        self.folder = model_folder.find_model(name)
        self._device = device
        self._batch_size = batch_size
        self._precision = precision
        self._lock = threading.RLock()  # a tokenizer holds state while it reads
        self._loaded: CrossEncoder | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Says which model and text form made a score; 64 hex digits."""
        return model_folder.fingerprint(self.folder)

    @cached_property
    def precision(self) -> str:
        """The precision of the arithmetic. Loads torch.

        Raises:
            SettingsError: The device is not on this machine.
        """
        from search.loading import default_precision, resolve_device  # noqa: PLC0415

        return self._precision or default_precision(resolve_device(self._device))

    def score(self, query: str, texts: Sequence[str]) -> Scores:
        """Score the texts of found items for one lost report.

        Returns:
            Shape (n,), float32, probabilities in [0, 1].

        Raises:
            ModelError: The model cannot be loaded, or its scores are not finite.
        """
        return self.score_pairs([(query, text) for text in texts])

    def score_pairs(self, pairs: Sequence[tuple[str, str]], advance: Advance | None = None) -> Scores:
        """Score (lost, found) pairs, of many reports together.

        Args:
            pairs: n pairs; what is longer than the model reads is cut.
            advance: Called after each step with the number of pairs in it.

        Returns:
            Shape (n,), float32, the sigmoid of the model's logit, in [0, 1].

        Raises:
            ModelError: The model cannot be loaded, or its scores are not finite.
        """
        if not pairs:
            return np.empty(0, dtype=np.float32)
        import torch  # noqa: PLC0415  seconds to import

        step = self._batch_size * BATCHES_PER_STEP
        parts: list[Scores] = []
        for start in range(0, len(pairs), step):
            part = list(pairs[start : start + step])
            # A hub model may save another activation; ours is a probability for every model.
            with self._lock:
                scores = self._model().predict(
                    part, batch_size=self._batch_size, activation_fn=torch.nn.Sigmoid(), show_progress_bar=False
                )
            parts.append(np.asarray(scores, dtype=np.float32))
            if advance:
                advance(len(part))
        scores = np.concatenate(parts)
        if not np.isfinite(scores).all():
            raise ModelError(f"the reranker {self.folder} returned scores that are no numbers; its weights are damaged")
        return scores

    def _model(self) -> "CrossEncoder":
        if self._loaded is None:
            from sentence_transformers import CrossEncoder  # noqa: PLC0415  seconds to import

            from search.loading import load_model  # noqa: PLC0415

            model_folder.require_kind(self.folder, "cross-encoder")
            model = load_model(CrossEncoder, self.folder, self._device, self.precision)
            if model.num_labels != 1:
                raise ModelError(f"{self.folder} has {model.num_labels} labels, a reranker has one")
            self._loaded = model
        return self._loaded
