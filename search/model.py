"""What both models have: a name, a folder, a fingerprint, and on a CPU perhaps a graph that is faster."""

import sys
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from search import model_folder
from search.errors import ModelError
from search.graph import Graph
from search.graph_notes import GraphNotes, read_notes

CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 2_048, 65_536
"""Tokens that torch reads at once where nothing else is wanted."""

CHARACTERS_PER_TOKEN = 4
"""Of English text, about: torch's batches are measured before it is tokenised."""

Read = TypeVar("Read")


class Model:
    """A bi-encoder or cross-encoder. Making one finds the folder; weights are loaded when they are first needed."""

    def __init__(
        self,
        name: str,
        device: str = "auto",
        batch_tokens: int = 0,
        precision: str | None = None,
        graphs: Path | None = None,
    ) -> None:
        """Find the model.

        Args:
            name: Built in, a local folder, or a hub id with an optional `@revision`.
            device: `auto`, `cpu`, `cuda` or `mps`.
            batch_tokens: Tokens that torch reads at once, about; 0: as many as suit the device.
            precision: torch's: `float32`, `bfloat16` or `float16`; None: half on a GPU, else float32.
            graphs: Where `lostfound optimise` puts graphs; one of this model is used on a CPU in place of torch.

        Raises:
            ModelError: There is no such model, or it has no safetensors weights.
        """
        self.name = name
        self.folder = model_folder.find_model(name)
        self.device = device
        self.batch_tokens = batch_tokens
        self._precision = precision
        self._graphs = graphs
        self._lock = threading.RLock()  # a tokenizer holds state while it reads
        self._compiling = threading.Lock()
        self._graph: Graph | None = None
        self._is_graph_known = False
        self.warnings: list[str] = []
        """Of a graph that cannot be used."""

    @cached_property
    def fingerprint(self) -> str:
        """Says which model and text form made a vector or score; 64 hex digits."""
        return model_folder.fingerprint(self.folder)

    @property
    def graph_folder(self) -> Path | None:
        """Where a graph of this model lies or would lie; None where none is wanted."""
        return self._graphs / self.fingerprint[:16] if self._graphs else None

    @property
    def graph(self) -> Graph | None:
        """The graph of this model, where there is one and the model runs on the CPU; compiled when first asked for."""
        # `cached_property` of Python 3.11 has one lock for all models, which are to load side by side.
        with self._compiling:
            if not self._is_graph_known:
                self._graph = self._from_graph_folder(Graph)
                self._is_graph_known = True
            return self._graph

    @property
    def graph_notes(self) -> GraphNotes | None:
        """Of that graph, read without compiling it."""
        return self._from_graph_folder(read_notes)

    def _from_graph_folder(self, read: Callable[[Path, str], Read]) -> Read | None:
        folder = self.graph_folder
        if folder is None or not self.runs_on_cpu:
            return None
        try:
            if folder.is_dir():
                return read(folder, self.fingerprint)
        except (ModelError, OSError) as error:
            warning = f"{self.name} is computed by torch, slowly: {error}"
            if warning not in self.warnings:
                self.warnings.append(warning)
        return None

    @cached_property
    def runs_on_cpu(self) -> bool:
        """Whether the device is the CPU. Loads torch only where there may be another.

        Raises:
            SettingsError: The device is not on this machine.
        """
        if self.device == "cpu" or (self.device == "auto" and not _may_have_gpu()):
            return True
        return self.torch_device == "cpu"

    @property
    def torch_device(self) -> str:
        """The device of this machine that torch uses, e.g. `cuda`. Loads torch.

        Raises:
            SettingsError: The device is not on this machine.
        """
        from search.loading import resolve_device  # noqa: PLC0415  imports torch

        return resolve_device(self.device)

    @property
    def precision(self) -> str:
        """The precision of the arithmetic, e.g. `float32`; without a graph this loads torch.

        Raises:
            SettingsError: The device is not on this machine.
        """
        if self.graph:
            return self.graph.notes.precision
        from search.loading import default_precision  # noqa: PLC0415  imports torch

        return self._precision or default_precision(self.torch_device)

    @property
    def batch_characters(self) -> int:
        """The budget of torch's batches, in characters."""
        tokens = self.batch_tokens or (CPU_BATCH_TOKENS if self.runs_on_cpu else GPU_BATCH_TOKENS)
        return tokens * CHARACTERS_PER_TOKEN


def _may_have_gpu() -> bool:
    is_linux = sys.platform.startswith("linux")
    return not is_linux or any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
