"""The cross-encoder: how probable it is that a lost report and a found description are of one object."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from search import model_folder
from search.batches import token_batches
from search.errors import ModelError
from search.logistic import sigmoid
from search.model import Model
from search.types import Advance, Floats, Scores

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


class Reranker(Model):
    """A sentence-transformers CrossEncoder with one label, or the graph made from it.

    Example:
        >>> reranker = Reranker("lostfound-minilm")
        >>> texts = ["Rucksack, black, Eastpak, front pocket torn", "A red umbrella"]
        >>> bool(np.diff(reranker.score("my black eastpak backpack with a ripped pocket", texts)) < 0)
        True
    """

    _loaded: "CrossEncoder | None" = None

    def score(self, query: str, texts: Sequence[str]) -> Scores:
        """Score the texts of found items for one lost report.

        Returns:
            Shape (n,), float32, probabilities in [0, 1].

        Raises:
            ModelError: The model cannot be loaded, or its scores are not finite.
        """
        return self.score_pairs([(query, text) for text in texts])

    def score_pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        advance: Advance | None = None,
        needed: Floats | None = None,
        *,
        may_leave: bool = False,
    ) -> Scores:
        """Score (lost, found) pairs, of many reports together.

        Args:
            pairs: n pairs; what is longer than the model reads is cut.
            advance: Called after each batch with the number of pairs in it.
            needed: The logits with which pairs would be shown, shape (n,): in what reaches them a graph is as exact as
                the model; minus infinity: that pair is to be exact anyhow (not with `may_leave`). None: as exact as
                the graph is.
            may_leave: Whether a pair that seems to be below what it needs may get an estimate, below it too, which a
                graph has earlier.

        Returns:
            Shape (n,), float32, the sigmoid of the model's logit, in [0, 1].

        Raises:
            ModelError: The model cannot be loaded, or its scores are not finite.
        """
        if not pairs:
            return np.empty(0, dtype=np.float32)
        if self.graph:
            scores = sigmoid(self.graph.run(pairs, advance, needed, may_leave=may_leave)[:, 0])
        else:
            scores = np.empty(len(pairs), dtype=np.float32)
            for batch in token_batches([len(lost) + len(found) for lost, found in pairs], self.batch_characters):
                scores[batch] = self._predict([pairs[position] for position in batch])
                if advance:
                    advance(len(batch))
        if not np.isfinite(scores).all():
            raise ModelError(f"the reranker {self.folder} returned scores that are no numbers; its weights are damaged")
        return scores

    def may_leave_early(self, threshold: float, encoder: str) -> bool:
        """Whether it was seen which pairs may leave the graph early, at this threshold.

        Args:
            threshold: Of the search.
            encoder: Fingerprint of the bi-encoder that brings them up.
        """
        return self.graph is not None and self.graph.notes.early_exit_for == (threshold, encoder)

    def load(self) -> None:
        """Load the model now, not with the first pairs.

        Raises:
            ModelError: It cannot be loaded.
        """
        if not self.graph:
            with self._lock:
                self._model()

    def _predict(self, batch: list[tuple[str, str]]) -> Scores:
        import torch  # noqa: PLC0415  seconds to import

        with self._lock:
            # A hub model may save another activation; ours is a probability for every model.
            scores = self._model().predict(
                batch, batch_size=len(batch), activation_fn=torch.nn.Sigmoid(), show_progress_bar=False
            )
        return np.asarray(scores, dtype=np.float32)

    def _model(self) -> "CrossEncoder":
        if self._loaded is None:
            from sentence_transformers import CrossEncoder  # noqa: PLC0415  seconds to import

            from search.loading import load_model  # noqa: PLC0415

            model_folder.require_kind(self.folder, "cross-encoder")
            model = load_model(CrossEncoder, self.folder, self.device, self.precision)
            if model.num_labels != 1:
                raise ModelError(f"{self.folder} has {model.num_labels} labels, a reranker has one")
            self._loaded = model
        return self._loaded
