"""The searches by which `lostfound optimise` sees whether pairs may leave a reranker's graph early."""

import random
from collections.abc import Sequence

import numpy as np

from search.application import Application
from search.conversion import write_notes
from search.early_exit import EarlyExit, fit_early_exit
from search.encoder import BiEncoder
from search.errors import ModelError
from search.graph import Graph
from search.graph_notes import GraphNotes
from search.index.exact import nearest
from search.reindex import ShowProgress
from search.threshold import Threshold
from search.training.corpus import LostObject, Split, load_corpus
from search.training.inventory import GROUPS, inventory_texts

SEARCHES, DEPTH, INVENTORY = 800, 100, 10_000
"""Reports of the validation split, candidates of each, and items beside the validation objects among which they are
found. The items are put together from the facts of the training split: a search shows 1.5 on average. Of items from the
facts of the validation split it would show ten, but no office holds twenty of each thing."""


def with_early_exit(application: Application, threshold: Threshold, show: ShowProgress) -> GraphNotes:
    """The notes of the reranker's graph, with an early exit for this threshold where one pays.

    Raises:
        ModelError: There is no graph.
        OSError: The notes cannot be written.
    """
    reranker = application.reranker
    graph = reranker.graph
    if graph is None:
        raise ModelError(f"{reranker.name} has no graph")
    notes = graph.notes.model_copy(
        update={
            "early_exit": _fitted(graph, application.encoder, threshold, show),
            "early_exit_for": (threshold.threshold, application.encoder.fingerprint),
        }
    )
    write_notes(graph.folder, notes)
    return notes


def _fitted(graph: Graph, encoder: BiEncoder, threshold: Threshold, show: ShowProgress) -> EarlyExit | None:
    if not graph.cuts or not 0 < threshold.threshold < 1:
        return None
    corpus = load_corpus()
    objects = corpus.objects[Split.VALIDATION]
    others = inventory_texts(corpus.training_groups(GROUPS).objects[Split.TRAIN], INVENTORY, seed=0)
    with show("Seeing what may leave early", len(objects) + INVENTORY + SEARCHES * DEPTH) as advance:
        texts = [*(entry.found[0] for entry in objects), *others]
        reports = _reports(objects)
        vectors = [(np.arange(len(texts)), encoder.encode(texts, advance))]
        similarities, places = nearest(encoder.encode_queries(reports), vectors, DEPTH)
        search, column = np.nonzero(similarities >= threshold.floor)
        pairs = [(reports[row], texts[place]) for row, place in zip(search, places[search, column], strict=True)]
        needed = threshold.needed(similarities[search, column])
        known, logits = graph.on_the_way(pairs, needed, advance)
        advance(similarities.size - len(pairs))
    return fit_early_exit(known, logits[:, 0], needed, search, SEARCHES, graph.cuts, DEPTH)


def _reports(objects: Sequence[LostObject]) -> list[str]:
    """Both of each object, the groups in random order, without those in the middle: the halves share no group."""
    groups = sorted({entry.group for entry in objects})
    random.Random(0).shuffle(groups)  # noqa: S311  no secret
    reports = [text for entry in sorted(objects, key=lambda entry: groups.index(entry.group)) for text in entry.lost]
    return [*reports[: SEARCHES // 2], *reports[-SEARCHES // 2 :]]
