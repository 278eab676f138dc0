"""A model as an OpenVINO graph: what a CPU computes fastest, and what a search starts with without torch."""

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from search.batches import even_budget, token_batches
from search.early_exit import FEATURES, JUST_BELOW, Features, features
from search.errors import ModelError
from search.graph_notes import EXACT, GRAPH, MENDED_BY, TOKENIZER, GraphNotes, import_openvino, read_notes
from search.graph_parts import cut_apart
from search.types import Advance, Floats

BATCH_TOKENS = 768
"""Tokens in a batch, about, padding included: small ones stay in the processor's cache. Of 384 to 8,192 the fastest."""

TEXTS_PER_STEP = 4096
"""Tokenised at once, and sorted by length together."""

CHARACTERS_PER_TOKEN = 20
"""More than any real text has; longer ones are cut before they are tokenised, to bound time and memory."""

CLOSE = 0.5
"""Logits. What a coarse graph puts no further below what it needs is computed anew. By the shipped reranker in int8, of
5,435 pairs of searches none that was within 2 of it lay further than 0.46 from the model's own."""

Outputs = npt.NDArray[np.float32]
"""Shape (n, width): one row per text or pair."""

Texts = Sequence[str] | Sequence[tuple[str, str]]

Inputs = list[npt.NDArray[np.int64]]
"""Of a batch, in the graph's order; shape (texts, tokens)."""

Rows = npt.NDArray[np.int64]
"""Which texts a batch holds."""


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
            network = core.read_model(folder / GRAPH)
            is_of_pairs = self.notes.width == 1 and "token_type_ids" in self.notes.inputs
            parts, cuts = cut_apart(network, openvino) if is_of_pairs else ([network], [])
            with ThreadPoolExecutor(1) as beside:
                exact = beside.submit(self._compile_exact, core)
                # One stream per core or so: batches side by side, none of which waits for the other.
                self._compiled = _Compiled(core, parts, self.notes.arithmetic, "THROUGHPUT")
                self._exact = exact.result()
        except RuntimeError as error:
            raise ModelError(f"{folder} cannot be compiled: {error}; {MENDED_BY}") from error
        self.cuts = cuts
        """The shares of its layers after which it is cut; none where it is not."""
        self.hidden_width = int(parts[0].output(0).partial_shape[2].get_length()) if cuts else 0
        """Of the states there."""
        early = self.notes.early_exit
        widths = {len(estimate.weights) - 1 for estimate in early.estimates if estimate} if early else set()
        if early and (len(early.estimates) != len(self.cuts) or widths != {FEATURES * self.hidden_width}):
            raise ModelError(f"{folder} does not fit its early exit; {MENDED_BY}")

    def _compile_exact(self, core: Any) -> "_Compiled | None":
        if not self.notes.looks_twice:
            return None
        # A few pairs at a time, each by all cores.
        return _Compiled(core, (core.read_model(self.folder / EXACT),), "f32", "LATENCY")

    def run(
        self, texts: Texts, advance: Advance | None = None, needed: Floats | None = None, *, may_leave: bool = False
    ) -> Outputs:
        """What the graph answers to texts or pairs.

        Args:
            texts: n of them; what is longer than the model reads is cut.
            advance: Called with the number of texts in each batch as it is done.
            needed: The logits with which pairs would be shown, shape (n,). Where the graph is not in float32, those
                that come near theirs or reach it get a second look: they are computed anew in float32, so that what is
                shown has the model's own score. Those that need minus infinity get no first. None: the graph's own
                outputs.
            may_leave: Whether the logit of a pair may be an estimate, below what it needs; it should be so only for
                pairs that are below it (see `EarlyExit.kept`).

        Returns:
            Shape (n, width), float32, rows in the order of the texts.

        Raises:
            ModelError: It cannot be computed, for want of memory say.
        """
        results = np.empty((len(texts), self.notes.width), dtype=np.float32)
        early = self.notes.early_exit if may_leave else None
        estimates = early.estimates if early else ()
        close_from = np.full(len(texts), np.inf) if needed is None or self._exact is None else needed - CLOSE
        is_close = np.isneginf(close_from)

        def compute(parts: list[Any], inputs: Inputs, rows: Rows) -> int:
            every, hidden = rows, list[Outputs]()
            for part, estimate in zip_longest(parts, estimates):
                output = part.infer(dict(enumerate([*hidden, *inputs])))[0]
                if estimate and needed is not None:
                    excess = estimate.excess(self._features(output, inputs), needed[rows])
                    results[rows, 0] = needed[rows] + np.minimum(excess, -JUST_BELOW)
                    going_on = np.flatnonzero(excess >= estimate.margin)
                    rows, output, inputs = rows[going_on], output[going_on], [array[going_on] for array in inputs]
                    if not len(rows):
                        break
                hidden = [output]
            else:
                results[rows] = output
                is_close[rows] = results[rows, 0] >= close_from[rows]
            return len(every) - int(is_close[every].sum())

        self._for_batches(self._compiled, texts, np.flatnonzero(~is_close), compute, advance)
        self._look_again(texts, np.flatnonzero(is_close), results, advance)
        return results

    def _look_again(self, texts: Texts, chosen: Rows, results: Outputs, advance: Advance | None) -> None:
        """Put what the model in float32 answers to the chosen texts in place of other results, where there is one."""

        def compute(parts: list[Any], inputs: Inputs, rows: Rows) -> int:
            results[rows] = parts[0].infer(dict(enumerate(inputs)))[0]
            return len(rows)

        if self._exact:
            self._for_batches(self._exact, texts, chosen, compute, advance)

    def on_the_way(
        self, texts: Texts, needed: Floats, advance: Advance | None = None
    ) -> tuple[list[Features], Outputs]:
        """What an early exit reads of pairs after each part but the last, and what `run` answers; in the pairs' order.

        Raises:
            ModelError: As `run`.
        """
        results = np.empty((len(texts), self.notes.width), dtype=np.float32)
        known = [np.empty((len(texts), FEATURES * self.hidden_width), dtype=np.float32) for _ in self.cuts]

        def compute(parts: list[Any], inputs: Inputs, rows: Rows) -> int:
            hidden = list[Outputs]()
            for number, part in enumerate(parts):
                output = part.infer(dict(enumerate([*hidden, *inputs])))[0]
                if number < len(known):
                    known[number][rows] = self._features(output, inputs)
                hidden = [output]
            results[rows] = output
            return len(rows)

        self._for_batches(self._compiled, texts, np.arange(len(texts)), compute, advance)
        self._look_again(texts, np.flatnonzero(results[:, 0] >= needed - CLOSE), results, None)
        return known, results

    def _features(self, hidden: Outputs, inputs: Inputs) -> Features:
        of = dict(zip(self.notes.inputs, inputs, strict=True))
        return features(hidden, of["attention_mask"], of["token_type_ids"])

    def _for_batches(
        self,
        compiled: "_Compiled",
        texts: Texts,
        chosen: Rows,
        compute: Callable[[list[Any], Inputs, Rows], int],
        advance: Advance | None,
    ) -> None:
        """Call `compute` with idle requests, batches of inputs of the chosen texts, and which texts these are.

        It returns the number of texts that are done with.
        """

        def one(encodings: list[Encoding], rows: Rows) -> int:
            with compiled.requests() as parts:
                return compute(parts, list(batch_inputs(encodings, self.notes)), rows)

        if not len(chosen):
            return
        with ThreadPoolExecutor(compiled.streams + 1) as pool:
            for start in range(0, len(chosen), TEXTS_PER_STEP):
                step = chosen[start : start + TEXTS_PER_STEP]
                encodings = self.tokenizer.encode_batch([self._bounded(texts[row]) for row in step])
                lengths = [len(encoding) for encoding in encodings]
                batches = token_batches(lengths, even_budget(lengths, BATCH_TOKENS, compiled.streams))
                try:
                    jobs = [pool.submit(one, [encodings[place] for place in batch], step[batch]) for batch in batches]
                    for done in as_completed(jobs):
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


class _Compiled:
    """A network for the CPU, perhaps in parts, with the requests by which threads share it."""

    def __init__(self, core: Any, parts: Sequence[Any], arithmetic: str, hint: str) -> None:
        wanted = {"INFERENCE_PRECISION_HINT": arithmetic, "PERFORMANCE_HINT": hint}
        compiled = [core.compile_model(part, "CPU", wanted) for part in parts]
        self.streams: int = compiled[0].get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        # One more than streams, whose batch is made ready while the others compute.
        self._idle: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        for _ in range(self.streams + 1):
            self._idle.put([part.create_infer_request() for part in compiled])

    @contextmanager
    def requests(self) -> Iterator[list[Any]]:
        """One idle request of each part; waits for one."""
        parts = self._idle.get()
        try:
            yield parts
        finally:
            self._idle.put(parts)


def reading_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """The tokenizer of a graph's folder, which cuts what is longer than the model reads; it may raise ModelError."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the package raises nothing more special
        raise ModelError(f"{folder / TOKENIZER} cannot be read: {error}; {MENDED_BY}") from error
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
