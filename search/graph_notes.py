"""The files of a graph, what its notes say of model, processor and figures, and OpenVINO, which reads them."""

import hashlib
import sys
import threading
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from search.early_exit import EarlyExit
from search.errors import ModelError
from search.validation import reasons

GRAPH, WEIGHTS, TOKENIZER, NOTES = "model.xml", "model.bin", "tokenizer.json", "graph.json"

EXACT, EXACT_WEIGHTS = "exact.xml", "exact.bin"
"""The same network in float32, of a reranker whose graph is not."""

MENDED_BY = "make it anew with `lostfound optimise`"


class GraphNotes(BaseModel):
    """What a graph was made from, and what it showed beside the model itself in float32."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[4]
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

    @property
    def looks_twice(self) -> bool:
        """Whether what a search may show is computed anew in float32; see `Graph.run`."""
        return EXACT in self.sha256

    def flipped_at(self, threshold: float) -> float | None:
        """The share of decisions at a threshold that differ from the model's own; None where it was not measured."""
        return self.figures["flipped"] if self.figures.get("threshold") == threshold else None


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
        raise ModelError(f"{folder} holds no graph that can be used: {reason}; {MENDED_BY}") from error
    if notes.model != model:
        raise ModelError(f"{folder} was made from another model; {MENDED_BY}")
    if changed:
        raise ModelError(f"{folder / changed[0]} is not what was written; {MENDED_BY}")
    if notes.processor != (present := processor()):
        raise ModelError(f"{folder} was measured on {notes.processor}, this is {present}; {MENDED_BY}")
    return notes


def import_openvino() -> Any:
    """The openvino module, without the package by which it tells its maker how it is used, fit for several threads.

    Raises:
        ModelError: It is not installed.
    """
    modules: dict[str, Any] = sys.modules
    with _importing:
        modules.setdefault("openvino_telemetry", None)  # its import fails then, and a stub takes its place
        try:
            import openvino  # noqa: PLC0415  optional
        except ImportError as error:
            raise ModelError(f"OpenVINO cannot be used ({error}); run `scripts/setup`") from error
        # What its tensors know of numpy is set up by the first one that is read: two threads at once wait for each
        # other for ever, one with the interpreter's lock, one with that of the set-up.
        _ = openvino.Tensor(openvino.Type.f32, openvino.Shape([1])).data
    return openvino


_importing = threading.Lock()


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
