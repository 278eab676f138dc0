"""A model as an OpenVINO graph: what a CPU computes fastest, and what a search starts with without torch."""

import hashlib
import queue
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from tokenizers import Encoding, Tokenizer

from search.batches import even_budget, token_batches
from search.early_exit import FEATURES, JUST_BELOW, EarlyExit, Features, cut_in_two, features
from search.errors import ModelError
from search.types import Advance, Floats
from search.validation import reasons

GRAPH, WEIGHTS, TOKENIZER, NOTES = "model.xml", "model.bin", "tokenizer.json", "graph.json"

BATCH_TOKENS = 768
"""Tokens in a batch, about, padding included: small ones stay in the processor's cache. Of 384 to 8,192 the fastest."""

TEXTS_PER_STEP = 4096
"""Tokenised at once, and sorted by length together."""

CHARACTERS_PER_TOKEN = 20
"""More than any real text has; longer ones are cut before they are tokenised, to bound time and memory."""

Outputs = npt.NDArray[np.float32]
"""Shape (n, width): one row per text or pair."""

Texts = Sequence[str] | Sequence[tuple[str, str]]

Inputs = list[npt.NDArray[np.int64]]
"""Of a batch, in the graph's order; shape (texts, tokens)."""

Rows = npt.NDArray[np.int64]
"""Which texts a batch holds."""


class GraphNotes(BaseModel):
    """What a graph was made from, and what it showed beside the model itself in float32."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    model: str
    """Fingerprint of the model."""
    precision: str
    """`float32`, `bfloat16`, or `int8:` and the first digits of the weights' checksum."""
    arithmetic: Literal["f32", "bf16"]
    """Of what is not int8."""
    inputs: tuple[str, ...]
    """The model's inputs in the graph's order, of `input_ids`, `attention_mask`, `token_type_ids`."""
    width: int
    """Values per row of the output."""
    max_length: int
    """Tokens that are read of a text or pair."""
    pad_id: int
    prompts: dict[str, str]
    """What goes before a `query` and a `document`."""
    processor: str
    """On which it was made and measured."""
    figures: dict[str, float]
    """What was measured beside the model itself, by name; `flipped` is the share of the pairs that fall on the other
    side of `threshold`."""
    sha256: dict[str, str]
    """Of the files, by name."""
    early_exit: EarlyExit | None = None
    """Of a reranker whose pairs need not all be computed to the end."""
    early_exit_for: tuple[float, str] | None = None
    """Threshold and fingerprint of the bi-encoder for which one was last fitted, whether it paid or not."""

    def flipped_at(self, threshold: float) -> float | None:
        """The share of decisions at a threshold that differ from the model's own; None where it was not measured."""
        return self.figures["flipped"] if self.figures.get("threshold") == threshold else None


class Graph:
    """A compiled graph with its tokenizer. Safe to share between threads."""

    def __init__(self, folder: Path, model: str) -> None:
        """Read, check and compile it.

        Args:
            folder: Holds the files.
            model: Fingerprint of the model that it must have been made from.

        Raises:
            ModelError: A file is missing or not what was written, the graph is of another model or processor, or
                OpenVINO cannot be used.
        """
        self.folder = folder
        self.notes = read_notes(folder, model)
        self.tokenizer = reading_tokenizer(folder, self.notes.max_length)
        openvino = import_openvino()
        try:
            core = openvino.Core()
            # One stream per core or so: batches side by side, none of which waits for the other.
            wanted = {"INFERENCE_PRECISION_HINT": self.notes.arithmetic, "PERFORMANCE_HINT": "THROUGHPUT"}
            network = core.read_model(folder / GRAPH)
            is_of_pairs = self.notes.width == 1 and "token_type_ids" in self.notes.inputs
            halves = cut_in_two(network, openvino) if is_of_pairs else None
            parts = [core.compile_model(part, "CPU", wanted) for part in halves or (network,)]
            streams = parts[0].get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        except RuntimeError as error:
            raise ModelError(f"{folder} cannot be compiled: {error}; {_MENDED_BY}") from error
        self.hidden_width = int(parts[0].output(0).partial_shape[2].get_length()) if halves else None
        """Of the states between its two parts; None where it is not cut."""
        early = self.notes.early_exit
        if early and (not self.hidden_width or len(early.weights) != FEATURES * self.hidden_width):
            raise ModelError(f"{folder} does not fit its early exit; {_MENDED_BY}")
        # One more than streams, whose batch is made ready while the others compute.
        self._idle: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        self._streams = streams
        for _ in range(streams + 1):
            self._idle.put([part.create_infer_request() for part in parts])

    def run(self, texts: Texts, advance: Advance | None = None, needed: Floats | None = None) -> Outputs:
        """What the graph answers to texts or pairs.

        Args:
            texts: n of them; what is longer than the model reads is cut.
            advance: Called with the number of texts in each batch as it is done.
            needed: The logits that matter, shape (n,). That of a pair may be an estimate then, below what it needs; it
                should be so only for pairs that are below it (see `EarlyExit.kept`). None: all are computed.

        Returns:
            Shape (n, width), float32, rows in the order of the texts.

        Raises:
            ModelError: It cannot be computed, for want of memory say.
        """
        results = np.empty((len(texts), self.notes.width), dtype=np.float32)
        early = self.notes.early_exit

        def compute(parts: list[Any], inputs: Inputs, rows: Rows) -> None:
            output = parts[0].infer(dict(enumerate(inputs)))[0]
            if early and needed is not None:
                estimates = early.estimates(self._features(output, inputs))
                results[rows, 0] = np.minimum(estimates, needed[rows] - JUST_BELOW)
                going_on = np.flatnonzero(estimates - needed[rows] >= early.margin)
                rows, output, inputs = rows[going_on], output[going_on], [array[going_on] for array in inputs]
            if len(rows):
                results[rows] = _upper(parts, output, inputs) if self.hidden_width else output

        self._for_batches(texts, compute, advance)
        return results

    def halfway(self, texts: Texts, advance: Advance | None = None) -> tuple[Features, Outputs]:
        """What an early exit reads of pairs, and what the whole graph answers; rows in the order of the pairs.

        Raises:
            ModelError: As `run`, or the graph is not cut in two.
        """
        if not self.hidden_width:
            raise ModelError(f"{self.folder} is of a model that cannot be left early")
        results = np.empty((len(texts), self.notes.width), dtype=np.float32)
        known = np.empty((len(texts), FEATURES * self.hidden_width), dtype=np.float32)

        def compute(parts: list[Any], inputs: Inputs, rows: Rows) -> None:
            hidden = parts[0].infer(dict(enumerate(inputs)))[0]
            known[rows] = self._features(hidden, inputs)
            results[rows] = _upper(parts, hidden, inputs)

        self._for_batches(texts, compute, advance)
        return known, results

    def _features(self, hidden: Outputs, inputs: Inputs) -> Features:
        of = dict(zip(self.notes.inputs, inputs, strict=True))
        return features(hidden, of["attention_mask"], of["token_type_ids"])

    def _for_batches(
        self, texts: Texts, compute: Callable[[list[Any], Inputs, Rows], None], advance: Advance | None
    ) -> None:
        """Call `compute` with the parts of an idle worker, with batches of inputs and with the rows that they are."""

        def one(encodings: list[Encoding], rows: list[int], start: int) -> int:
            parts = self._idle.get()
            try:
                inputs = list(batch_inputs([encodings[row] for row in rows], self.notes))
                compute(parts, inputs, np.array(rows) + start)
            finally:
                self._idle.put(parts)
            return len(rows)

        with ThreadPoolExecutor(self._streams + 1) as pool:
            for start in range(0, len(texts), TEXTS_PER_STEP):
                part = texts[start : start + TEXTS_PER_STEP]
                encodings = self.tokenizer.encode_batch([self._bounded(text) for text in part])
                lengths = [len(encoding) for encoding in encodings]
                batches = token_batches(lengths, even_budget(lengths, BATCH_TOKENS, self._streams))
                try:
                    for done in as_completed([pool.submit(one, encodings, rows, start) for rows in batches]):
                        count = self._result_of(done)
                        if advance:
                            advance(count)
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise

    def _result_of(self, done: Future[int]) -> int:
        try:
            return done.result()
        except (RuntimeError, MemoryError) as error:
            raise ModelError(f"{self.folder} cannot be computed: {error or 'no memory is left'}") from error

    def _bounded(self, text: str | tuple[str, str]) -> str | tuple[str, str]:
        limit = self.notes.max_length * CHARACTERS_PER_TOKEN
        return text[:limit] if isinstance(text, str) else (text[0][:limit], text[1][:limit])


def _upper(parts: list[Any], hidden: Outputs, inputs: Inputs) -> Outputs:
    logits: Outputs = parts[1].infer(dict(enumerate([hidden, *inputs])))[0]
    return logits


def read_notes(folder: Path, model: str) -> GraphNotes:
    """The notes of a graph that can be used here: its files are as they were written, on this processor.

    Raises:
        ModelError: A file is missing or not what was written, the graph is of another model or processor, or OpenVINO
            is not installed.
    """
    try:
        notes = GraphNotes.model_validate_json((folder / NOTES).read_bytes())
        changed = [name for name, expected in notes.sha256.items() if sha256(folder / name) != expected]
    except (OSError, ValidationError) as error:
        reason = reasons(error) if isinstance(error, ValidationError) else error.strerror
        raise ModelError(f"{folder} holds no graph that can be used: {reason}; {_MENDED_BY}") from error
    if notes.model != model:
        raise ModelError(f"{folder} was made from another model; {_MENDED_BY}")
    if changed:
        raise ModelError(f"{folder / changed[0]} is not what was written; {_MENDED_BY}")
    if notes.processor != (present := processor()):
        raise ModelError(f"{folder} was measured on {notes.processor}, this is {present}; {_MENDED_BY}")
    return notes


def reading_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """The tokenizer of a graph's folder, which cuts what is longer than the model reads; it may raise ModelError."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the package raises nothing more special
        raise ModelError(f"{folder / TOKENIZER} cannot be read: {error}; {_MENDED_BY}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def batch_inputs(encodings: Sequence[Encoding], notes: GraphNotes) -> Iterator[npt.NDArray[np.int64]]:
    """The graph's inputs in its order, each of shape (texts, longest), padded at the end."""
    shape = (len(encodings), max(map(len, encodings)))
    for name in notes.inputs:
        array = np.full(shape, notes.pad_id if name == "input_ids" else 0, dtype=np.int64)
        for row, encoding in zip(array, encodings, strict=True):
            row[: len(encoding)] = getattr(encoding, _COLUMNS[name])
        yield array


_COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}

_MENDED_BY = "make it anew with `lostfound optimise`"


def import_openvino() -> Any:
    """The openvino module, without the package by which it tells its maker how it is used.

    Raises:
        ModelError: It is not installed.
    """
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # its import fails then, and a stub takes its place
    try:
        import openvino  # noqa: PLC0415  optional
    except ImportError as error:
        raise ModelError(f"OpenVINO cannot be used ({error}); run `scripts/setup`") from error
    return openvino


def processor() -> str:
    """The name of this machine's processor, as OpenVINO has it.

    Raises:
        ModelError: OpenVINO is not installed.
    """
    return str(import_openvino().Core().get_property("CPU", "FULL_DEVICE_NAME"))


def sha256(path: Path) -> str:
    """Of a file's content; 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
