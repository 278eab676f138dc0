"""A peer in a process of its own: reads one JSON request a line, answers one line. Imports nothing of lostfound.

The benchmark starts it with the Python of its own environment, or with that of the peers' where pins clash.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Scorer = Callable[[list[tuple[str, str]]], Any]

Request = dict[str, Any]


def predict(request: Request, **options: Any) -> Scorer:
    """`CrossEncoder.predict` at its defaults, or with another backend or precision."""
    from sentence_transformers import CrossEncoder  # noqa: PLC0415

    model = CrossEncoder(request["reranker"], device="cpu", **options)
    return lambda pairs: model.predict(pairs, show_progress_bar=False)


def predict_best_batch(request: Request) -> Scorer:
    """`CrossEncoder.predict` at the batch size that is fastest on the first pairs it gets."""
    from sentence_transformers import CrossEncoder  # noqa: PLC0415

    model = CrossEncoder(request["reranker"], device="cpu")
    best: list[int] = []

    def score(pairs: list[tuple[str, str]]) -> Any:
        def seconds(size: int) -> float:
            return timed(lambda: model.predict(pairs, batch_size=size, show_progress_bar=False))[1]

        if not best:
            best.append(min((4, 8, 16, 32, 64, 128), key=seconds))
        return model.predict(pairs, batch_size=best[0], show_progress_bar=False)

    return score


def predict_bfloat16(request: Request) -> Scorer:
    """`CrossEncoder.predict` in bfloat16."""
    import torch  # noqa: PLC0415

    return predict(request, model_kwargs={"torch_dtype": torch.bfloat16})


def predict_onnx(request: Request) -> Scorer:
    """`CrossEncoder.predict` by its ONNX backend."""
    return predict(request, backend="onnx", model_kwargs={"export": True})


def predict_onnx_int8(request: Request) -> Scorer:
    """`CrossEncoder.predict` by its ONNX backend, quantised as sentence-transformers does it."""
    from sentence_transformers import CrossEncoder  # noqa: PLC0415
    from sentence_transformers.backend import export_dynamic_quantized_onnx_model  # noqa: PLC0415

    plain = CrossEncoder(request["reranker"], device="cpu", backend="onnx", model_kwargs={"export": True})
    with TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        export_dynamic_quantized_onnx_model(plain, "avx512_vnni", folder)
        quantised = {"file_name": "onnx/model_qint8_avx512_vnni.onnx"}
        return predict({"reranker": folder}, backend="onnx", model_kwargs=quantised)


def predict_openvino(request: Request) -> Scorer:
    """`CrossEncoder.predict` by its OpenVINO backend."""
    return predict(request, backend="openvino", model_kwargs={"export": True})


def rerankers(request: Request) -> Scorer:
    """`rerankers`: one query with its texts at a time."""
    from rerankers import Reranker  # noqa: PLC0415

    model = Reranker(request["reranker"], model_type="cross-encoder", device="cpu", verbose=0)

    def score(pairs: list[tuple[str, str]]) -> Any:
        scores = np.empty(len(pairs))
        for positions in by_query(pairs):
            found = [pairs[position][1] for position in positions]
            ranked = model.rank(query=pairs[positions[0]][0], docs=found, doc_ids=list(range(len(found))))
            for result in ranked.results:
                scores[positions[result.doc_id]] = result.score
        return 1 / (1 + np.exp(-scores))  # it gives logits

    return score


def txtai(request: Request) -> Scorer:
    """Txtai's `Similarity` as a cross-encoder: one query with its texts at a time."""
    model = txtai_similarity(request)

    def score(pairs: list[tuple[str, str]]) -> Any:
        scores = np.empty(len(pairs))
        for positions in by_query(pairs):
            for number, value in model(pairs[positions[0]][0], [pairs[position][1] for position in positions]):
                scores[positions[number]] = value
        return scores

    return score


SCORERS: dict[str, Callable[[Request], Scorer]] = {
    "CrossEncoder.predict": predict,
    "CrossEncoder.predict, best batch": predict_best_batch,
    "CrossEncoder.predict, bfloat16": predict_bfloat16,
    "CrossEncoder.predict, ONNX": predict_onnx,
    "CrossEncoder.predict, ONNX int8": predict_onnx_int8,
    "CrossEncoder.predict, OpenVINO": predict_openvino,
    "rerankers": rerankers,
    "txtai": txtai,
}


class Recipe:
    """The plain recipe of sentence-transformers' documentation: retrieve by `semantic_search`, rerank by `predict`."""

    def __init__(self, request: Request) -> None:
        from sentence_transformers import CrossEncoder, SentenceTransformer  # noqa: PLC0415

        self.encoder = SentenceTransformer(request["encoder"], device="cpu")
        self.reranker = CrossEncoder(request["reranker"], device="cpu")
        self.texts: list[str] = []
        self.vectors: Any = None

    def index(self, texts: list[str], vectors: Any) -> None:
        """Take texts, and their vectors where these are known."""
        import torch  # noqa: PLC0415

        self.texts = texts
        if vectors is None:
            self.vectors = self.encoder.encode(texts, convert_to_tensor=True, show_progress_bar=False)
        else:
            self.vectors = torch.from_numpy(vectors)

    def search(self, query: str, depth: int) -> list[tuple[int, float]]:
        """Positions of the texts and their scores, the best first."""
        from sentence_transformers import util  # noqa: PLC0415

        vector = self.encoder.encode(query, convert_to_tensor=True, show_progress_bar=False)
        hits = [int(hit["corpus_id"]) for hit in util.semantic_search(vector, self.vectors, top_k=depth)[0]]
        scores = self.reranker.predict([(query, self.texts[hit]) for hit in hits], show_progress_bar=False)
        return sorted(zip(hits, map(float, scores), strict=True), key=lambda scored: -scored[1])


class Txtai:
    """txtai: texts in SQLite, vectors in FAISS, its `Reranker` pipeline with the same models."""

    def __init__(self, request: Request) -> None:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        self.encoder = SentenceTransformer(request["encoder"], device="cpu")
        self.similarity = txtai_similarity(request)
        self.path = request["encoder"]
        self.embeddings: Any = None
        self.of_texts: Any = None

    def index(self, texts: list[str], vectors: Any) -> None:
        """Take texts, and their vectors where these are known."""
        from txtai import Embeddings  # noqa: PLC0415

        if vectors is None:
            self.of_texts = self.of_texts or Embeddings(path=self.path, content=True, gpu=False)
            self.embeddings = self.of_texts
        else:
            known = dict(zip(texts, vectors, strict=True))

            def transform(wanted: list[str]) -> Any:
                if all(text in known for text in wanted):
                    return np.array([known[text] for text in wanted])
                return self.encoder.encode(wanted, show_progress_bar=False)

            self.embeddings = Embeddings(method="external", transform=transform, content=True, gpu=False)
        self.embeddings.index(list(enumerate(texts)))

    def search(self, query: str, depth: int) -> list[tuple[int, float]]:
        """Positions of the texts and their scores, the best first."""
        from txtai.pipeline import Reranker  # noqa: PLC0415

        results = Reranker(self.embeddings, self.similarity)(query, limit=depth, factor=1)
        return [(int(result["id"]), float(result["score"])) for result in results]


SEARCHES: dict[str, type[Recipe] | type[Txtai]] = {"plain recipe": Recipe, "txtai": Txtai}


def txtai_similarity(request: Request) -> Any:
    """Txtai's cross-encoder."""
    from txtai.pipeline import Similarity  # noqa: PLC0415

    return Similarity(request["reranker"], crossencode=True, gpu=False)


def by_query(pairs: list[tuple[str, str]]) -> list[list[int]]:
    """The positions of each query's pairs."""
    positions: dict[str, list[int]] = {}
    for position, (query, _) in enumerate(pairs):
        positions.setdefault(query, []).append(position)
    return list(positions.values())


def timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    """What is computed, and the seconds that it takes."""
    start = time.perf_counter()
    return compute(), time.perf_counter() - start


def peak_megabytes(process: str) -> float:
    """Most memory that a process has had since it began; `ru_maxrss` would count that of who has started it."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def version_of(library: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


class Peer:
    """Answers the requests of the benchmark."""

    def __init__(self) -> None:
        # Nothing before it is loaded.
        self.scorer: Any = None
        self.searcher: Any = None
        self.encoder: Any = None

    def answer(self, request: Request) -> Request:  # noqa: PLR0911  one for each question
        """Do what `do` says."""
        match request["do"]:
            case "load scorer":
                self.scorer = SCORERS[request["name"]](request)
            case "load searcher":
                self.searcher = SEARCHES[request["name"]](request)
            case "load encoder":
                from sentence_transformers import SentenceTransformer  # noqa: PLC0415

                self.encoder = SentenceTransformer(request["encoder"], device="cpu")
            case "score":
                pairs = [(lost, found) for lost, found in request["pairs"]]
                scores, seconds = timed(lambda: self.scorer(pairs))
                return {"seconds": seconds, "scores": [float(score) for score in scores]}
            case "encode":
                texts = request["texts"]
                vectors, seconds = timed(lambda: self.encoder.encode(texts, show_progress_bar=False))
                return {"seconds": seconds, "vectors": np.asarray(vectors, dtype=float).tolist()}
            case "index":
                texts = json.loads(Path(request["texts"]).read_bytes())
                vectors = np.load(request["vectors"]) if request["vectors"] else None
                if vectors is None:
                    self.searcher.index(texts[:1], None)  # loads
                return {"seconds": timed(lambda: self.searcher.index(texts, vectors))[1]}
            case "versions":
                return {"versions": {name: version_of(name) for name in request["libraries"]}}
            case "memory":
                return {"megabytes": peak_megabytes("self")}
            case "search":
                results, seconds = timed(lambda: self.searcher.search(request["query"], request["depth"]))
                return {"seconds": seconds, "results": results}
        return {}


def main() -> None:
    """Answer until stdin ends; what libraries print goes to stderr."""
    warnings.simplefilter("ignore")
    modules: dict[str, Any] = sys.modules
    modules["openvino_telemetry"] = None  # nobody is to be told
    answers, sys.stdout = sys.stdout, sys.stderr
    peer = Peer()
    for line in sys.stdin:
        try:
            answer = peer.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
