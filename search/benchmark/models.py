"""The models alone: pairs a second of the reranker, texts a second of the encoder, and what the machine could do."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from search.application import Application
from search.benchmark.rounds import Row, alternate, compare, rates
from search.benchmark.workers import Worker
from search.encoder import BiEncoder
from search.errors import BenchmarkError
from search.index.exact import nearest
from search.reranker import Reranker
from search.threshold import load_threshold
from search.training.corpus import Split, load_corpus

OURS = "lostfound"

BASE = "CrossEncoder.predict"

OWN_PEERS = (BASE, "CrossEncoder.predict, best batch", "CrossEncoder.predict, bfloat16")
"""By the sentence-transformers that lostfound itself uses."""

OTHER_PEERS = (
    "CrossEncoder.predict, ONNX",
    "CrossEncoder.predict, ONNX int8",
    "CrossEncoder.predict, OpenVINO",
    "rerankers",
    "txtai",
)
"""In the environment of the peers."""

REPORTS, DEPTH = 5, 100

LONG_ENOUGH = 5.0
"""Seconds of matrix products."""


def reranking(
    application: Application, own: Path, peers: Path, models: dict[str, str], log: Path, rounds: int
) -> list[Row]:
    """Pairs a second on the nearest descriptions of some reports of the test split.

    Args:
        application: Its models.
        own: The Python that runs lostfound.
        peers: The Python that has the peers.
        models: The peers' `reranker` and `encoder`.
        log: What they write.
        rounds: Of which the median counts.
    """
    pairs = _pairs(application.encoder)
    reranker = application.reranker
    fitted = load_threshold(reranker, application.threshold_file, application.encoder)
    # As a search asks for them, but that none leaves early.
    needed = fitted.needed(application.encoder.similarities(pairs)) if fitted else None
    scores: dict[str, Any] = {}

    def ours(model: Reranker, name: str) -> float:
        start = time.perf_counter()
        scores[name] = model.score_pairs(pairs, needed=needed)
        return time.perf_counter() - start

    def theirs(worker: Worker, name: str) -> float:
        worker.load("scorer", name, reranker=models["reranker"])  # in the round that does not count
        answer = worker.ask("score", pairs=pairs)
        scores[name] = np.array(answer["scores"])
        return float(answer["seconds"])

    by_torch = Reranker(reranker.name, "cpu", precision="float32")
    torch_name = f"{OURS}, by torch"
    competitors: dict[str, Callable[[], float]] = {OURS: partial(ours, reranker, OURS)}
    competitors[torch_name] = partial(ours, by_torch, torch_name)
    with ExitStack() as stack:
        for name in OWN_PEERS + OTHER_PEERS:
            worker = stack.enter_context(Worker(own if name in OWN_PEERS else peers, log))
            competitors[name] = partial(theirs, worker, name)
        seconds = alternate(competitors, rounds)
    rows = []
    for name in competitors:
        figures = rates(seconds[name], len(pairs), "pairs")
        if name in scores and BASE in scores:
            figures["largest difference"] = float(np.abs(scores[name] - scores[BASE]).max())
        rows.append(Row("reranking", name, figures))
    return compare(rows, "pairs/s", BASE)


def encoding(application: Application, own: Path, log: Path, rounds: int) -> list[Row]:
    """Texts a second on found descriptions of the test split, against `SentenceTransformer.encode` at its defaults."""
    texts = [text for entry in load_corpus().objects[Split.TEST] for text in entry.found]
    vectors: dict[str, Any] = {}
    theirs_name = "SentenceTransformer.encode"

    def ours() -> float:
        start = time.perf_counter()
        vectors[OURS] = application.encoder.encode(texts)
        return time.perf_counter() - start

    with Worker(own, log) as worker:

        def theirs() -> float:
            worker.load("encoder", theirs_name, encoder=str(application.encoder.folder))
            answer = worker.ask("encode", texts=texts)
            vectors[theirs_name] = np.array(answer["vectors"])
            return float(answer["seconds"])

        seconds = alternate({OURS: ours, theirs_name: theirs}, rounds)
    rows = [Row("encoding", name, rates(taken, len(texts), "texts")) for name, taken in seconds.items()]
    if theirs_name in vectors:
        rows[0].figures["lowest cosine"] = float((vectors[OURS] * vectors[theirs_name]).sum(axis=1).min())
    return compare(rows, "texts/s", theirs_name)


def roofline(application: Application, reranked: list[Row]) -> list[Row]:
    """Which share of this machine's own matrix product the reranker reaches.

    A BERT layer of width h and inner width i does 2 (4 h^2 + 2 h i) operations per token, and 4 n h more in the
    attention of n tokens (two for each multiplication; Kaplan et al., 2020, table 1). Of everybody all are counted,
    whatever he leaves out: lostfound three quarters of the last layer.
    """
    config = json.loads((application.reranker.folder / "config.json").read_bytes())
    try:
        hidden, inner, layers = (config[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    except KeyError as error:
        return [Row("roofline", "this machine", {"not measured": f"the reranker's config.json has no {error}"})]
    tokens = np.array(_lengths(application.reranker, _pairs(application.encoder)), dtype=np.float64)
    operations = float((tokens * layers * (2 * (4 * hidden**2 + 2 * hidden * inner) + 4 * tokens * hidden)).sum())
    products = {name: _matrix_product(name) for name in ("float32", "bfloat16")}
    rows = [Row("roofline", f"matrix product, {name}", {"GFLOP/s": rate / 1e9}) for name, rate in products.items()]
    for row in reranked:
        if "pairs/s" in row.figures and row.name in (OURS, BASE):
            reached = operations / len(tokens) * float(row.figures["pairs/s"])
            shares = {f"of {name}": reached / rate for name, rate in products.items()}
            rows.append(Row("roofline", row.name, {"GFLOP/s": reached / 1e9, **shares}))
    rows[0].figures["tokens per pair"] = float(tokens.mean())
    return rows


def _pairs(encoder: BiEncoder) -> list[tuple[str, str]]:
    objects = load_corpus().objects[Split.TEST]
    texts = [text for entry in objects for text in entry.found]
    reports = [entry.lost[number % 2] for number, entry in enumerate(objects[:: len(objects) // REPORTS][:REPORTS])]
    _, places = nearest(encoder.encode_queries(reports), [(np.arange(len(texts)), encoder.encode(texts))], DEPTH)
    return [(report, texts[place]) for report, row in zip(reports, places, strict=True) for place in row]


def _lengths(reranker: Reranker, pairs: list[tuple[str, str]]) -> list[int]:
    if reranker.graph is None:
        raise BenchmarkError("the reranker has no graph; run `lostfound optimise`")
    return [len(encoding) for encoding in reranker.graph.tokenizer.encode_batch(pairs)]


def _matrix_product(precision: str, size: int = 2048, repetitions: int = 20) -> float:
    """Operations a second of torch's product of two square matrices, the best of some.

    A processor without bfloat16 takes half a minute for one such product: then one is enough.
    """
    import torch  # noqa: PLC0415  seconds to import

    first, second = (torch.randn(size, size).to(getattr(torch, precision)) for _ in range(2))
    best, spent = float("inf"), 0.0
    for _ in range(repetitions):
        start = time.perf_counter()
        first @ second
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + taken
        if spent > LONG_ENOUGH:
            break
    return 2 * size**3 / best
