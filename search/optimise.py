"""Makes the graphs of the models for a CPU: converted, quantised, measured beside the model itself, published whole.

A graph serves only if it does as the model does: fewer than 0.5 % of the validation pairs fall on the other side of the
threshold, average precision moves by less than 0.002, and no vector is turned beyond a cosine of 0.999; and only if it
is faster than the model, a coarse one of the reranker's by a tenth faster than its float32 copy. Then it is seen
whether pairs may leave it early.
"""

import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock, Timeout

from search.application import Application
from search.conversion import Variant, save_graph, variants, write_notes
from search.early_exit_searches import with_early_exit
from search.encoder import BiEncoder
from search.errors import ModelError
from search.graph import Graph, Texts
from search.graph_notes import GraphNotes
from search.logistic import sigmoid
from search.reindex import ShowProgress
from search.reranker import Reranker
from search.threshold import MOST_FLIPPED, Threshold, load_threshold
from search.training import metrics
from search.training.corpus import LostObject, Split, load_corpus
from search.training.pairs import validation_pairs
from search.types import Advance
from search.whole_file import sync

LEAST_COSINE = 0.999
MOST_AP_MOVED = 0.002

EXAMPLES = 500
"""Pairs of the training split by which int8 chooses its ranges."""

PACE_PAIRS, PACE_ROUNDS = 100, 3
"""By which it is seen whether a coarse graph is faster than its float32 copy."""

COARSE_PACE = "pairs per second without second looks"

Measure = Callable[[Graph, Advance], dict[str, float]]
"""From a graph to its figures beside the model's."""


@dataclass(frozen=True)
class Optimised:
    """What became of a model."""

    model: str
    """Its name."""
    notes: GraphNotes | None
    """Of the graph that serves from now on; None where the model itself serves."""
    is_new: bool
    refused: dict[str, str]
    """Variants that do not serve, and why."""


def optimise(application: Application, show_progress: ShowProgress | None = None) -> list[Optimised]:
    """Make the graphs of encoder and reranker, unless there are such for this model, threshold and processor.

    Raises:
        ModelError: The models do not run on a CPU, the reranker has no threshold, OpenVINO is not installed, another
            process is at it, or the graphs cannot be written.
    """
    show = show_progress or (lambda *_: nullcontext(lambda _: None))
    if application.settings.backend == "torch":
        raise ModelError("LOSTFOUND_BACKEND = 'torch': no graph would be used; set it to auto")
    if not application.encoder.runs_on_cpu:
        raise ModelError(f"LOSTFOUND_DEVICE = {application.settings.device!r}: graphs are for a CPU; set it to cpu")
    threshold = load_threshold(application.reranker, application.threshold_file, application.encoder)
    if threshold is None:
        raise ModelError(f"reranker {application.reranker.name!r} has no threshold; run `lostfound calibrate` first")
    try:
        application.graphs.mkdir(parents=True, exist_ok=True)
        with FileLock(application.graphs / "lock", timeout=0):
            encoder = _encoder(application.encoder, show)
            made = _reranker(application, threshold, show)
            if made.notes and made.notes.early_exit_for != (threshold.threshold, application.encoder.fingerprint):
                notes = with_early_exit(Application(application.settings), threshold, show)
                made = replace(made, notes=notes)
            return [encoder, made]
    except Timeout:
        raise ModelError(f"another process makes graphs in {application.graphs}; wait for it") from None
    except MemoryError:
        raise ModelError("no memory is left to make graphs; it takes about 3.5 GB") from None
    except OSError as error:
        raise ModelError(f"{application.graphs} cannot be written: {error}; free some space and try again") from error


def _encoder(encoder: BiEncoder, show: ShowProgress) -> Optimised:
    if encoder.graph:
        return Optimised(encoder.name, encoder.graph.notes, is_new=False, refused={})
    plain = BiEncoder(encoder.name, "cpu", precision="float32")
    objects = load_corpus().objects[Split.VALIDATION]
    texts = [text for entry in objects for text in entry.found]
    reports = [text for entry in objects for text in entry.lost]
    plain.encode(texts[:1])  # loads
    with show("Encoding by torch", len(texts)) as advance:
        expected, seconds = _timed(lambda: plain.encode(texts, advance))
        expected_reports = plain.encode_queries(reports)

    def measure(graph: Graph, advance: Advance) -> dict[str, float]:
        document, query = graph.notes.prompts["document"], graph.notes.prompts["query"]
        vectors, taken = _timed(lambda: graph.run([document + text for text in texts], advance))
        all_vectors = np.concatenate([vectors, graph.run([query + report for report in reports])])
        products = (all_vectors * np.concatenate([expected, expected_reports])).sum(axis=1)
        cosines = products / np.linalg.norm(all_vectors, axis=1)
        return {
            "lowest cosine": float(np.nan_to_num(cosines, nan=-1).min()),
            "texts per second": len(texts) / taken,
            "texts per second by torch": len(texts) / seconds,
        }

    return _publish_first(encoder, plain, variants(int8=False), texts, measure, show)


def _reranker(application: Application, threshold: Threshold, show: ShowProgress) -> Optimised:
    reranker = application.reranker
    if reranker.graph:
        notes = reranker.graph.notes
        # The threshold was fitted by second looks at every pair; a graph that gives them to some has to be measured.
        is_fitted_by_it = threshold.precision == reranker.precision and not notes.looks_twice
        if is_fitted_by_it or notes.flipped_at(threshold.threshold) is not None:
            return Optimised(reranker.name, reranker.graph.notes, is_new=False, refused={})
    plain = Reranker(reranker.name, "cpu", precision="float32")
    pairs = validation_pairs("cpu")
    encoder = Application(application.settings).encoder  # by its new graph
    texts = [(pair.lost, pair.found) for pair in pairs]
    labels = np.array([pair.is_match for pair in pairs], dtype=np.int64)
    plain.score_pairs(texts[:1])  # loads
    similarities = encoder.similarities(texts)
    with show("Scoring by torch", len(texts)) as advance:
        by_torch, seconds = _timed(lambda: plain.score_pairs(texts, advance))
    expected = threshold.scores(by_torch, similarities).astype(np.float64)
    needed = threshold.needed(similarities)

    def measure(graph: Graph, advance: Advance) -> dict[str, float]:
        paces = _paces(graph, texts[:PACE_PAIRS])
        if why := _too_slow(paces):  # now, for the rest takes minutes
            raise ModelError(why)
        logits, taken = _timed(lambda: graph.run(texts, advance, needed)[:, 0])
        if not np.isfinite(logits).all():
            raise ModelError("its scores are no numbers")
        scores = threshold.scores(sigmoid(logits), similarities).astype(np.float64)
        flipped = (scores >= threshold.threshold) != (expected >= threshold.threshold)
        return {
            "threshold": threshold.threshold,
            "flipped": float(flipped.mean()),
            "AP": metrics.average_precision(labels, scores),
            "AP by torch": metrics.average_precision(labels, expected),
            "pairs per second": len(texts) / taken,
            "pairs per second by torch": len(texts) / seconds,
            **paces,
        }

    examples = _examples(load_corpus().objects[Split.TRAIN])
    return _publish_first(reranker, plain, variants(int8=True), examples, measure, show)


Plain = TypeVar("Plain", BiEncoder, Reranker)


def _publish_first(
    model: Plain, plain: Plain, available: Sequence[Variant], examples: Texts, measure: Measure, show: ShowProgress
) -> Optimised:
    """Make one variant after the other, until one holds."""
    target = model.graph_folder
    if target is None:
        raise ModelError(f"{model.name} was made without a folder for graphs")
    refused: dict[str, str] = {}
    partial, old = target.with_name(f"{target.name}.partial"), target.with_name(f"{target.name}.old")
    try:
        for variant in available:
            try:
                notes = _made(plain, variant, examples, measure, partial, show)
            except ModelError as error:
                refused[variant.name] = str(error)
                continue
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)  # whoever looks between the two renames computes by torch
            partial.rename(target)
            sync(target.parent)
            return Optimised(model.name, notes, is_new=True, refused=refused)
        shutil.rmtree(target, ignore_errors=True)  # it does not hold for this threshold and processor any more
        return Optimised(model.name, None, is_new=False, refused=refused)
    finally:
        if old.exists() and not target.exists():  # interrupted between the two
            old.rename(target)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _made(
    plain: Plain, variant: Variant, examples: Texts, measure: Measure, folder: Path, show: ShowProgress
) -> GraphNotes:
    """Make one variant in a folder, with its figures in the notes.

    Raises:
        ModelError: It cannot be made, or does not do as the model does.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with show(f"Making a graph in {variant.name}", None):
        save_graph(plain, variant, examples, folder)
    graph = Graph(folder, plain.fingerprint)
    with show(f"Comparing the graph in {variant.name}", None) as advance:
        figures = measure(graph, advance)
    if why := objection(figures):
        raise ModelError(why)
    notes = graph.notes.model_copy(update={"figures": figures})
    write_notes(folder, notes)
    return notes


def _paces(graph: Graph, pairs: Texts) -> dict[str, float]:
    """Of a coarse graph and of its float32 copy, in the best of some rounds: AVX2 alone computes int8 no faster."""
    if not graph.notes.looks_twice:
        return {}
    by_copy = np.full(len(pairs), -np.inf)
    rounds = [
        (_timed(lambda: graph.run(pairs))[1], _timed(lambda: graph.run(pairs, needed=by_copy))[1])
        for _ in range(PACE_ROUNDS)
    ]
    coarse, exact = (len(pairs) / min(seconds) for seconds in zip(*rounds, strict=True))
    return {COARSE_PACE: coarse, f"{COARSE_PACE} in float32": exact}


def objection(figures: dict[str, float]) -> str | None:
    """Why a graph with these figures may not serve in place of its model; None where it may.

    >>> objection({"flipped": 0.001, "AP": 0.92, "AP by torch": 0.93})
    'average precision is 0.9200 in place of 0.9300'
    """
    if not figures.get("lowest cosine", 1) >= LEAST_COSINE:
        return f"it turns a vector to a cosine of {figures['lowest cosine']:.4f}"
    if not figures.get("flipped", 0) < MOST_FLIPPED:
        return f"it decides {figures['flipped']:.2%} of the pairs otherwise"
    if not abs(figures.get("AP", 0) - figures.get("AP by torch", 0)) < MOST_AP_MOVED:
        return f"average precision is {figures['AP']:.4f} in place of {figures['AP by torch']:.4f}"
    return _too_slow(figures)


def _too_slow(figures: dict[str, float]) -> str | None:
    """Why a graph with these figures does not pay; second looks must not eat up what is gained by a coarse one.

    >>> _too_slow({"pairs per second without second looks": 33, "pairs per second without second looks in float32": 39})
    'it computes 33 pairs per second without second looks, in float32 39'
    """
    for speed, other, least in _RIVALS:
        if figures.get(speed, 0) < least * figures.get(f"{speed} {other}", 0):
            return f"it computes {figures[speed]:.0f} {speed}, {other} {figures[f'{speed} {other}']:.0f}"
    return None


_RIVALS: tuple[tuple[str, str, float], ...] = (
    ("texts per second", "by torch", 1.0),
    ("pairs per second", "by torch", 1.0),
    (COARSE_PACE, "in float32", 1.1),
)
"""A speed, beside what it is measured, and how many times as high it must be at least."""


def _examples(objects: Sequence[LostObject]) -> list[tuple[str, str]]:
    """Half of them matches, half of them not, as what a search scores is neither alone."""
    chance = random.Random(0)  # noqa: S311  no secret
    chosen = chance.sample(objects, EXAMPLES)
    return [
        (chance.choice(entry.lost), chance.choice((entry if number % 2 else chance.choice(objects)).found))
        for number, entry in enumerate(chosen)
    ]


Result = TypeVar("Result")


def _timed(compute: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    return compute(), time.perf_counter() - start
